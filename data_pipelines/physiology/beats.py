"""Beats of a recording: R peaks by NeuroKit2, and every beat's intervals, amplitudes and slopes.

R peaks are those of cleaned lead II. Boundaries are found in each single beat over all leads (`delineation.py`, which
gives the figures of the choice); amplitudes, slopes and ST are those of lead II. A wave belongs to a beat by its time
from that beat's R peak.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import warnings

import numpy as np
import scipy  # Its parts are imported where they are first asked for: that of signals takes a second.

from data_pipelines.physiology.delineation import T_END_RR, Boundaries, find_boundaries, smoothed
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS

#: Rate at which everything is measured, whatever the stored one; boundaries then fall on a 2 ms grid.
ANALYSIS_RATE_HZ = 500

#: Window of a beat about R, seconds.
BEAT_WINDOW_S = (-0.35, 0.60)

#: Smallest number of R peaks for a rhythm, and of beats wholly in the recording for a median beat.
MIN_R_PEAKS, _MIN_WHOLE_BEATS = 4, 2

_MIN_SECONDS = 1.0
_LEAD_II = STORED_LEADS.index("II")

#: Largest distance of the beginning of a beat's P wave from that of the median beat, ms. Single beats have waves in
#: atrial fibrillation too, whereas the median beat has none. With this rule the share of beats without P separates
#: fibrillation from sinus rhythm by AUROC .92 in simulated and .92 in PTB-XL records, without it by .49 and .63; it
#: costs 9 % and 4 % of the P waves of sinus rhythm. At 20 ms: .92 and .95, and 13 % and 7 %.
_P_FROM_MEDIAN_MS = 40.0

#: Largest distance of the end of a beat's T wave from that of the median beat, ms: further off it is wander or noise
#: that exceeds a flat T wave. On noisy simulated records the 90th percentile of the error of QT falls from 64 to 17 ms;
#: 5 % of the T waves found in PTB-XL are lost, and those of ventricular ectopic beats, of which few are bounded at all.
_T_FROM_MEDIAN_MS = 150.0

#: Length of the stretch before the QRS whose level amplitudes are measured from; time of ST after the J point, and
#: length of the stretch that it is averaged over.
_LEVEL_S = 0.016
_ST_AFTER_J_S, _ST_WIDTH_S = 0.060, 0.010

#: Window about R in which neighbouring beats are correlated, seconds.
_CORRELATION_WINDOW_S = (-0.25, 0.40)


class NoBeatsError(Exception):
    """Error for a recording in which no beats can be measured.

    Attributes:
        reason: Slug of the reason: `flat_lead` (lead II does not vary), `no_r_peaks` (NeuroKit2 failed on it) or
            `few_beats` (shorter than a second, fewer than four R peaks, or fewer than two beats wholly in the
            recording).
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strip:
    """A recording prepared for measurement.

    Attributes:
        ecg: `f64[time, lead]`, mV, at `ANALYSIS_RATE_HZ`, without wander below 0.5 Hz.
        r_peaks: `int64[peaks]`, samples of the R peaks, at least four.
        median_beat: `f64[time, lead]`, mV, median of the beats that lie wholly in the recording, over `BEAT_WINDOW_S`.
    """

    ecg: np.ndarray
    r_peaks: np.ndarray
    median_beat: np.ndarray

    @property
    def median_rr_s(self) -> float:
        """Median RR interval, seconds."""
        return float(np.median(np.diff(self.r_peaks))) / ANALYSIS_RATE_HZ

    def median_boundaries(self) -> Boundaries:
        """Returns the boundaries of the median beat."""
        return _boundaries(smoothed(self.median_beat, rate_hz=ANALYSIS_RATE_HZ), self.median_rr_s, self.median_rr_s)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beats:
    """Measurements of every beat of a recording except that of the first R peak, which the recording may cut off.

    All are `f64[beats]`, NaN where a beat could not be measured, unless said otherwise.

    Attributes:
        rr: Interval since the R peak before it, ms; never NaN.
        pr: Interval from P onset to QRS onset, ms.
        qrs: Duration of the QRS, ms.
        qt: Interval from QRS onset to T offset, ms.
        qtc: QT over the square root of RR in seconds (Bazett 1920), ms.
        p_duration: Duration of the P wave, ms.
        t_duration: Duration of the T wave, ms.
        r_amplitude: Signed value of largest magnitude of the QRS in lead II, mV from the level before the QRS.
        t_amplitude: Signed value of largest magnitude from T onset to T offset, in the same lead and unit.
        p_amplitude: Signed value of largest magnitude from P onset to P offset, in the same lead and unit.
        qrs_slope: Largest rate of change in the QRS in lead II, mV/s, without sign.
        st: Level 60 ms after the end of the QRS in lead II, mV from the level before the QRS.
        at_edge: `bool[beats]`, whether the recording ends before the beat does, so that only its RR was measured.
        correlation: `f64[pairs]`, correlation of neighbouring beats in lead II (of all R peaks, where both beats lie in
            the recording from 0.25 s before to 0.40 s after R).
    """

    rr: np.ndarray
    pr: np.ndarray
    qrs: np.ndarray
    qt: np.ndarray
    qtc: np.ndarray
    p_duration: np.ndarray
    t_duration: np.ndarray
    r_amplitude: np.ndarray
    t_amplitude: np.ndarray
    p_amplitude: np.ndarray
    qrs_slope: np.ndarray
    st: np.ndarray
    at_edge: np.ndarray
    correlation: np.ndarray


