"""Makes a fingerprint of an ECG that survives resampling, filtering, rescaling, realistic noise and a small shift.

A record is filtered to one band (3-20 Hz at 100 Hz), where mains, wander, muscle noise and the usual filters of
recorders leave little trace, with each lead at its own scale. The features are correlations over time, within and
between leads, which do not depend on where the recording begins: they hold the shape of the beat, its projection on the
leads, and its timing. A fixed projection by random signs makes them 192 bytes; it changes distances by about a tenth
(Achlioptas, Database-friendly random projections, J. Comput. Syst. Sci. 66, 2003).

Signatures only propose pairs; `near_duplicates.py` compares the signals.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import scipy  # Its parts are imported where they are first asked for: that of signals takes a second.

from data_pipelines.records import SIGNATURE_BYTES, STORED_LEADS

# This replaces a norm of zero in divisions.
_SMALLEST = float(np.finfo(np.float32).tiny)

#: Rate of the band in which records are compared, Hz.
BAND_RATE_HZ = 100

_BAND_HZ = (3.0, 20.0)

#: Seconds left off at both ends, where the filters have seen only one side.
_EDGE_S = 0.3

#: A lead that moves less than this in the band carries nothing to compare, µV.
_SILENT_UV = 0.1

#: Lags in samples of 10 ms: of one lead with itself (without lag 0, where noise gathers), of two leads, and of all
#: leads together, which shows the timing of the beats.
OWN_LAGS = slice(2, 40, 2)
_CROSS_LAGS = np.arange(-30, 31, 2)
RHYTHM_LAGS = slice(40, 301, 2)

#: Weight of the timing, below that of the shape, since timing differs more in a piece of a record.
_RHYTHM_WEIGHT = 0.5

#: Factor that makes the entries of a signature about ±30, so that none reaches ±127 in practice.
_SCALE = 400.0

_FIRST, _SECOND = np.triu_indices(len(STORED_LEADS), 1)


def band_of(signal: np.ndarray, *, sampling_rate_hz: int, valid_start: int, valid_samples: int) -> np.ndarray:
    """Returns the recorded part of a stored signal in the band of comparison.

    Args:
        signal: `int16[time, 8]`, µV.
        sampling_rate_hz: Rate of the signal, above 40 Hz.
        valid_start: Position of the first recorded sample.
        valid_samples: Number of recorded samples from there on.

    Returns:
        `f32[8, samples]`, µV at `BAND_RATE_HZ`, 0.3 s shorter than the recording at both ends; zero where a lead is
        silent. It is empty for recordings below 0.6 s.
    """
    recorded = signal[valid_start : valid_start + valid_samples].T.astype(np.float32)
    edge = round(_EDGE_S * BAND_RATE_HZ)
    ratio = Fraction(BAND_RATE_HZ, sampling_rate_hz)
    if recorded.shape[1] * ratio <= 2 * edge + 1:
        return np.zeros((len(STORED_LEADS), 0), np.float32)
    # Resampling takes what lies outside for zero, so the level is subtracted lest a lead have a step there.
    recorded -= np.median(recorded, axis=1, keepdims=True)
    band = _band_passed(_resampled(recorded, ratio))[:, edge:-edge].astype(np.float32)
    band[_rms(band) <= _SILENT_UV] = 0
    return band


def level_leads(band: np.ndarray) -> np.ndarray:
    """Returns a band with every lead at unit root mean square and silent leads at zero: `f32[8, samples]`."""
    rms = _rms(band)[:, None]
    return np.where(rms > 0, band / np.where(rms > 0, rms, 1), 0).astype(np.float32)


def signature(signal: np.ndarray, *, sampling_rate_hz: int, valid_start: int, valid_samples: int) -> np.ndarray:
    """Returns the fingerprint of a stored signal; the cosine of two says how similar the signals are.

    Args:
        signal: `int16[time, 8]`, µV.
        sampling_rate_hz: Rate of the signal, above 40 Hz.
        valid_start: Position of the first recorded sample.
        valid_samples: Number of recorded samples from there on.

    Returns:
        `int8[192]`; all zero where nothing was recorded that could be compared.
    """
    band = band_of(signal, sampling_rate_hz=sampling_rate_hz, valid_start=valid_start, valid_samples=valid_samples)
    return signature_of(correlations(band))


class Correlations(NamedTuple):
    """Correlations from which signatures are made; all are zero for a record that has nothing to compare.

    Attributes:
        own: `f32[8, 301]`, correlation of each lead with itself, at lags of 10 ms from 0 on.
        cross: `f32[28, 31]`, correlation of each pair of leads, at lags of 20 ms from -0.3 to 0.3 s.
    """

    own: np.ndarray
    cross: np.ndarray


def correlations(band: np.ndarray) -> Correlations:
    """Correlates leads, each at its own scale, with themselves and with each other.

    Args:
        band: `f32[8, samples]` from `band_of`.

    Returns:
        The correlations; all zero for a band that is all zero.
    """
    longest = RHYTHM_LAGS.stop
    if not band.any():
        zeros = functools.partial(np.zeros, dtype=np.float32)
        return Correlations(own=zeros((len(STORED_LEADS), longest)), cross=zeros((len(_FIRST), len(_CROSS_LAGS))))
    leads = level_leads(band)
    spectrum = scipy.fft.rfft(leads, scipy.fft.next_fast_len(leads.shape[1] + longest, real=True))
    own = scipy.fft.irfft(spectrum * spectrum.conj())[:, :longest]
    cross = scipy.fft.irfft(spectrum[_FIRST] * spectrum[_SECOND].conj())[:, _CROSS_LAGS]
    return Correlations(own, cross)


def signature_of(found: Correlations) -> np.ndarray:
    """Returns the `signature` of a record from its correlations."""
    parts = (found.own[:, OWN_LAGS].ravel(), found.cross.ravel(), found.own.sum(axis=0)[RHYTHM_LAGS])
    return projected(parts, weights=(1, 1, _RHYTHM_WEIGHT), salt=b"ecgjax signature")


def projected(parts: Sequence[np.ndarray], *, weights: Sequence[float], salt: bytes) -> np.ndarray:
    """Makes a signature of features by a fixed projection on random signs.

    Args:
        parts: Kinds of features, `f32[n]` each; each is scaled to unit length.
        weights: Length of each kind after that.
        salt: Bytes that choose the signs.

    Returns:
        `int8[192]`; all zero where all features are zero.
    """
    if not any(part.any() for part in parts):
        return np.zeros(SIGNATURE_BYTES, np.int8)
    features = np.concatenate(
        [
            weight * part / max(float(np.linalg.norm(part)), _SMALLEST)
            for weight, part in zip(weights, parts, strict=True)
        ]
    )
    onto_signs = features @ _projection(len(features), salt)
    entries = np.rint(_SCALE * onto_signs / np.linalg.norm(onto_signs))
    return np.clip(entries, -127, 127).astype(np.int8)


@functools.cache
def _projection(num_features: int, salt: bytes = b"ecgjax signature") -> np.ndarray:
    # The signs come from a hash, since a random generator's stream may change with the version of its library.
    count = num_features * SIGNATURE_BYTES
    digest = hashlib.shake_256(salt).digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(digest, np.uint8), count=count).reshape(num_features, SIGNATURE_BYTES)
    return bits.astype(np.float32) * 2 - 1


def _resampled(leads: np.ndarray, ratio: Fraction) -> np.ndarray:
    if ratio == 1:
        return leads
    up, down = ratio.numerator, ratio.denominator
    return scipy.signal.resample_poly(leads, up, down, axis=1, window=_resampling_filter(ratio))


@functools.cache
def _resampling_filter(ratio: Fraction) -> np.ndarray:
    """Returns the filter of `scipy.signal.resample_poly`, which designs it anew at every call."""
    slower = max(ratio.numerator, ratio.denominator)
    return scipy.signal.firwin(20 * slower + 1, 1 / slower, window=("kaiser", 5.0)).astype(np.float32)


def _band_passed(leads: np.ndarray) -> np.ndarray:
    """Returns `f64[lead, samples]`, filtered forwards and backwards with the same bits as `scipy.signal.sosfiltfilt`.

    SciPy's function computes the initial state anew at every call, which takes longer than filtering ten seconds.
    """
    sections, steady, pad = _band_pass()
    before = 2 * leads[:, :1] - leads[:, pad:0:-1]
    after = 2 * leads[:, -1:] - leads[:, -2 : -pad - 2 : -1]
    extended = np.concatenate([before, leads, after], axis=1)
    forwards, _ = scipy.signal.sosfilt(sections, extended, axis=1, zi=steady * extended[:, :1])
    backwards, _ = scipy.signal.sosfilt(sections, forwards[:, ::-1], axis=1, zi=steady * forwards[:, -1:])
    return backwards[:, ::-1][:, pad:-pad]


@functools.cache
def _band_pass() -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the filter's sections, their steady states for an input of one, and the number of samples to pad."""
    sections = scipy.signal.butter(2, _BAND_HZ, "bandpass", fs=BAND_RATE_HZ, output="sos")
    return sections, scipy.signal.sosfilt_zi(sections)[:, None, :], 3 * (2 * len(sections) + 1)


def _rms(band: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(band), axis=1))
