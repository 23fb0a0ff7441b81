"""Changes waves from beat to beat or in single leads: what the median beat of a recording does not hold, or hides.

Alternation and jitter of the T wave, P waves of unequal size, late P waves in one lead, and a notch in the QRS of one
or two neighbouring leads, which no dipole explains. The numbers are judgement (docs/simulator.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_pipelines.records import STORED_LEADS
from data_pipelines.simulation import kernels as k
from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.rhythm import NORMAL, PVC, Rhythms
from data_pipelines.simulation.states import States
from data_pipelines.simulation.waves import Templates

#: Unit of every label of what changes between beats, in column order. All tell what the strip contains. `rmssd_ms`,
#: `low_variability`, `p_variability` and `late_p_count` are NaN in atrial fibrillation, and `rmssd_ms` and
#: `low_variability` also where no three sinus beats follow each other; `fragmented_lead` is NaN without a notch.
UNITS: Mapping[str, str] = {
    "rmssd_ms": "ms",
    "low_variability": "",
    "qt_jitter_ms": "ms",
    "qt_instability": "",
    "alternans_uv": "uV",
    "alternans": "",
    "pvc_count": "",
    "fragmented_qrs": "",
    "fragmented_lead": "",
    "fragmented_leads": "",
    "p_variability": "1",
    "late_p_count": "",
}

#: Thresholds of labels: RMSSD of the lowest fifth of sinus strips, sd of the T wave's time, size of the alternation.
LOW_RMSSD_MS, UNSTABLE_QT_MS, ALTERNANS_UV = 13.5, 5.0, 15.0

#: Sd of the T wave's time in most patients and in unstable ones.
_T_JITTER_MS, _UNSTABLE_T_JITTER_MS = 1.0, 8.0
_UNSTABLE_CHANCE, _UNSTABLE_OF_DYSFUNCTION, _UNSTABLE_OF_LOW_POTASSIUM = 0.12, 0.10, 0.25
_ALTERNANS_CHANCE, _ALTERNANS_OF_POTASSIUM, _MEDIAN_ALTERNANS_UV = 0.15, 0.75, 35.0
_LARGEST_ALTERNANS = 0.9  # as a share of the T wave
_NOTCH_CHANCE, _NOTCH_OF_DYSFUNCTION = 0.04, 0.12
_NOTCH_MV, _NOTCH_MS, _NOTCH_WIDTH_MS = (0.05, 0.12), (22.0, 42.0), (4.0, 6.0)
_P_SD, _P_SD_LOG_SD, _P_SD_OF_WEDGE, _LARGEST_P_SD = 0.12, 0.4, 0.3, 0.6
#: A late P wave comes in fewer than half of the beats, so that no median beat has it.
_LATE_P_CHANCE, _LATE_P_OF_WEDGE, _LARGEST_LATE_P_CHANCE = 0.08, 0.04, 0.40
_LATE_P_MV, _LATE_P_DELAY_MS, _LATE_P_WIDTH_MS = (0.06, 0.12), 40.0, 13.0

#: Time that a beat needs before and after R for its P and T wave to lie in the strip.
_P_BEFORE_S, _T_AFTER_S = 0.25, 0.45
_CHEST = STORED_LEADS.index("V1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeatChanges:
    """Changes of the beats of `n` records.

    Attributes:
        p_gain: `f64[n, beats]`, factor on the P wave of each beat.
        t_gain: `f64[n, beats]`, factor on the T wave of each beat.
        t_shift_ms: `f64[n, beats]`, time by which repolarisation after the ST segment comes later.
        late_p: `bool[n, beats]`, whether a beat has a late P wave.
        late_p_mv: `f64[n, leads]`, amplitude of the late P wave; 0 in all leads but one.
        conducted: `bool[n, beats]`, whether the ventricles are activated from above, so that a notch shows.
        notch_mv: `f64[n, leads]`, amplitude of the notch, 0 without it and in all leads but one or two.
        notch_ms: `f64[n]`, time of the notch after R.
        notch_width_ms: `f64[n]`, width of the notch.
        alternans_uv: `f64[n]`, size of the alternation of the T wave in the lead where that wave is largest.
    """

    p_gain: np.ndarray
    t_gain: np.ndarray
    t_shift_ms: np.ndarray
    late_p: np.ndarray
    late_p_mv: np.ndarray
    conducted: np.ndarray
    notch_mv: np.ndarray
    notch_ms: np.ndarray
    notch_width_ms: np.ndarray
    alternans_uv: np.ndarray

    def applied(
        self, record: int, beats: np.ndarray, *, centre_ms: np.ndarray, width_ms: np.ndarray, lead_mv: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns centres, widths and amplitudes of changed beats, with two more kernels: late P wave and notch.

        Args:
            record: Position of the record.
            beats: Positions of the beats in the record, `int64[b]`.
            centre_ms: Centres of the unchanged kernels, `f64[b, kernels]`.
            width_ms: Widths of the unchanged kernels, `f64[b, kernels]`.
            lead_mv: Amplitudes of the unchanged kernels, `f64[b, leads, kernels]`.
        """
        notch, late_p = np.ones(len(beats)), centre_ms[:, k.P2] + _LATE_P_DELAY_MS
        centre = np.column_stack([centre_ms, late_p, self.notch_ms[record] * notch])
        width = np.column_stack([width_ms, _LATE_P_WIDTH_MS * notch, self.notch_width_ms[record] * notch])
        centre[:, k.T1 : k.U + 1] += self.t_shift_ms[record, beats, None]
        lead = np.empty((*lead_mv.shape[:2], centre.shape[1]))
        lead[:, :, : len(k.KERNELS)] = lead_mv
        lead[:, :, k.P_WAVE] *= self.p_gain[record, beats, None, None]
        lead[:, :, k.T_WAVE] *= self.t_gain[record, beats, None, None]
        lead[:, :, -2] = self.late_p[record, beats, None] * self.late_p_mv[record]
        lead[:, :, -1] = self.conducted[record, beats, None] * self.notch_mv[record]
        return centre, width, lead

    def scalars(self, states: States, rhythms: Rhythms, *, seconds: float) -> dict[str, np.ndarray]:
        """Returns the labels in `UNITS`, `f64[n]` each, of strips of that length."""
        p_seen = self.conducted & (rhythms.time_s > _P_BEFORE_S) & (rhythms.time_s < seconds)
        t_seen = self.conducted & (rhythms.time_s > 0) & (rhythms.time_s < seconds - _T_AFTER_S)
        rmssd_ms = np.where(states.af, np.nan, rhythms.rmssd_ms())
        qt_jitter_ms = _sd(self.t_shift_ms, t_seen)
        notched = self.notch_mv != 0
        first = np.where(notched.any(axis=1), notched.argmax(axis=1), np.nan)
        return {
            "rmssd_ms": rmssd_ms,
            "low_variability": np.where(np.isnan(rmssd_ms), np.nan, rmssd_ms < LOW_RMSSD_MS),
            "qt_jitter_ms": qt_jitter_ms,
            "qt_instability": qt_jitter_ms > UNSTABLE_QT_MS,
            "alternans_uv": self.alternans_uv,
            "alternans": self.alternans_uv > ALTERNANS_UV,
            "pvc_count": (rhythms.inside & (rhythms.kind == PVC)).sum(axis=1),
            "fragmented_qrs": notched.any(axis=1),
            "fragmented_lead": first,
            "fragmented_leads": notched.sum(axis=1),
            "p_variability": np.where(states.af, np.nan, _sd(self.p_gain, p_seen)),
            "late_p_count": np.where(states.af, np.nan, (self.late_p & p_seen).sum(axis=1)),
        }


