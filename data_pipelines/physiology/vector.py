"""Measures the physiology vector of PhysioCLR (Maghsoodi et al. 2025, arXiv 2509.08116): 159 numbers of a recording.

Per beat, for the first ten: RR, PR, QRS, QTc, P and T duration, R, T and P amplitude, QRS slope (100). Mean, standard
deviation, median and interquartile range over all beats of these ten and of ST at J + 60 ms (44). Fifteen numbers of
the recording as a whole. R peaks are NeuroKit2's; `beats.py` defines beats and measures them.

The published code differs as follows:
- It averages the leads before measuring, in which lead I cancels part of the others. Here amplitudes and ST are those
  of lead II, and boundaries are found in the space of all leads: NeuroKit2's wavelet boundaries of lead II miss the
  required accuracy several times over (`delineation.py` has the figures).
- It reads the maximum of T and so misses inversion. Amplitudes here are signed extremes.
- It writes zeros for what is missing, which pass for measurements. Here that is NaN, with the reason kept (`Missing`).
- It matches waves to beats by their position in a list, which one missed wave shifts. Here a wave is matched by its
  time from the R peak.
- A wave that single beats show somewhere in fibrillation is not taken for a P wave here (`beats.py`).

Vectors must be standardised before any cosine (`standardise.py`), or milliseconds outweigh everything else.
"""

from __future__ import annotations

import enum
import functools
import math
import operator
from collections.abc import Callable, Mapping

import numpy as np

from data_pipelines.physiology.beats import Beats, NoBeatsError, measure_beats, prepare

#: Version of the definition; measurements of another version are not comparable.
PHYSIOLOGY_VERSION = 1

#: Number of beats that have columns of their own.
NUM_BEATS = 10

_OF_BEAT: Mapping[str, str] = {
    **dict.fromkeys(("rr", "pr", "qrs", "qtc", "p_duration", "t_duration"), "ms"),
    **dict.fromkeys(("r_amplitude", "t_amplitude", "p_amplitude"), "mV"),
    "qrs_slope": "mV/s",
}

_STATISTICS: Mapping[str, Callable[[np.ndarray], float]] = {
    "mean": np.mean,
    "sd": lambda values: np.std(values, ddof=1) if len(values) > 1 else math.nan,
    "median": np.median,
    "iqr": lambda values: np.subtract(*np.percentile(values, [75, 25])) if len(values) > 1 else math.nan,
}

_OF_RECORD: Mapping[str, str] = {
    "rmssd": "ms",
    **dict.fromkeys(("pnn50", "rr_cv", "rr_short_share", "pr_long_share", "qrs_wide_share"), "1"),
    **dict.fromkeys(("qrs_borderline_share", "qtc_long_share", "p_absent_share", "t_inverted_share"), "1"),
    "st_deviating_share": "1",
    "st_mad": "mV",
    **dict.fromkeys(("beat_correlation_mean", "beat_correlation_sd", "beat_correlation_min"), "1"),
}

#: Unit of every measurement, in column order: `"rr_1"` … `"qrs_slope_10"`, `"rr_mean"` … `"st_iqr"`, `"rmssd"` …
UNITS: Mapping[str, str] = {
    **{f"{kind}_{beat}": unit for kind, unit in _OF_BEAT.items() for beat in range(1, NUM_BEATS + 1)},
    **{f"{kind}_{name}": unit for kind, unit in {**_OF_BEAT, "st": "mV"}.items() for name in _STATISTICS},
    **_OF_RECORD,
}

NAMES: tuple[str, ...] = tuple(UNITS)


class Missing(enum.IntFlag):
    """Reasons why measurements of a record are missing; several may hold. A record without any has all measurements.

    `FLAT_LEAD` (lead II does not vary), `NO_R_PEAKS` (NeuroKit2 failed on it), `FEW_BEATS` (fewer than four R peaks,
    or two whole beats) and `NO_QRS` (no beat's QRS could be bounded) leave every column NaN. The others are about
    single columns: `FEWER_THAN_TEN` beats, a beat `AT_EDGE` of the recording, a QRS, P or T wave that was not found in
    some beat, and `FEW_VALUES` for a statistic.
    """

    FLAT_LEAD = 1
    NO_R_PEAKS = 2
    FEW_BEATS = 4
    NO_QRS = 8
    FEWER_THAN_TEN = 16
    AT_EDGE = 32
    QRS_NOT_FOUND = 64
    P_NOT_FOUND = 128
    T_NOT_FOUND = 256
    FEW_VALUES = 512


