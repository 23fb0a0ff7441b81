"""Intervals and amplitudes of stored ECGs: NeuroKit2 finds the R peaks, the median beat of all leads gives the rest.

What cannot be measured is NaN, with a reason that is counted: a zero would be a measurement.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np
from scipy import signal as scipy_signal
from tqdm import tqdm

from data_pipelines.delineation import find_boundaries
from data_pipelines.errors import DataError
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS
from data_pipelines.workers import map_ordered

#: Everything is measured at this rate, whatever the stored one: boundaries then fall on a 2 ms grid.
ANALYSIS_RATE_HZ = 500

#: Fewer R peaks than these give neither a rhythm nor a median beat.
_MIN_BEATS = 4

#: Window of the median beat about R, and the windows in it that waves are read in, seconds. The QRS window holds a
#: bundle branch block, the T window ends at this share of RR, before the next P wave.
_BEAT_WINDOW_S = (-0.35, 0.60)
_P_WINDOW_S = (-0.28, -0.08)
_QRS_WINDOW_S = (-0.09, 0.11)
_T_START_S, _T_END_RR = 0.14, 0.65
_ST_AT_S = 0.10

#: Records a worker measures at a time: large enough to hide the transfer, small enough for a smooth progress bar.
_BLOCK = 16

#: A new process takes as long to import NeuroKit as this many records take to measure.
_RECORDS_WORTH_A_PROCESS = 300

_INTERVALS = {"pr": "ms", "qrs": "ms", "qt": "ms", "qtc_bazett": "ms", "p_duration": "ms", "t_peak": "ms"}
_RATES = {"rr": "ms", "sdnn": "ms", "rmssd": "ms", "pnn50": "1", "rr_range": "1"}
_WAVES = ("P", "R", "S", "ST", "T")

#: Unit of every measurement, in column order.
UNITS: Mapping[str, str] = {
    **_RATES,
    **_INTERVALS,
    "qrs_axis": "degree",
    **{f"{wave}_{lead}": "mV" for wave in _WAVES for lead in STORED_LEADS},
}

NAMES: tuple[str, ...] = tuple(UNITS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
    """Measurements of `n` records.

    Attributes:
        names: column names, such as `"pr"` or `"T_V5"`.
        units: unit of each column.
        values: `f32[n, columns]`, NaN where it could not be measured.
        failures: number of records by reason: `flat_lead` (lead II does not vary), `few_beats` (fewer than four R
            peaks, or whole beats), `no_r_peaks:<error>` (NeuroKit raised it), all of which leave every column NaN; and
            `no_<interval>` (its boundaries were not found). A record is counted under every reason that holds for it.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: np.ndarray
    failures: Mapping[str, int]


