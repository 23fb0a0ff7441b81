"""Makes a signature and an envelope of a record, by which copies are found whatever the order of their leads.

`signature.py` compares lead I with lead I. A copy whose leads were given in another order has another signature there,
although it may lie in an archive under another patient's id like any other copy. Here nothing depends on which lead is
which:

- The signature holds the same correlations over lags, sorted over the leads at every lag. Sorting is stable: two
  records differ by no more after it than before. It finds candidates among millions by one matrix product.
- The envelope is the size of all leads together through time. Beats of two people are never equally far apart for ten
  seconds, unless both are regular: the envelopes of a copy agree at one lag, and nearly no others do. It judges
  candidates without their signals, in microseconds, and gives the lag between two copies.

Both are computed from the band of `signature.band_of`, with each lead scaled by itself, so that they change as little
by filters, noise and gain as that band does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.fft

from data_pipelines.duplicates import signature
from data_pipelines.records import ENVELOPE_SAMPLES, NO_SAMPLE

#: Rate of an envelope, Hz, at which a QRS complex takes two or three samples.
ENVELOPE_RATE_HZ = 25

#: Shortest overlap on which envelopes are compared, in seconds and as a share of the shorter of both: a few beats are
#: easily alike, and a piece of a recording lies in it as a whole.
MIN_OVERLAP_S = 4.0
MIN_OVERLAP_SHARE = 0.7

#: Entry for a value of one root mean square; a QRS complex, several times that, then still fits.
_SCALE = 20.0

_STEP = signature.BAND_RATE_HZ // ENVELOPE_RATE_HZ

_SALT = b"ecgjax order-free signature"

#: Smallest product of the standard deviations of two envelopes, in entries, at which they can be compared.
_LEAST_SPREAD = 1.0

_SIZE = 2 * ENVELOPE_SAMPLES


def order_free_signature(found: signature.Correlations) -> np.ndarray:
    """Returns the order-free signature; the cosine of two says how similar two records are in any order of leads.

    Args:
        found: Correlations of the record.

    Returns:
        `int8[192]`; all zero where nothing was recorded that could be compared.
    """
    own, cross = found
    # Which of two leads is the first decides the sign of the lag, so both signs of a lag are sorted together.
    half = cross.shape[1] // 2
    pairs = np.concatenate([cross[:, half + 1 :], cross[:, :half][:, ::-1]])
    parts = (
        np.sort(own[:, signature.OWN_LAGS], axis=0).ravel(),
        np.sort(pairs, axis=0).ravel(),
        np.sort(cross[:, half]),
        own.sum(axis=0)[signature.RHYTHM_LAGS],
    )
    return signature.projected(parts, weights=(1, 1, 0.3, 1), salt=_SALT)


def envelope(band: np.ndarray) -> np.ndarray:
    """Returns the size of all leads together through time, which is the record's envelope.

    Args:
        band: `f32[8, samples]` from `signature.band_of`.

    Returns:
        `int8[256]` at 25 Hz, of the first 10.24 s; its mean is 0, and `NO_SAMPLE` stands where the recording has ended.
    """
    entries = np.full(ENVELOPE_SAMPLES, NO_SAMPLE, np.int8)
    if not band.any():
        return entries
    size = np.sqrt(np.square(signature.level_leads(band)).mean(axis=0))
    count = min(len(size) // _STEP, ENVELOPE_SAMPLES)
    # A triangle of 80 ms smooths against aliasing: what is faster than half the rate would appear as something slower.
    smooth = np.convolve(size, np.bartlett(2 * _STEP + 1) / _STEP, mode="same")[_STEP // 2 :: _STEP][:count]
    smooth = smooth - smooth.mean()
    scale = np.sqrt(np.mean(np.square(smooth)))
    entries[:count] = np.clip(np.rint(_SCALE * smooth / scale), -127, 127) if scale > 0 else 0
    return entries


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvelopeMatches:
    """Alignment of pairs of envelopes.

    Attributes:
        correlation: `f64[n]`, correlation at the best lag; 0 where no overlap is long enough, or an envelope does not
            move.
        lag_s: `f64[n]`, seconds by which the second begins later.
        overlap: `f64[n]`, overlap as a share of the longer one.
    """

    correlation: np.ndarray
    lag_s: np.ndarray
    overlap: np.ndarray


def match_envelopes(first: np.ndarray, second: np.ndarray) -> EnvelopeMatches:
    """Finds the lag at which the two envelopes of each pair agree best, and correlates them over the overlap there.

    Args:
        first: Envelopes of the first records, as `envelope` returns them, `int8[n, 256]`.
        second: Envelopes of the second records, `int8[n, 256]`.

    Returns:
        The lag, the correlation there and the overlap of each pair.
    """
    one, two = _values(first), _values(second)
    count, other_count = (np.count_nonzero(each != NO_SAMPLE, axis=1) for each in (first, second))
    shortest = np.maximum(MIN_OVERLAP_S * ENVELOPE_RATE_HZ, MIN_OVERLAP_SHARE * np.minimum(count, other_count))
    # Lags are half samples: beats that lie between the samples of one envelope would lose to others that do not.
    lags = np.arange(2 - 2 * ENVELOPE_SAMPLES, 2 * ENVELOPE_SAMPLES - 1) / 2
    overlap = np.minimum(count[:, None], other_count[:, None] + lags) - np.maximum(lags, 0)
    product = scipy.fft.rfft(one, _SIZE) * scipy.fft.rfft(two, _SIZE).conj()
    summed = 2 * scipy.fft.irfft(product, 2 * _SIZE)[:, (2 * lags).astype(np.int64)]
    peak = np.where(overlap >= shortest[:, None], summed, -np.inf).argmax(axis=1)
    highest, fraction = _summit(summed, peak)
    lag = np.rint(lags[peak]).astype(np.int64)
    begin = np.maximum(lag, 0)
    end = np.maximum(np.minimum(count, other_count + lag), begin)
    common = end - begin
    (total, power), (other_total, other_power) = _over(one, begin, end), _over(two, begin - lag, end - lag)
    # The spread is n² times the product of the standard deviations; below stands n² times the covariance.
    spread = np.sqrt(np.maximum((common * power - total**2) * (common * other_power - other_total**2), 0))
    possible = (overlap[np.arange(len(peak)), peak] >= shortest) & (spread > _LEAST_SPREAD * common**2)
    correlation = (common * highest - total * other_total) / np.where(possible, spread, np.inf)
    return EnvelopeMatches(
        correlation=np.minimum(correlation, 1.0),
        lag_s=(lags[peak] + fraction / 2) / ENVELOPE_RATE_HZ,
        overlap=np.where(possible, common / np.maximum(np.maximum(count, other_count), 1), 0.0),
    )


def _values(envelopes: np.ndarray) -> np.ndarray:
    # Sums of 256 squares of such whole numbers are below 2²⁴, and therefore exact.
    return np.where(envelopes == NO_SAMPLE, 0, envelopes).astype(np.float32)


def _over(values: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums of values and of their squares over a span of each row, each `f64[n]`.

    Args:
        values: `f32[n, samples]`.
        begin: First sample of each row's span, `int64[n]`.
        end: Sample after each row's span, `int64[n]`.
    """
    place = np.arange(values.shape[1])
    inside = values * ((place >= begin[:, None]) & (place < end[:, None]))
    return inside.sum(axis=1).astype(np.float64), np.square(inside).sum(axis=1).astype(np.float64)


def _summit(values: np.ndarray, peak: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the height and the position of a peak of each row, by a parabola through the peak and its neighbours.

    Args:
        values: `f32[n, samples]`.
        peak: Sample of each row's peak, `int64[n]`.

    Returns:
        The height, `f64[n]`, and the position relative to `peak`, `f64[n]`, from -0.5 to 0.5 samples.
    """
    row, last = np.arange(len(peak)), values.shape[1] - 1
    before, at, after = (values[row, np.clip(peak + step, 0, last)].astype(np.float64) for step in (-1, 0, 1))
    bend, slope = before - 2 * at + after, (before - after) / 2
    round_top = (bend < 0) & (peak > 0) & (peak < last) & (np.abs(slope) <= -bend / 2)
    fraction = np.where(round_top, slope / np.where(round_top, bend, 1), 0.0)
    return at - np.where(round_top, slope**2 / np.where(round_top, 2 * bend, 1), 0.0), fraction