def prepare(signal: np.ndarray, *, sampling_rate_hz: int) -> Strip:
    """Finds the R peaks and the median beat of a recording.

    Args:
        signal: `int16[time, lead]`, µV, leads in stored order, all of it recorded (no padding).
        sampling_rate_hz: Rate of the signal.

    Raises:
        NoBeatsError: There are no beats to measure.
    """
    if not len(signal) or np.ptp(signal[:, _LEAD_II]) == 0:
        raise NoBeatsError("flat_lead")
    if len(signal) < _MIN_SECONDS * sampling_rate_hz:
        raise NoBeatsError("few_beats")
    ecg = _at_analysis_rate(signal, sampling_rate_hz)
    r_peaks = _r_peaks(ecg[:, _LEAD_II])
    offsets = np.arange(*(round(edge * ANALYSIS_RATE_HZ) for edge in BEAT_WINDOW_S))
    whole = r_peaks[(r_peaks + offsets[0] >= 0) & (r_peaks + offsets[-1] < len(ecg))]
    if len(r_peaks) < MIN_R_PEAKS or len(whole) < _MIN_WHOLE_BEATS:
        raise NoBeatsError("few_beats")
    return Strip(ecg=ecg, r_peaks=r_peaks, median_beat=np.median(ecg[whole[:, None] + offsets], axis=0))


def measure_beats(strip: Strip) -> Beats:
    """Measures every beat of a recording from its second R peak on."""
    of_median = strip.median_boundaries()
    raw = _without_drift(strip.ecg, strip.r_peaks, qrs_onset_ms=of_median.qrs_onset)
    smooth = smoothed(raw, rate_hz=ANALYSIS_RATE_HZ)
    rr = np.diff(strip.r_peaks) / ANALYSIS_RATE_HZ
    rr_after = np.append(rr[1:], np.median(rr))
    names = [field.name for field in dataclasses.fields(Beats) if field.name not in ("rr", "at_edge", "correlation")]
    columns = {name: np.full(len(rr), math.nan) for name in names}
    at_edge = np.zeros(len(rr), bool)
    for beat, (r_peak, before, after) in enumerate(zip(strip.r_peaks[1:], rr, rr_after, strict=True)):
        start = int(r_peak) + round(BEAT_WINDOW_S[0] * ANALYSIS_RATE_HZ)
        stop = int(r_peak) + round(min(BEAT_WINDOW_S[1], T_END_RR * after) * ANALYSIS_RATE_HZ)
        if start < 0 or stop > len(smooth):
            at_edge[beat] = True
            continue
        at = _boundaries(smooth[start:stop], before, after)
        # The comparison is written so that no beat has a P wave where the median beat has none, whose onset is NaN.
        if not abs(at.p_onset - of_median.p_onset) <= _P_FROM_MEDIAN_MS:
            at = dataclasses.replace(at, p_onset=math.nan, p_offset=math.nan)
        # Here a beat keeps its T wave where the median beat has none to compare with.
        if abs(at.t_offset - of_median.t_offset) > _T_FROM_MEDIAN_MS:
            at = dataclasses.replace(at, t_onset=math.nan, t_peak=math.nan, t_offset=math.nan)
        intervals = at.intervals()
        intervals |= {"qtc": intervals["qt"] / math.sqrt(before), "t_duration": at.t_offset - at.t_onset}
        of_lead_ii = _lead_ii(raw[:, _LEAD_II], smooth[:, _LEAD_II], r_peak=int(r_peak), at=at)
        for name, value in (intervals | of_lead_ii).items():
            columns[name][beat] = value
    correlation = _correlation(smooth[:, _LEAD_II], strip.r_peaks)
    return Beats(rr=rr * 1000, at_edge=at_edge, correlation=correlation, **columns)


def _boundaries(beat: np.ndarray, rr_before_s: float, rr_after_s: float) -> Boundaries:
    before_s, rate_hz = -BEAT_WINDOW_S[0], ANALYSIS_RATE_HZ
    return find_boundaries(beat, before_s=before_s, rate_hz=rate_hz, rr_before_s=rr_before_s, rr_after_s=rr_after_s)


