"""Measures intervals and amplitudes of stored ECGs on the median beat of all leads: a table to compare data sets with.

The vector that is stored with a data set is measured beat by beat and differs (`vector.py`).

What cannot be measured is NaN, with a reason that is counted, since a zero would be a measurement.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections import Counter
from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from data_pipelines.errors import DataError
from data_pipelines.physiology.beats import (
    ANALYSIS_RATE_HZ,
    BEAT_WINDOW_S,
    NoBeatsError,
    Strip,
    prepare,
    signed_extreme,
)
from data_pipelines.records import STORED_LEADS
from data_pipelines.system.workers import map_ordered

#: Windows in the median beat in which waves are read, seconds from R. The QRS window is wide enough for a bundle branch
#: block; the T window ends at this share of RR, before the next P wave.
_P_WINDOW_S = (-0.28, -0.08)
_QRS_WINDOW_S = (-0.09, 0.11)
_T_START_S, _T_END_RR = 0.14, 0.65
_ST_AT_S = 0.10

#: Number of records that a worker measures at a time: large enough to hide the transfer, small enough for a smooth
#: progress bar.
_BLOCK = 16

#: Number of records whose measurement takes as long as a new process takes to import NeuroKit.
_RECORDS_WORTH_A_PROCESS = 300

_INTERVALS = {"pr": "ms", "qrs": "ms", "qt": "ms", "qtc_bazett": "ms", "p_duration": "ms", "t_peak": "ms"}
_RATES = {"rr": "ms", "sdnn": "ms", "rmssd": "ms", "pnn50": "1", "rr_range": "1"}
#: Rate of the median beats that are returned; their comparison needs no more detail.
MEDIAN_BEAT_RATE_HZ = 100
_MEAN_OF = ANALYSIS_RATE_HZ // MEDIAN_BEAT_RATE_HZ
#: Number of samples of a median beat.
BEAT_SAMPLES = round((BEAT_WINDOW_S[1] - BEAT_WINDOW_S[0]) * MEDIAN_BEAT_RATE_HZ)

_WAVES = ("P", "R", "S", "ST", "T")

#: Unit of every measurement, in column order.
UNITS: Mapping[str, str] = {
    **_RATES,
    **_INTERVALS,
    "qrs_axis": "degree",
    **{f"{wave}_{lead}": "mV" for wave in _WAVES for lead in STORED_LEADS},
}

NAMES: tuple[str, ...] = tuple(UNITS)

#: Reasons why an interval of a record that has beats is missing.
REASONS_OF_INTERVALS: tuple[str, ...] = tuple(f"no_{name}" for name in _INTERVALS)

#: Version of the measurements, to be raised when they change: stored measurements are then made again.
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
    """Measurements of `n` records.

    Attributes:
        names: Names of the columns, such as `"pr"` or `"T_V5"`.
        units: Unit of each column.
        values: Measurements, `f32[n, columns]`, NaN where one could not be made.
        median_beats: `f32[n, 95, lead]`, mV, the median beat over `beats.BEAT_WINDOW_S` about R at 100 Hz; NaN where
            there is none.
        failures: Number of records by reason: those of `beats.NoBeatsError`, which leave every column NaN; and
            `no_<interval>` (its boundaries were not found). A record is counted under every reason that holds for it.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: np.ndarray
    median_beats: np.ndarray
    failures: Mapping[str, int]


