"""Draws what a recording holds besides the heart: baseline wander, muscle, mains and loose electrodes.

Noise arises at electrodes and reaches the leads as their differences, so that a bad right arm affects every lead.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import scipy.fft

from data_pipelines.simulation.random_numbers import Draws

#: Number of electrodes: right arm, left arm, left leg, V1 … V6.
NUM_ELECTRODES = 9
#: Size of an electrode's slow wander; the chest moves more than the limbs. All levels follow the spectrum of PTB-XL
#: records.
_DRIFT_MV = np.array([0.016] * 3 + [0.028] * 6)
#: Length of the transform as a multiple of the strip's, which keeps the noise from ending where it began.
_SPAN = 1.25
#: Frequency above which nothing is drawn.
_HIGHEST_HZ = 250.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseSources:
    """Noise at a site beside that of a cohort without one.

    Attributes:
        muscle: Factor on muscle noise.
        wander: Factor on slow wander and on what breathing moves.
        mains: Factor on what a mains filter left.
        mains_share: Share of recordings in which anything is left of the mains.
        mains_hz: Frequency of the mains; None for 50 Hz at 60 % of patients and 60 Hz at the others.
        moved_share: Probability of each of two electrode movements in a recording.
    """

    muscle: float = 1.0
    wander: float = 1.0
    mains: float = 1.0
    mains_share: float = 0.35
    mains_hz: float | None = None
    moved_share: float = 0.08


#: Noise of a cohort without a site.
USUAL_NOISE = NoiseSources()


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """Levels of noise of `n` records.

    Attributes:
        muscle_mv: `f64[n, electrode]`, root mean square of muscle noise up to `_HIGHEST_HZ`.
        drift_mv: `f64[n, electrode]`, root mean square of slow wander.
        breath_mv: `f64[n, electrode]`, amplitude at the rate of breathing.
        mains_hz: Frequency of the mains, `f64[n]`.
        mains_mv: `f64[n, electrode, 2]`, cosine and sine amplitudes of what a mains filter left.
        motion_mv: `f64[n, event]`, height of electrode movements; 0 where there is none.
        motion_electrode: Electrode of each movement, `int64[n, event]`.
        motion_s: Time of each movement, `f64[n, event]`.
        motion_length_s: Length of each movement, `f64[n, event]`.
    """

    muscle_mv: np.ndarray
    drift_mv: np.ndarray
    breath_mv: np.ndarray
    mains_hz: np.ndarray
    mains_mv: np.ndarray
    motion_mv: np.ndarray
    motion_electrode: np.ndarray
    motion_s: np.ndarray
    motion_length_s: np.ndarray


def draw_noise_levels(draws: Draws, *, seconds: float, sources: NoiseSources = USUAL_NOISE) -> NoiseLevels:
    """Draws the noise levels of recordings.

    Args:
        draws: Random numbers of the records.
        seconds: Length of a recording.
        sources: Noise at the site.
    """
    electrodes, events = (NUM_ELECTRODES,), (2,)
    muscle = np.exp(0.55 * draws.normal("muscle")[:, None] + 0.35 * draws.normal("muscle of electrode", electrodes))
    drift = np.exp(0.5 * draws.normal("drift")[:, None] + 0.5 * draws.normal("drift of electrode", electrodes))
    mains = np.where(draws.uniform("mains left") < sources.mains_share, np.exp(0.8 * draws.normal("mains")), 0.0)
    mains_hz = np.where(draws.lasting_uniform("mains") < 0.6, 50.0, 60.0)
    moved = draws.uniform("moved", events) < sources.moved_share
    height = 0.15 * np.exp(0.6 * draws.normal("motion height", events))
    sign = np.where(draws.uniform("motion sign", events) < 0.5, -1.0, 1.0)
    breath = 0.006 * np.exp(0.6 * draws.normal("breath")[:, None]) * draws.normal("breath sides", electrodes)
    return NoiseLevels(
        muscle_mv=sources.muscle * 0.0035 * muscle,
        drift_mv=sources.wander * _DRIFT_MV * drift,
        breath_mv=sources.wander * breath,
        mains_hz=mains_hz if sources.mains_hz is None else np.full_like(mains_hz, sources.mains_hz),
        mains_mv=sources.mains * 0.002 * mains[:, None, None] * draws.normal("mains phases", (NUM_ELECTRODES, 2)),
        motion_mv=np.where(moved, sign * height, 0.0),
        motion_electrode=(NUM_ELECTRODES * draws.uniform("motion electrode", events)).astype(np.int64),
        motion_s=seconds * draws.uniform("motion time", events),
        motion_length_s=0.1 + 0.5 * draws.uniform("motion length", events),
    )


@functools.lru_cache(maxsize=8)
def _spectra(num_samples: int, sampling_rate_hz: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Returns the transform's length, and each bin's amplitude for 1 mV of muscle noise and drift, `f32[bins, 1]`."""
    length = round(num_samples * _SPAN)
    hertz = np.arange(1, length // 2) * sampling_rate_hz / length
    hertz = hertz[hertz < min(_HIGHEST_HZ, sampling_rate_hz / 2)]
    grid = np.arange(1, round(_HIGHEST_HZ * length / sampling_rate_hz)) * sampling_rate_hz / length

    def amplitudes(power: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        # The scale is over all bins, not only those of this rate, since a lower rate must not raise the spectrum.
        return np.sqrt(power(hertz) / power(grid).sum() / 2)[:, None]

    # An electromyogram rises to about 20 Hz and is then nearly flat; the floor is the amplifier's noise.
    muscle = amplitudes(lambda f: 1 / (1 + (15 / f) ** 2) / (1 + (f / 110) ** 4) + 0.15)
    drift = amplitudes(lambda f: 1 / (1 + (0.08 / f) ** 4) / f**1.7)
    # The inverse real transform divides by its length, and counts each bin twice.
    return length, (muscle * length).astype(np.float32), (drift * length).astype(np.float32)


def record_noise(
    levels: NoiseLevels,
    record: int,
    *,
    generator: np.random.Generator,
    breath_hz: float,
    breath_phase: float,
    num_samples: int,
    sampling_rate_hz: int,
) -> np.ndarray:
    """Draws the noise of one record.

    Args:
        levels: Noise levels of all records.
        record: Position of the record in `levels`.
        generator: Random generator of this record alone.
        breath_hz: Rate of breathing.
        breath_phase: Phase of breathing at the first sample, radians.
        num_samples: Number of samples of the record.
        sampling_rate_hz: Rate of the record.

    Returns:
        Noise on the leads, `f32[leads, num_samples]`, mV.
    """
    length, muscle, drift = _spectra(num_samples, sampling_rate_hz)
    colour = muscle * levels.muscle_mv[record].astype(np.float32) + drift * levels.drift_mv[record].astype(np.float32)
    # Low frequencies are drawn first: at another rate, the bins that both have get the same draws. Uniform draws are
    # three times as fast as normal ones, and the sum of a thousand bins is normal either way.
    uniform = generator.random((len(colour), NUM_ELECTRODES, 2), dtype=np.float32)
    bins = ((uniform - np.float32(0.5)) * np.float32(np.sqrt(12))).view(np.complex64)[..., 0]
    spectrum = np.zeros((NUM_ELECTRODES, length // 2 + 1), np.complex64)
    spectrum[:, 1 : len(colour) + 1] = (bins * colour).T
    noise = scipy.fft.irfft(spectrum, n=length, axis=1)[:, :num_samples]

    time = np.arange(num_samples, dtype=np.float32) / np.float32(sampling_rate_hz)
    breath = np.sin(np.float32(2 * np.pi * breath_hz) * time + np.float32(breath_phase))
    noise += levels.breath_mv[record].astype(np.float32)[:, None] * breath
    mains_hz = levels.mains_hz[record]
    # At or above half the rate, a recorder's anti-alias filter removes the mains.
    if mains_hz < 0.49 * sampling_rate_hz and levels.mains_mv[record].any():
        angle = np.float32(2 * np.pi * mains_hz) * time
        cosine, sine = levels.mains_mv[record].astype(np.float32).T
        noise += cosine[:, None] * np.cos(angle) + sine[:, None] * np.sin(angle)
    for event in np.flatnonzero(levels.motion_mv[record]):
        length_s = np.float32(levels.motion_length_s[record, event])
        since = (time - np.float32(levels.motion_s[record, event])) / length_s
        # The movement is a sudden step, which the recorder's high-pass lets decay over a second or two.
        step = np.exp(-np.maximum(since, 0) / 3) / (1 + np.exp(-np.clip(12 * since, -60, 60)))
        noise[levels.motion_electrode[record, event]] += np.float32(levels.motion_mv[record, event]) * step
    return _to_leads(noise)


def _to_leads(electrodes: np.ndarray) -> np.ndarray:
    """Returns the noise on the eight leads, `f32[lead, time]`, from that at the electrodes, `f32[electrode, time]`.

    I = LA − RA, II = LL − RA, and a chest lead is its electrode minus the mean of the three limb electrodes.
    """
    right, left, leg = electrodes[:3]
    return np.concatenate([[left - right, leg - right], electrodes[3:] - (right + left + leg) / np.float32(3)])