def _without_drift(ecg: np.ndarray, r_peaks: np.ndarray, *, qrs_onset_ms: float) -> np.ndarray:
    """Returns the recording minus lines from each beat's level before the QRS to the next beat's.

    Wander that the median beat averages out exceeds a flat T wave in a single beat.

    Args:
        ecg: Recording, `[time, lead]`, in mV, at `ANALYSIS_RATE_HZ`.
        r_peaks: Samples of the R peaks, `int64[beats]`.
        qrs_onset_ms: Time from the R peak to the onset of the QRS complex, below 0; NaN leaves the recording as it is.
    """
    if math.isnan(qrs_onset_ms):
        return ecg
    width = round(_LEVEL_S * ANALYSIS_RATE_HZ)
    start = r_peaks + round(qrs_onset_ms * ANALYSIS_RATE_HZ / 1000) - width
    start = start[start >= 0]
    levels = np.median(ecg[start[:, None] + np.arange(width)], axis=1)
    time = np.arange(len(ecg))
    drift = [np.interp(time, start + width / 2, level) for level in levels.T]
    return ecg - np.stack(drift, axis=1)


def _lead_ii(raw: np.ndarray, smooth: np.ndarray, *, r_peak: int, at: Boundaries) -> dict[str, float]:
    """Returns amplitudes (mV), slope (mV/s) and ST (mV) of a beat by their names in `Beats`; empty if there is no QRS.

    Args:
        raw: Lead II without drift, `f64[time]`, mV.
        smooth: The same lead, smoothed.
        r_peak: Sample of the beat's R peak.
        at: Boundaries of the beat.
    """
    if math.isnan(at.qrs_onset):
        return {}

    def sample(milliseconds: float) -> int:
        return min(max(r_peak + round(milliseconds * ANALYSIS_RATE_HZ / 1000), 0), len(raw) - 1)

    onset, offset = sample(at.qrs_onset), sample(at.qrs_offset)
    level = float(np.median(raw[max(onset - round(_LEVEL_S * ANALYSIS_RATE_HZ), 0) : onset]))
    st = sample(at.qrs_offset + 1000 * _ST_AFTER_J_S)
    half = round(_ST_WIDTH_S * ANALYSIS_RATE_HZ) // 2
    qrs = raw[onset : offset + 1]
    found = {
        "r_amplitude": float(signed_extreme(qrs - level)),
        # Smoothing would take a third of the slope; central differences remove the grain of single samples.
        "qrs_slope": float(np.abs(np.gradient(qrs)).max()) * ANALYSIS_RATE_HZ,
        "st": float(raw[st - half : st + half + 1].mean()) - level,
    }
    for name, first, last in (("p", at.p_onset, at.p_offset), ("t", at.t_onset, at.t_offset)):
        if not math.isnan(last - first):
            # P and T are slow, so they are smoothed lest noise choose the extreme.
            found[f"{name}_amplitude"] = float(signed_extreme(smooth[sample(first) : sample(last) + 1] - level))
    return found


def signed_extreme(values: np.ndarray) -> np.ndarray:
    """Returns the value of largest magnitude along the first axis, with its sign."""
    return np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)[0]


def _correlation(lead: np.ndarray, r_peaks: np.ndarray) -> np.ndarray:
    first, last = (round(edge * ANALYSIS_RATE_HZ) for edge in _CORRELATION_WINDOW_S)
    found = []
    for one, other in itertools.pairwise(r_peaks.tolist()):
        if one + first < 0 or other + last > len(lead):
            continue
        pair = np.stack([lead[peak + first : peak + last] for peak in (one, other)])
        pair -= pair.mean(axis=1, keepdims=True)
        if (size := np.linalg.norm(pair, axis=1).prod()) > 0:
            found.append(float(pair[0] @ pair[1] / size))
    return np.array(found)


def _r_peaks(lead: np.ndarray) -> np.ndarray:
    # NeuroKit takes seconds to import, which other users of this module should not wait for.
    import neurokit2

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # NeuroKit warns through pandas, SciPy and NumPy about every noisy record; the consequences are counted.
        warnings.simplefilter("ignore")
        try:
            cleaned = neurokit2.ecg_clean(lead, sampling_rate=ANALYSIS_RATE_HZ)
            _, found = neurokit2.ecg_peaks(cleaned, sampling_rate=ANALYSIS_RATE_HZ)
        except Exception as error:
            # NeuroKit fails in many ways on noise (it raises IndexError, ValueError, KeyError …).
            raise NoBeatsError("no_r_peaks") from error
    return np.asarray(found["ECG_R_Peaks"], np.int64)


def _at_analysis_rate(signal: np.ndarray, sampling_rate_hz: int) -> np.ndarray:
    """Returns `f64[time, lead]`, mV, at `ANALYSIS_RATE_HZ` and without wander below 0.5 Hz."""
    ecg = signal.astype(np.float64) / MICROVOLTS_PER_MILLIVOLT
    ecg -= np.median(ecg, axis=0)
    if sampling_rate_hz != ANALYSIS_RATE_HZ:
        common = math.gcd(ANALYSIS_RATE_HZ, sampling_rate_hz)
        ecg = scipy.signal.resample_poly(ecg, ANALYSIS_RATE_HZ // common, sampling_rate_hz // common, axis=0)
    return scipy.signal.sosfiltfilt(_wander_filter(), ecg, axis=0)


@functools.cache
def _wander_filter() -> np.ndarray:
    return scipy.signal.butter(2, 0.5, "highpass", fs=ANALYSIS_RATE_HZ, output="sos")
