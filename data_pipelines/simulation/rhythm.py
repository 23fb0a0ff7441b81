"""Draws the time and the kind (normal, PAC or PVC) of every beat of a recording."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.states import States
from data_pipelines.simulation.variability import draw_burden, draw_rr_variability

#: Kinds of beats; a kind indexes the beat templates of `waves.py`.
NORMAL, PAC, PVC = 0, 1, 2

_SHORTEST_RR_S = 0.30
_PVC_COUPLING, _PAC_COUPLING = 0.62, 0.72
#: Probability p of a beat to be a candidate; p(1 − p) = 12 % of beats are then premature.
_ECTOPIC_CHANCE = 0.14
#: Frequency of the blood pressure's own oscillation (Mayer waves), which acts beside breathing.
_SLOW_ARRHYTHMIA_HZ = 0.1
#: Distance of an R peak from the ends of the strip from which its beat counts, since a label must be visible.
_MARGIN_S = 0.06
_BEFORE_S = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rhythms:
    """Beats of `n` records; the first lies before the recording starts and the last after its end.

    Attributes:
        time_s: `f64[n, beats]`, times of the R peaks, 0 at the first sample.
        kind: `int8[n, beats]`, kind of each beat: `NORMAL`, `PAC` or `PVC`.
        qt_rr_s: `f64[n, beats]`, RR interval in seconds that determines a beat's QT.
        gain: `f64[n, beats]`, factor by which breathing scales a beat.
        inside: `bool[n, beats]`, whether the R peak lies in the strip.
        mean_rr_s: `f64[n]`, mean RR interval of the basic rhythm.
        breath_hz: `f64[n]`, rate of breathing.
        breath_phase: `f64[n]`, phase of breathing at the first sample, radians.
    """

    time_s: np.ndarray
    kind: np.ndarray
    qt_rr_s: np.ndarray
    gain: np.ndarray
    inside: np.ndarray
    mean_rr_s: np.ndarray
    breath_hz: np.ndarray
    breath_phase: np.ndarray

    def heart_rate_bpm(self) -> np.ndarray:
        """Returns the heart rate, `f64[n]`, in beats per minute.

        It is counted from the R peaks in the strip; where there are fewer than two, it is that of the basic rhythm.
        """
        count = self.inside.sum(axis=1)
        first = np.min(np.where(self.inside, self.time_s, np.inf), axis=1)
        last = np.max(np.where(self.inside, self.time_s, -np.inf), axis=1)
        enough = count > 1
        return np.where(enough, 60 * (count - 1) / np.where(enough, last - first, 1.0), 60 / self.mean_rr_s)

    def contains(self, kind: int) -> np.ndarray:
        """Returns whether the strip contains a beat of `kind`: `bool[n]`."""
        return (self.inside & (self.kind == kind)).any(axis=1)

    def rmssd_ms(self) -> np.ndarray:
        """Returns the root mean square of successive differences of RR, `f64[n]`, ms, of normal beats in the strip.

        It is NaN where no three normal beats follow each other.
        """
        normal = self.inside & (self.kind == NORMAL)
        three = normal[:, :-2] & normal[:, 1:-1] & normal[:, 2:]
        squares = np.where(three, np.diff(self.time_s, n=2, axis=1) ** 2, 0).sum(axis=1)
        count = three.sum(axis=1)
        return np.where(count > 0, 1000 * np.sqrt(squares / np.maximum(count, 1)), np.nan)


def draw_rhythms(draws: Draws, states: States, *, seconds: float, between: States | None = None) -> Rhythms:
    """Draws the beats of records.

    Args:
        draws: Random numbers of the records.
        states: States of the patients.
        seconds: Length of a recording.
        between: States as the changes between beats show them; None for a rhythm that shows nothing of LVEF but rate,
            fibrillation and the chance of premature beats.
    """
    num_beats = int(np.ceil((seconds + 2 * _BEFORE_S) / _SHORTEST_RR_S)) + 2
    mean_rr = 60 / states.rate_bpm
    breath_hz = 0.25 * np.exp(0.2 * draws.normal("breath rate"))
    breath_phase = 2 * np.pi * draws.uniform("breath phase")
    about_s = mean_rr[:, None] * np.arange(num_beats)
    breathing = 2 * np.pi * breath_hz[:, None] * about_s + breath_phase[:, None]

    jitter = draws.normal("rr", (num_beats,))
    chance = draws.uniform("ectopy", (num_beats,))
    ventricular, pvc_coupling = chance < _ECTOPIC_CHANCE, np.full_like(chance, _PVC_COUPLING)
    respiratory, noise = _respiratory_arrhythmia(draws), 0.012 * jitter
    if between is not None:
        ventricular, pvc_coupling = draw_burden(draws, between, mean_rr_s=mean_rr, usual=pvc_coupling)
        respiratory, noise = draw_rr_variability(
            draws, between, mean_rr_s=mean_rr, breath_hz=breath_hz, num_beats=num_beats
        )
    kind = _premature(states, ventricular=ventricular, atrial=chance > 1 - _ECTOPIC_CHANCE)
    sinus = 1 + respiratory[:, None] * np.sin(breathing) + _slow_arrhythmia(draws, about_s) + noise
    variation = np.where(states.af[:, None], np.exp(0.22 * jitter), np.maximum(sinus, 0.6))
    # A PVC does not reset the sinus node, so the pause after it compensates. A PAC resets it.
    coupling = np.select([kind == PVC, kind == PAC], [pvc_coupling, _PAC_COUPLING], 1.0)
    coupling[:, 1:] = np.where(kind[:, :-1] == PVC, 2 - pvc_coupling[:, :-1], coupling[:, 1:])
    rr = np.maximum(mean_rr[:, None] * variation * coupling, _SHORTEST_RR_S)
    rr[:, 0] = -_BEFORE_S + mean_rr * draws.uniform("start")
    time_s = np.cumsum(rr, axis=1)

    # Repolarisation follows the rate slowly; only part of it follows the last interval.
    qt_rr = np.repeat(mean_rr[:, None], num_beats, axis=1)
    qt_rr[:, 1:] += 0.15 * (rr[:, 1:] - mean_rr[:, None])
    depth = 0.03 * np.exp(0.4 * draws.normal("respiratory gain"))
    gain = 1 + depth[:, None] * np.sin(2 * np.pi * breath_hz[:, None] * time_s + breath_phase[:, None])
    return Rhythms(
        time_s=time_s,
        kind=kind,
        qt_rr_s=qt_rr,
        gain=gain,
        inside=(time_s >= _MARGIN_S) & (time_s <= seconds - _MARGIN_S),
        mean_rr_s=mean_rr,
        breath_hz=breath_hz,
        breath_phase=breath_phase,
    )


def _premature(states: States, *, ventricular: np.ndarray, atrial: np.ndarray) -> np.ndarray:
    """Returns the kind of each beat, `int8[n, beats]`.

    Args:
        states: States of the patients, which say who has premature beats.
        ventricular: Candidates for premature ventricular beats of those who have such, `bool[n, beats]`.
        atrial: Candidates for premature atrial beats, `bool[n, beats]`.
    """
    ventricular = states.pvc_carrier[:, None] & ventricular
    atrial = states.pac_carrier[:, None] & atrial
    # No two beats in a row are premature, since a coupling interval counts from a beat on time.
    premature = ventricular | atrial
    premature[:, 1:] &= ~premature[:, :-1]
    premature[:, 0] = False
    kind = np.zeros(premature.shape, np.int8)
    kind[ventricular & premature] = PVC
    kind[atrial & premature] = PAC
    return kind


def _respiratory_arrhythmia(draws: Draws) -> np.ndarray:
    return 0.025 * np.exp(0.7 * draws.normal("respiratory arrhythmia"))


def _slow_arrhythmia(draws: Draws, about_s: np.ndarray) -> np.ndarray:
    """Returns the share by which slow oscillations lengthen the RR intervals at times `about_s`: `f64[n, beats]`."""
    size = 0.02 * np.exp(0.6 * draws.normal("slow arrhythmia"))[:, None]
    phase = 2 * np.pi * draws.uniform("slow arrhythmia phase")[:, None]
    return size * np.sin(2 * np.pi * _SLOW_ARRHYTHMIA_HZ * about_s + phase)