#: Reasons of which any means that a record has no vector.
UNUSABLE = Missing.FLAT_LEAD | Missing.NO_R_PEAKS | Missing.FEW_BEATS | Missing.NO_QRS


def measure_record(signal: np.ndarray, *, sampling_rate_hz: int) -> tuple[np.ndarray, Missing]:
    """Measures one record; odd signals give NaN and a reason, never an error or a warning.

    Slopes depend on the rate at which the signal is stored: below 250 Hz it no longer holds what is steepest in a QRS.

    Args:
        signal: `int16[time, lead]`, µV, leads in stored order, all of it recorded (no padding).
        sampling_rate_hz: Rate of the signal.

    Returns:
        Measurements, `f32[159]` in the order of `NAMES` and the units of `UNITS`, NaN where missing; and why some are
        missing.
    """
    nothing = np.full(len(NAMES), math.nan, np.float32)
    try:
        beats = measure_beats(prepare(signal, sampling_rate_hz=sampling_rate_hz))
    except NoBeatsError as error:
        return nothing, Missing[error.reason.upper()]
    if np.isnan(beats.qrs).all():
        return nothing, Missing.NO_QRS
    per_beat = [getattr(beats, kind)[:NUM_BEATS] for kind in _OF_BEAT]
    slots = [np.pad(values, (0, NUM_BEATS - len(values)), constant_values=math.nan) for values in per_beat]
    statistics = [
        statistic(found) if len(found) else math.nan
        for kind in (*_OF_BEAT, "st")
        for found in (_found(getattr(beats, kind)),)
        for statistic in _STATISTICS.values()
    ]
    of_record = _of_record(beats)
    summary = np.array(statistics + [of_record[name] for name in _OF_RECORD])
    return np.concatenate([*slots, summary]).astype(np.float32), _reasons(beats, summary)


def _of_record(beats: Beats) -> dict[str, float]:
    rr, qrs, qtc, st, t = beats.rr, _found(beats.qrs), _found(beats.qtc), _found(beats.st), _found(beats.t_amplitude)
    steps = np.diff(rr)
    correlation = beats.correlation
    return {
        "rmssd": float(np.sqrt(np.mean(steps**2))),
        "pnn50": _share(np.abs(steps) > 50),
        "rr_cv": float(np.std(rr, ddof=1) / np.mean(rr)),
        "rr_short_share": _share(rr < 0.8 * np.median(rr)),
        "pr_long_share": _share(_found(beats.pr) > 200),
        "qrs_wide_share": _share(qrs >= 120),
        "qrs_borderline_share": _share((qrs >= 100) & (qrs < 120)),
        "qtc_long_share": _share(qtc >= 500),
        # Only beats that were examined count: one cut off by the recording's end says nothing about its P wave.
        "p_absent_share": _share(np.isnan(beats.pr[np.isfinite(beats.qrs)])),
        "t_inverted_share": _share(t < -0.05),
        "st_deviating_share": _share(np.abs(st) >= 0.1),
        "st_mad": float(np.median(np.abs(st - np.median(st)))),
        "beat_correlation_mean": float(np.mean(correlation)) if len(correlation) else math.nan,
        "beat_correlation_sd": float(np.std(correlation, ddof=1)) if len(correlation) > 1 else math.nan,
        "beat_correlation_min": float(np.min(correlation)) if len(correlation) else math.nan,
    }


def _found(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _share(holds: np.ndarray) -> float:
    return float(np.mean(holds)) if len(holds) else math.nan


def _reasons(beats: Beats, summary: np.ndarray) -> Missing:
    # Only the beats with columns of their own count, since nothing is missing from a later one.
    at_edge, qrs, p, t = (each[:NUM_BEATS] for each in (beats.at_edge, beats.qrs, beats.p_duration, beats.t_duration))
    bounded = np.isfinite(qrs)
    reasons = (
        (Missing.FEWER_THAN_TEN, len(beats.rr) < NUM_BEATS),
        (Missing.AT_EDGE, at_edge.any()),
        (Missing.QRS_NOT_FOUND, (~bounded & ~at_edge).any()),
        (Missing.P_NOT_FOUND, np.isnan(p[bounded]).any()),
        (Missing.T_NOT_FOUND, np.isnan(t[bounded]).any()),
        (Missing.FEW_VALUES, np.isnan(summary).any()),
    )
    return functools.reduce(operator.or_, (reason for reason, holds in reasons if holds), Missing(0))