def draw_beat_changes(draws: Draws, between: States, rhythms: Rhythms, templates: Templates) -> BeatChanges:
    """Draws the changes of the beats of records.

    Args:
        draws: Random numbers of the records.
        between: States as the changes between beats show them.
        rhythms: Beats of the records.
        templates: Waves of the records' beats.
    """
    conducted = rhythms.kind != PVC
    alternans = _alternans(draws, between, _largest_t_mv(templates))
    first_is_higher = np.where(draws.uniform("alternans phase") < 0.5, 1.0, -1.0)
    sign = np.where(np.arange(conducted.shape[1]) % 2 == 0, 1.0, -1.0) * first_is_higher[:, None]
    late_p, late_p_mv = _late_p(draws, between, conducted.shape)
    notch_mv, notch_ms, notch_width_ms = _notch(draws, between)
    return BeatChanges(
        p_gain=_p_gain(draws, between, conducted.shape),
        t_gain=1 + np.where(conducted, sign * alternans.share[:, None], 0.0),
        t_shift_ms=np.where(conducted, _t_shift_ms(draws, between, conducted.shape), 0.0),
        late_p=late_p & conducted,
        late_p_mv=late_p_mv,
        conducted=conducted,
        notch_mv=notch_mv,
        notch_ms=notch_ms,
        notch_width_ms=notch_width_ms,
        alternans_uv=alternans.microvolts,
    )


@dataclasses.dataclass(frozen=True)
class _Alternans:
    """Alternation of the T waves of `n` records, as a share of the wave and at its largest over the leads."""

    share: np.ndarray
    microvolts: np.ndarray


def _alternans(draws: Draws, between: States, t_mv: np.ndarray) -> _Alternans:
    above_five = np.maximum(between.potassium - 5, 0) * between.potassium_strength
    chance = _ALTERNANS_CHANCE + _ALTERNANS_OF_POTASSIUM * above_five
    # In fibrillation there is no alternation, since no two intervals are alike.
    present = (draws.uniform("alternans") < chance) & ~between.af
    size_mv = _MEDIAN_ALTERNANS_UV / 1000 * np.exp(0.4 * draws.normal("alternans size"))
    share = np.where(present, np.minimum(size_mv / t_mv, _LARGEST_ALTERNANS), 0.0)
    return _Alternans(share, 1000 * share * t_mv)


