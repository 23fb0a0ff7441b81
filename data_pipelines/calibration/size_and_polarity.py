"""Measures the size, speed and polarity of a record, by which a wrong factor, rate or sign of all leads is found.

Einthoven's identities cannot show such a factor, since they hold whatever all leads are multiplied by. The measures are
compared with those of other records by `groups.py`. All but the last three are made of the band from
`signature.band_of`, which is free of wander, mains and most muscle noise.
"""

from __future__ import annotations

import math

import numpy as np

from data_pipelines.duplicates.signature import BAND_RATE_HZ, Correlations
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS

_OF_SAMPLES = ("largest_mv", "span_mv", "deviation_mv")
#: Names of the measures, in the order of their numbers: amplitude of the largest lead, mV; that of the largest chest
#: lead as a multiple of the largest limb lead; skewness of the leads whose QRS complex points upwards in nearly
#: everybody; time between beats, s; half-width of the beat's autocorrelation, ms; variation of the amplitude, as a
#: share of it; largest sample, mV; span of all samples, mV; their standard deviation, mV.
MEASURES = ("amplitude_mv", "chest_to_limb", "upright", "beat_s", "width_ms", "unsteady", *_OF_SAMPLES)

#: Length of the windows whose median is the amplitude: at 30 beats a minute there is a beat in each, and artefacts in
#: less than half of them change little.
_WINDOW_S = 2.0

_LIMB = [STORED_LEADS.index(lead) for lead in ("I", "II")]
_CHEST = [STORED_LEADS.index(lead) for lead in ("V1", "V2", "V3", "V4", "V5", "V6")]
_UPRIGHT = [STORED_LEADS.index(lead) for lead in ("I", "II", "V5", "V6")]

#: Range of lags of 10 ms in which beats are looked for: 200 to 24 a minute.
_BEATS = slice(30, 250)

#: Share of the best correlation at which the first such lag is taken, since two beats on are as alike as one.
_NEARLY = 0.85


def measures_of(signal: np.ndarray, band: np.ndarray, correlated: Correlations) -> np.ndarray:
    """Measures a record.

    Args:
        signal: Recorded samples, `int16[time, 8]`, µV.
        band: `f32[8, samples]` from `signature.band_of`.
        correlated: Correlations of that band.

    Returns:
        `f32[9]` in the order of `MEASURES`; NaN where there is nothing to measure.
    """
    found = np.full(len(MEASURES), np.nan, np.float32)
    if not band.any():
        return found
    spans = _spans(band)
    middle = np.sort(spans, axis=1)[:, spans.shape[1] // 2]
    limb, chest = float(middle[_LIMB].max()), float(middle[_CHEST].max())
    rhythm = correlated.own.sum(axis=0)
    lowest, highest = int(signal.min()), int(signal.max())
    found[:] = (
        max(limb, chest) / MICROVOLTS_PER_MILLIVOLT,
        chest / limb if limb > 0 else np.nan,
        _skewness(band),
        _beat_s(rhythm),
        _width_ms(rhythm),
        _unsteadiness(spans[middle.argmax()]),
        max(-lowest, highest) / MICROVOLTS_PER_MILLIVOLT,
        (highest - lowest) / MICROVOLTS_PER_MILLIVOLT,
        _deviation(signal) / MICROVOLTS_PER_MILLIVOLT,
    )
    return found


def _spans(band: np.ndarray) -> np.ndarray:
    """Returns the span of each lead within each window: `f32[8, windows]`, µV."""
    width = min(round(_WINDOW_S * BAND_RATE_HZ), band.shape[1])
    count = band.shape[1] // width
    windows = band[:, : count * width].reshape(len(band), count, width)
    return windows.max(axis=2) - windows.min(axis=2)


def _unsteadiness(spans: np.ndarray) -> float:
    """Returns the spread of the spans of one lead as a share of their mean; NaN for a single span."""
    if len(spans) < 2:
        return np.nan
    mean = float(spans.sum()) / len(spans)
    return math.sqrt(float(np.square(spans - mean).sum()) / len(spans)) / mean


def _deviation(signal: np.ndarray) -> float:
    # Every other sample suffices for the deviation.
    samples = signal[::2].astype(np.float32).ravel()
    mean = float(samples.sum()) / len(samples)
    return math.sqrt(max(float(np.dot(samples, samples)) / len(samples) - mean**2, 0.0))


def _skewness(band: np.ndarray) -> float:
    """Returns the mean skewness of the leads whose QRS points upwards in nearly everybody; NaN if all are flat."""
    found = []
    for lead in _UPRIGHT:
        samples = band[lead]
        square = samples * samples
        if (size := float(square.sum()) / len(samples)) > 0:
            found.append(float(np.dot(square, samples)) / len(samples) / size**1.5)
    return sum(found) / len(found) if found else np.nan


def _beat_s(rhythm: np.ndarray) -> float:
    """Returns the time between beats in seconds, from the peaks of the autocorrelation; NaN where no peak is clear.

    Args:
        rhythm: Autocorrelation summed over the leads, `f32[301]`, at lags of 10 ms from 0 on.
    """
    first, end = _BEATS.start, _BEATS.stop
    inside = rhythm[_BEATS]
    peak = (inside >= rhythm[first - 1 : end - 1]) & (inside > rhythm[first + 1 : end + 1])
    if not peak.any():
        return np.nan
    good = peak & (inside >= _NEARLY * inside[peak].max())
    return (_BEATS.start + int(good.argmax())) / BAND_RATE_HZ


def _width_ms(rhythm: np.ndarray) -> float:
    """Returns the interpolated lag in ms at which the autocorrelation is half; NaN where there is none below 0.3 s.

    Args:
        rhythm: Autocorrelation summed over the leads, `f32[301]`, at lags of 10 ms from 0 on.
    """
    if not len(below := np.flatnonzero(rhythm[: _BEATS.start] < rhythm[0] / 2)):
        return np.nan
    lag = int(below[0])
    fraction = (rhythm[lag - 1] - rhythm[0] / 2) / (rhythm[lag - 1] - rhythm[lag])
    return float((lag - 1 + fraction) * 1000 / BAND_RATE_HZ)