def measure(
    signals: np.ndarray,
    *,
    sampling_rate_hz: int,
    processes: int | None = None,
    progress: bool = True,
) -> Measurements:
    """Measures every record; odd signals give NaN and a counted reason, never an error.

    Intervals and amplitudes are those of the median over all beats of a record.

    Args:
        signals: `int16[n, time, lead]`, µV, leads I II V1…V6.
        sampling_rate_hz: of the signals.
        processes: worker processes, 1 measures in this one; by default as many cores as pay off. Workers are spawned,
            so a script that calls this needs the usual `if __name__ == "__main__"`.
        progress: whether to draw a progress bar on a terminal.

    Raises:
        DataError: if the array is not of the stored form.
    """
    if signals.ndim != 3 or signals.shape[2] != len(STORED_LEADS) or signals.dtype != np.int16:
        raise DataError(f"measure takes int16[n, time, {len(STORED_LEADS)}], got {signals.dtype}{signals.shape}")
    work = functools.partial(_measure_quietly, sampling_rate_hz=sampling_rate_hz)
    if processes is None:
        processes = max(1, min(os.cpu_count() or 1, len(signals) // _RECORDS_WORTH_A_PROCESS))
    values = np.full((len(signals), len(NAMES)), math.nan, np.float32)
    failures: Counter = Counter()
    results = map_ordered(work, signals, num_workers=processes, chunk_size=_BLOCK)
    bar = tqdm(
        results, total=len(signals), desc="intervals and amplitudes", unit="ECG", disable=None if progress else True
    )
    for row, (measured, reasons) in zip(values, bar, strict=True):
        row[:] = [measured.get(name, math.nan) for name in NAMES]
        failures.update(reasons)
    return Measurements(
        names=NAMES, units=tuple(UNITS.values()), values=values, failures=dict(sorted(failures.items()))
    )


def _measure_quietly(signal: np.ndarray, *, sampling_rate_hz: int) -> tuple[dict[str, float], tuple[str, ...]]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # NeuroKit warns through pandas, SciPy and NumPy about every noisy record; what follows from it is counted.
        warnings.simplefilter("ignore")
        return measure_record(signal, sampling_rate_hz=sampling_rate_hz)


def measure_record(signal: np.ndarray, *, sampling_rate_hz: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Measures one record.

    Args:
        signal: `int16[time, lead]`, µV.
        sampling_rate_hz: of the signal.

    Returns:
        The measurements that could be made, by name, in the units of `UNITS`; and the reasons for those that could not.
    """
    # NeuroKit takes seconds to import, which readers of this module's names should not pay.
    import neurokit2

    if np.ptp(signal[:, STORED_LEADS.index("II")]) == 0:
        return {}, ("flat_lead",)
    ecg = _at_analysis_rate(signal, sampling_rate_hz)
    try:
        cleaned = neurokit2.ecg_clean(ecg[:, STORED_LEADS.index("II")], sampling_rate=ANALYSIS_RATE_HZ)
        _, found = neurokit2.ecg_peaks(cleaned, sampling_rate=ANALYSIS_RATE_HZ)
    except Exception as error:
        # Whatever NeuroKit trips over in noise (it raises IndexError, ValueError, KeyError …) is this record's reason.
        return {}, (f"no_r_peaks:{type(error).__name__}",)
    r_peaks = np.asarray(found["ECG_R_Peaks"], np.int64)
    offsets = np.arange(*(round(edge * ANALYSIS_RATE_HZ) for edge in _BEAT_WINDOW_S))
    whole = r_peaks[(r_peaks + offsets[0] >= 0) & (r_peaks + offsets[-1] < len(ecg))]
    if len(r_peaks) < _MIN_BEATS or len(whole) < _MIN_BEATS - 2:
        return {}, ("few_beats",)
    beat = np.median(ecg[whole[:, None] + offsets], axis=0)
    rr_s = float(np.median(np.diff(r_peaks))) / ANALYSIS_RATE_HZ
    intervals = _intervals(beat, rr_s=rr_s)
    measured = {**_rates(r_peaks), **intervals, **_amplitudes(beat - np.median(ecg, axis=0), rr_s=rr_s)}
    return measured, tuple(f"no_{name}" for name, value in intervals.items() if math.isnan(value))


def _intervals(beat: np.ndarray, *, rr_s: float) -> dict[str, float]:
    """Returns the intervals of a median beat, ms, NaN where a boundary was not found."""
    at = find_boundaries(beat, before_s=-_BEAT_WINDOW_S[0], rate_hz=ANALYSIS_RATE_HZ, rr_s=rr_s)
    qt = at.t_offset - at.qrs_onset
    return {
        "pr": at.qrs_onset - at.p_onset,
        "qrs": at.qrs_offset - at.qrs_onset,
        "qt": qt,
        "qtc_bazett": qt / math.sqrt(rr_s),
        "p_duration": at.p_offset - at.p_onset,
        "t_peak": at.t_peak,
    }


def _at_analysis_rate(signal: np.ndarray, sampling_rate_hz: int) -> np.ndarray:
    """Returns `f64[time, lead]`, mV, at `ANALYSIS_RATE_HZ` and without wander below 0.5 Hz."""
    ecg = signal.astype(np.float64) / MICROVOLTS_PER_MILLIVOLT
    ecg -= np.median(ecg, axis=0)
    if sampling_rate_hz != ANALYSIS_RATE_HZ:
        common = math.gcd(ANALYSIS_RATE_HZ, sampling_rate_hz)
        ecg = scipy_signal.resample_poly(ecg, ANALYSIS_RATE_HZ // common, sampling_rate_hz // common, axis=0)
    return scipy_signal.sosfiltfilt(_WANDER_FILTER, ecg, axis=0)


_WANDER_FILTER = scipy_signal.butter(2, 0.5, "highpass", fs=ANALYSIS_RATE_HZ, output="sos")


def _rates(r_peaks: np.ndarray) -> dict[str, float]:
    """Returns the median RR interval and its variability, over all beats."""
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
    seconds = np.arange(len(beat)) / ANALYSIS_RATE_HZ + _BEAT_WINDOW_S[0]
    t_end = min(max(_T_END_RR * rr_s, _T_START_S + 0.05), _BEAT_WINDOW_S[1])

    def window(start: float, stop: float) -> np.ndarray:
        return beat[(seconds >= start) & (seconds < stop)]

    qrs = window(*_QRS_WINDOW_S)
    by_wave = {
        "P": _signed_extreme(window(*_P_WINDOW_S)),
        "R": qrs.max(axis=0),
        "S": qrs.min(axis=0),
        "ST": window(_ST_AT_S, _ST_AT_S + 0.01).mean(axis=0),
        "T": _signed_extreme(window(_T_START_S, t_end)),
    }
    area = qrs.mean(axis=0)
    lead_i, lead_ii = area[STORED_LEADS.index("I")], area[STORED_LEADS.index("II")]
    # Limb leads differ in gain: aVF = II − I/2 sees the frontal plane 2/√3 times weaker than lead I does.
    axis = math.degrees(math.atan2((lead_ii - lead_i / 2) * 2 / math.sqrt(3), lead_i))
    measured = {
        f"{wave}_{lead}": float(value)
        for wave, values in by_wave.items()
        for lead, value in zip(STORED_LEADS, values, strict=True)
    }
    return {**measured, "qrs_axis": axis}


def _signed_extreme(window: np.ndarray) -> np.ndarray:
    """Returns the value of largest magnitude in each column of `[time, lead]`, with its sign."""
    return np.take_along_axis(window, np.abs(window).argmax(axis=0)[None], axis=0)[0]