def _largest_t_mv(templates: Templates) -> np.ndarray:
    """Returns the largest magnitude of the T wave over leads and time, `f64[n]`, mV, at an RR interval of 1 s."""
    centre, width = templates.centre_ms[:, NORMAL, k.T_WAVE], templates.width_ms[:, NORMAL, k.T_WAVE]
    first, last = (centre - width).min(axis=1), (centre + width).max(axis=1)
    time = first[:, None] + (last - first)[:, None] * np.linspace(0, 1, 33)
    one, two = (np.exp(-0.5 * ((time - centre[:, [i]]) / width[:, [i]]) ** 2) for i in range(2))
    lead = templates.lead_mv[:, NORMAL, :, k.T_WAVE]
    # The sum is written out, since a matrix product may round differently by the size of the batch.
    wave = lead[:, :, 0, None] * one[:, None] + lead[:, :, 1, None] * two[:, None]
    return np.abs(wave).max(axis=(1, 2))


def _t_shift_ms(draws: Draws, between: States, shape: tuple[int, ...]) -> np.ndarray:
    hs = between.dysfunction * between.lvef_strength
    low = np.maximum(3.9 - between.potassium, 0) * between.potassium_strength
    chance = _UNSTABLE_CHANCE + _UNSTABLE_OF_DYSFUNCTION * hs + _UNSTABLE_OF_LOW_POTASSIUM * low
    unstable = draws.uniform("unstable QT") < chance
    sd = np.where(unstable, _UNSTABLE_T_JITTER_MS, _T_JITTER_MS) * np.exp(0.15 * draws.normal("QT jitter size"))
    return sd[:, None] * draws.normal("QT jitter", shape[1:])


def _p_gain(draws: Draws, between: States, shape: tuple[int, ...]) -> np.ndarray:
    usual_sd = _P_SD * np.exp(_P_SD_LOG_SD * draws.normal("P variability"))
    sd = np.minimum(usual_sd * np.maximum(1 + _P_SD_OF_WEDGE * _ws(between), 0.5), _LARGEST_P_SD)
    return np.maximum(1 + sd[:, None] * draws.normal("P size", shape[1:]), 0.0)


def _late_p(draws: Draws, between: States, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draws which beats have a late P wave, `bool[n, beats]`, and its amplitude, `f64[n, leads]`, mV."""
    chance = np.clip(_LATE_P_CHANCE + _LATE_P_OF_WEDGE * _ws(between), 0, _LARGEST_LATE_P_CHANCE) * ~between.af
    late = draws.uniform("late P", shape[1:]) < chance[:, None]
    lead = (len(STORED_LEADS) * draws.lasting_uniform("late P lead")).astype(np.int64)
    size = _between(_LATE_P_MV, draws.lasting_uniform("late P size"))
    return late, size[:, None] * (np.arange(len(STORED_LEADS)) == lead[:, None])


def _ws(between: States) -> np.ndarray:
    return np.maximum((between.wedge_pressure - 12) / 10, -0.5) * between.wedge_strength


def _notch(draws: Draws, between: States) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws amplitude (`f64[n, leads]`, mV), time and width (`f64[n]`, ms) of a patient's notch."""
    hs = between.dysfunction * between.lvef_strength
    present = draws.lasting_uniform("notch") < _NOTCH_CHANCE + _NOTCH_OF_DYSFUNCTION * hs
    size = _between(_NOTCH_MV, draws.lasting_uniform("notch size"))
    sign = np.where(draws.lasting_uniform("notch sign") < 0.5, -1.0, 1.0)
    first = (len(STORED_LEADS) * draws.lasting_uniform("notch lead")).astype(np.int64)
    lead = np.arange(len(STORED_LEADS))
    # Lead II and V1 look from different sides, so neither they nor V6 and nothing are neighbours.
    has_next = (first != _CHEST - 1) & (draws.lasting_uniform("notch leads") < 0.5)
    where = (lead == first[:, None]) | (has_next[:, None] & (lead == first[:, None] + 1))
    notch_mv = (present * sign * size)[:, None] * where
    time = _between(_NOTCH_MS, draws.lasting_uniform("notch time"))
    return notch_mv, time, _between(_NOTCH_WIDTH_MS, draws.lasting_uniform("notch width"))


def _between(bounds: tuple[float, float], uniform: np.ndarray) -> np.ndarray:
    low, high = bounds
    return low + (high - low) * uniform


def _sd(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Returns the standard deviation of each row's counted values, `f64[n]`; NaN where there are fewer than two."""
    count = counted.sum(axis=1)
    enough = count > 1
    mean = np.where(counted, values, 0).sum(axis=1) / np.maximum(count, 1)
    squares = np.where(counted, (values - mean[:, None]) ** 2, 0).sum(axis=1)
    return np.where(enough, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)