def measure(
    signals: np.ndarray, *, sampling_rate_hz: int, processes: int | None = None, progress: bool = True
) -> Measurements:
    """Measures every record; odd signals give NaN and a counted reason, never an error.

    Intervals and amplitudes are those of the median over all beats of a record.

    Args:
        signals: `int16[n, time, lead]`, µV, leads I II V1…V6.
        sampling_rate_hz: Rate of the signals.
        processes: Number of worker processes, where 1 measures in this one; None for as many cores as pay off. Workers
            are spawned, so a script that calls this needs the usual `if __name__ == "__main__"`.
        progress: Whether a progress bar is drawn on a terminal.

    Raises:
        DataError: The array is not of the stored form.
    """
    if signals.ndim != 3 or signals.shape[2] != len(STORED_LEADS) or signals.dtype != np.int16:
        raise DataError(f"measure takes int16[n, time, {len(STORED_LEADS)}], got {signals.dtype}{signals.shape}")
    work = functools.partial(measure_record, sampling_rate_hz=sampling_rate_hz)
    if processes is None:
        processes = max(1, min(os.cpu_count() or 1, len(signals) // _RECORDS_WORTH_A_PROCESS))
    values = np.full((len(signals), len(NAMES)), math.nan, np.float32)
    beats = np.full((len(signals), BEAT_SAMPLES, len(STORED_LEADS)), math.nan, np.float32)
    failures: Counter = Counter()
    results = map_ordered(work, signals, num_workers=processes, chunk_size=_BLOCK)
    bar = tqdm(
        results,
        total=len(signals),
        desc="intervals and amplitudes",
        unit="ECG",
        dynamic_ncols=True,
        disable=None if progress else True,
    )
    for row, beat, (measured, median_beat, reasons) in zip(values, beats, bar, strict=True):
        row[:] = [measured.get(name, math.nan) for name in NAMES]
        if median_beat is not None:
            beat[:] = median_beat
        failures.update(reasons)
    counts, units = dict(sorted(failures.items())), tuple(UNITS.values())
    return Measurements(names=NAMES, units=units, values=values, median_beats=beats, failures=counts)


def measure_record(
    signal: np.ndarray, *, sampling_rate_hz: int
) -> tuple[dict[str, float], np.ndarray | None, tuple[str, ...]]:
    """Measures one record.

    Args:
        signal: `int16[time, lead]`, µV.
        sampling_rate_hz: Rate of the signal.

    Returns:
        The measurements that could be made, by name, in the units of `UNITS`; the median beat, `f32[95, lead]`, mV, or
        None; and the reasons for what could not be measured, as in `Measurements.failures`.
    """
    try:
        strip = prepare(signal, sampling_rate_hz=sampling_rate_hz)
    except NoBeatsError as error:
        return {}, None, (error.reason,)
    at = strip.median_boundaries()
    intervals = at.intervals()
    intervals |= {"qtc_bazett": intervals["qt"] / math.sqrt(strip.median_rr_s), "t_peak": at.t_peak}
    beat = strip.median_beat - np.median(strip.ecg, axis=0)
    measured = {**_rates(strip.r_peaks), **intervals, **_amplitudes(beat, rr_s=strip.median_rr_s)}
    reasons = tuple(f"no_{name}" for name, value in intervals.items() if math.isnan(value))
    return measured, shown_beat(strip), reasons


def shown_beat(strip: Strip) -> np.ndarray:
    """Returns the median beat of a record at `MEDIAN_BEAT_RATE_HZ`, `f32[95, lead]`, in mV.

    Args:
        strip: Record with its beats.
    """
    mean = strip.median_beat[: BEAT_SAMPLES * _MEAN_OF].reshape(BEAT_SAMPLES, _MEAN_OF, -1).mean(axis=1)
    return mean.astype(np.float32)


def _rates(r_peaks: np.ndarray) -> dict[str, float]:
    """Returns the median RR interval and its variability over all beats, by name, in the units of `UNITS`.

    Args:
        r_peaks: Samples of the R peaks, `int64[peaks]`.
    """
    rr = np.diff(r_peaks) * (1000 / ANALYSIS_RATE_HZ)
    steps = np.diff(rr)
    return {
        "rr": float(np.median(rr)),
        "sdnn": float(np.std(rr, ddof=1)),
        "rmssd": float(np.sqrt(np.mean(steps**2))),
        "pnn50": float(np.mean(np.abs(steps) > 50)),
        "rr_range": float(np.ptp(rr) / np.median(rr)),
    }


def _amplitudes(beat: np.ndarray, *, rr_s: float) -> dict[str, float]:
    """Returns signed amplitudes of a median beat in each lead, mV from the lead's median level, and the QRS axis.

    P and T take the value of largest magnitude with its sign, so that inverted waves are negative; R is the highest
    and S the lowest value of the QRS, which makes a Q wave count as S where it is the deeper one.
    """
    seconds = np.arange(len(beat)) / ANALYSIS_RATE_HZ + BEAT_WINDOW_S[0]
    t_end = min(max(_T_END_RR * rr_s, _T_START_S + 0.05), BEAT_WINDOW_S[1])

    def window(start: float, stop: float) -> np.ndarray:
        return beat[(seconds >= start) & (seconds < stop)]

    qrs = window(*_QRS_WINDOW_S)
    by_wave = {
        "P": signed_extreme(window(*_P_WINDOW_S)),
        "R": qrs.max(axis=0),
        "S": qrs.min(axis=0),
        "ST": window(_ST_AT_S, _ST_AT_S + 0.01).mean(axis=0),
        "T": signed_extreme(window(_T_START_S, t_end)),
    }
    area = qrs.mean(axis=0)
    lead_i, lead_ii = area[STORED_LEADS.index("I")], area[STORED_LEADS.index("II")]
    # Limb leads differ in gain: aVF = II − I/2 measures the frontal plane 2/√3 times weaker than lead I does.
    axis = math.degrees(math.atan2((lead_ii - lead_i / 2) * 2 / math.sqrt(3), lead_i))
    measured = {
        f"{wave}_{lead}": float(value)
        for wave, values in by_wave.items()
        for lead, value in zip(STORED_LEADS, values, strict=True)
    }
    return {**measured, "qrs_axis": axis}
