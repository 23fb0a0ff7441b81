"""Augmentation that moves recordings towards recordings of another label, along the geodesic of optimal transport.

The recordings of one label and those of the other are two empirical distributions. Optimal transport couples their
members so that what is physiologically alike comes together, and the geodesic between the distributions moves each
recording along the straight line to its partner. `partners` chooses these.

References:
    Zhu et al., GeoECG: data augmentation via Wasserstein geodesic perturbation for robust electrocardiogram prediction,
    MLHC 2022 (arXiv 2208.01220). McCann, A convexity principle for interacting gases, 1997 (the geodesic).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax import leads
from ecgjax.augmentations.beats import peak_positions, r_peaks
from ecgjax.augmentations.crops import Recorded
from ecgjax.settings.bounds import Probability, between

#: Number of steps into which the whole way is divided. They are integers, whose sums no compiler rounds, and few enough
#: for 32 bits.
_STEPS = 2**10


#: Share of the way towards a partner's recording.
StepShare = Annotated[float, between(0, 0.5, "farther on the label is the partner's")]


def geodesic(key: Array, stored: Array, towards: Array, *, max_step: StepShare = 0.5, p: Probability = 1.0) -> Array:
    """Moves a recording a share U(0, max) of the way towards its partner of the other label, beat for beat.

    The recording keeps its label, because it moves half of the way at most.

    Args:
        key: Random key of this row and view.
        stored: Stored recording, `int16[time, lead]`, in µV.
        towards: Recording to move towards, `int16[time, lead]`, in µV: the partner's beats, laid over the
            recording's own by `Overlay`.
        max_step: Greatest share of the way towards the partner, 0 to .5, rounded to 1,024ths; the share is U(0, max).
        p: Probability that the augmentation acts.

    Returns:
        The moved recording, `f32[time, lead]`, in mV; for a step of 0 it has the bits of `leads.millivolts(stored)`.
    """
    key_step, key_p = jax.random.split(key)
    step = jax.random.randint(key_step, (), 0, round(max_step * _STEPS) + 1)
    if p < 1:
        step = jnp.where(jax.random.bernoulli(key_p, p), step, 0)
    own = stored.astype(jnp.int32)
    moved = _STEPS * own + step * (towards.astype(jnp.int32) - own)
    return moved.astype(jnp.float32) * jnp.float32(np.float32(leads.MILLIVOLTS) / _STEPS)


class Overlay:
    """Lays the beats of a partner over those of each recording of a batch, R peak on R peak.

    Each of the partner's beats brings half of the intervals before and after it. Where those are shorter than the
    recording's intervals, the value at their ends is held. Where the partner's beats run out, its first beat
    follows again. So rhythm and rate are the recording's, and the shape is the partner's. Beats are aligned because
    recordings of two rhythms cannot be averaged as wholes; GeoECG does not describe its alignment.

    Args:
        rate_hz: Sampling rate, in samples per second.
        take: Function `(tree of [batch, …], i32[batch]) → tree of [batch, …]` that takes rows of the global batch by
            their number, such as `objectives.pairs.tiles.take`.
    """

    def __init__(self, *, rate_hz: float, take: Callable[[Any, Array], Any]):
        self._rate_hz, self._take = rate_hz, take

    def __call__(self, signal: Array, partner: Array, *, recorded: Recorded, valid: Array) -> tuple[Array, Array]:
        """Lays partners over recordings.

        Args:
            signal: Recordings of the batch, `int16[batch, time, 8]`, in µV.
            partner: Partners as rows of the global batch, `i32[batch]`; −1 where there is none.
            recorded: Samples of each row that are no padding, each `i32[batch]`.
            valid: Mask of the rows that could be read, `bool[batch]`.

        Returns:
            Recordings that `geodesic` moves towards, `int16[batch, time, 8]`, and a mask of the rows that have such,
            `bool[batch]`. The others keep their own signal: they have no partner, or one of the two has fewer than two
            R peaks.
        """
        peaks = jax.vmap(self._peaks)(signal)
        others = {"signal": signal, "peaks": peaks, "recorded": recorded, "valid": valid}
        others = self._take(others, jnp.maximum(partner, 0))
        can = (partner >= 0) & valid & others.pop("valid")
        return jax.vmap(_laid_over)(signal, peaks, recorded, others["signal"], others["peaks"], others["recorded"], can)

    def _peaks(self, signal: Array) -> Array:
        return peak_positions(r_peaks(leads.millivolts(signal), rate_hz=self._rate_hz), rate_hz=self._rate_hz)


def towards_others(
    signal: Array, others: Array, *, recorded: Recorded, others_recorded: Recorded, rate_hz: float
) -> Array:
    """Lays given recordings over others, for figures.

    Args:
        signal: Recordings, `int16[n, time, 8]`, in µV.
        others: Partner of each recording, `int16[n, time, 8]`, in µV.
        recorded: Samples of `signal` that are no padding, each `i32[n]`.
        others_recorded: Samples of `others` that are no padding, each `i32[n]`.
        rate_hz: Sampling rate, in samples per second.

    Returns:
        Recordings that `geodesic` moves towards, `int16[n, time, 8]`.
    """
    overlay = jax.jit(Overlay(rate_hz=rate_hz, take=lambda tree, row: jax.tree.map(lambda x: x[row], tree)))
    both, both_recorded = jax.tree.map(
        lambda *parts: jnp.concatenate(parts), (signal, recorded), (others, others_recorded)
    )
    number = jnp.arange(len(both), dtype=jnp.int32)
    partner = jnp.where(number < len(signal), number + len(signal), -1)
    return overlay(both, partner, recorded=both_recorded, valid=number >= 0)[0][: len(signal)]


def _laid_over(
    own: Array,
    own_peaks: Array,
    own_recorded: Recorded,
    other: Array,
    peaks: Array,
    recorded: Recorded,
    can: Array,
) -> tuple[Array, Array]:
    """Lays one partner over one recording, as `Overlay` does for a batch.

    Args:
        own: Recording, `int16[time, 8]`, in µV.
        own_peaks: Sample numbers of the recording's R peaks, `i32[peaks]`, ascending; `time` where there is none.
        own_recorded: Samples of the recording that are no padding.
        other: Partner, `int16[time, 8]`, in µV.
        peaks: Sample numbers of the partner's R peaks, `i32[peaks]`, ascending; `time` where there is none.
        recorded: Samples of the partner that are no padding.
        can: Whether there is a partner, and both could be read, `bool[]`.

    Returns:
        The recording with the partner's beats in place of its own, `int16[time, 8]`, and whether they could be laid,
        `bool[]`; where not, the recording is returned as it is.
    """
    num_samples = len(own)
    time = jnp.arange(num_samples)
    # Only recorded samples are replaced, so that padding stays silent.
    inside = (time >= own_recorded.start) & (time < own_recorded.start + own_recorded.samples)
    can = can & (own_peaks[1] < num_samples) & (peaks[1] < num_samples)
    laid = other[_overlay(own_peaks, peaks, recorded, num_samples=num_samples)]
    return jnp.where((inside & can)[:, None], laid, own), can


def _overlay(peaks: Array, others: Array, recorded: Recorded, *, num_samples: int) -> Array:
    """Returns which sample of the other recording lies over each sample of the first, `i32[num_samples]`.

    R peaks lie on R peaks, in turn, as `Overlay` describes.

    Args:
        peaks: R peaks of the first recording, `i32[peaks]`, ascending; `num_samples` where there is none.
        others: R peaks of the other recording, `i32[peaks]`, ascending; `num_samples` where there is none.
        recorded: Samples of the other recording that are no padding.
        num_samples: Number of samples of each recording.
    """
    # 1. Give each sample to its nearest R peak, and each R peak to a beat of the other recording, in turn.
    time = jnp.arange(num_samples)
    distance = jnp.abs(time[:, None] - peaks[None, :])
    nearest = jnp.argmin(jnp.where(peaks[None, :] < num_samples, distance, num_samples), 1)
    count = jnp.maximum(jnp.sum(others < num_samples), 1)
    beat = nearest % count
    # 2. Bound each beat of the other recording: half of the way to its neighbours, and beyond the first and the last R
    #    peak as far as was recorded.
    before = jnp.where(beat > 0, (others[beat] - others[beat - 1]) // 2, others[beat] - recorded.start)
    after = jnp.where(
        beat < count - 1,
        (others[jnp.minimum(beat + 1, len(others) - 1)] - others[beat]) // 2,
        recorded.start + recorded.samples - 1 - others[beat],
    )
    # 3. Read the sample as far from the other R peak as this one lies from its own, within those bounds.
    return jnp.clip(others[beat] + jnp.clip(time - peaks[nearest], -before, after), 0, num_samples - 1)
