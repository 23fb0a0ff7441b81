"""Recordings moved towards those of another label, along the geodesic of optimal transport.

The recordings of a label and those of the other are two empirical distributions. Optimal transport couples their
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

#: Steps between none and the whole way. Few enough for integers, whose sums no compiler rounds.
_STEPS = 2**10


#: Share of the way towards a partner's recording.
StepShare = Annotated[float, between(0, 0.5, "farther on the label is the partner's")]


def geodesic(
    key: Array,
    stored: Array,
    towards: Array,
    *,
    max_step: StepShare = 0.5,
    p: Probability = 1.0,
) -> Array:
    """Moves a recording a step of U(0, max) of the way towards its partner of the other label, beat for beat.

    The label stays, up to half of the way.

    Args:
        key: of this row and view.
        stored: `int16[time, lead]`, µV.
        towards: `int16[time, lead]`, µV, the partner's beats laid over its own, see `Overlay`.
        max_step: 0 to .5, rounded to 1,024ths.
        p: chance that it acts.

    Returns:
        `f32[time, lead]`, mV; the bits of `leads.millivolts(stored)` for a step of 0.
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

    Each of the partner's beats goes with its own half of the intervals before and after; where those are shorter than
    the recording's, the level at their ends goes on; the partner's beats begin anew where they run out. So rhythm and
    rate are the recording's and the shape is the partner's. Whole recordings of two rhythms cannot be averaged; the
    paper does not say what it lays over what.

    Args:
        rate_hz: samples per second.
        take: `(tree of [batch, …], i32[batch]) → tree of [batch, …]`, rows of the global batch by their number, such as
            `objectives.tiles.take`.
    """

    def __init__(self, *, rate_hz: float, take: Callable[[Any, Array], Any]):
        self._rate_hz, self._take = rate_hz, take

    def __call__(self, signal: Array, partner: Array, *, recorded: Recorded, valid: Array) -> tuple[Array, Array]:
        """Lays partners over recordings.

        Args:
            signal: `int16[batch, time, 8]`, µV.
            partner: `i32[batch]`, rows of the global batch, −1 where there is none.
            recorded: which samples of each are no padding, `i32[batch]`.
            valid: `bool[batch]`, which could be read.

        Returns:
            What `geodesic` moves towards, `int16[batch, time, 8]`, and `bool[batch]`, which rows have such; for the
            others it is their own signal. These have no partner, or one of the two has fewer than two R peaks.
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
        signal: `int16[n, time, 8]`, µV.
        others: `int16[n, time, 8]`, the partner of each.
        recorded: which samples of `signal` are no padding, `i32[n]`.
        others_recorded: which of `others`.
        rate_hz: samples per second.

    Returns:
        What `geodesic` moves towards, `int16[n, time, 8]`.
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
    """One recording of `Overlay`."""
    num_samples = len(own)
    time = jnp.arange(num_samples)
    # Padding stays silent.
    inside = (time >= own_recorded.start) & (time < own_recorded.start + own_recorded.samples)
    can = can & (own_peaks[1] < num_samples) & (peaks[1] < num_samples)
    laid = other[_overlay(own_peaks, peaks, recorded, num_samples=num_samples)]
    return jnp.where((inside & can)[:, None], laid, own), can


def _overlay(peaks: Array, others: Array, recorded: Recorded, *, num_samples: int) -> Array:
    """Which sample of the other recording lies over each sample of the first, `i32[num_samples]`.

    Args:
        peaks: of the first, `i32[peaks]` ascending, `num_samples` where there is none.
        others: of the other recording, likewise.
        recorded: of the other recording.
        num_samples: of each.
    """
    time = jnp.arange(num_samples)
    distance = jnp.abs(time[:, None] - peaks[None, :])
    nearest = jnp.argmin(jnp.where(peaks[None, :] < num_samples, distance, num_samples), 1)
    count = jnp.maximum(jnp.sum(others < num_samples), 1)
    beat = nearest % count
    # Half of the way to the neighbours; beyond the first and the last R peak as far as was recorded.
    before = jnp.where(beat > 0, (others[beat] - others[beat - 1]) // 2, others[beat] - recorded.start)
    after = jnp.where(
        beat < count - 1,
        (others[jnp.minimum(beat + 1, len(others) - 1)] - others[beat]) // 2,
        recorded.start + recorded.samples - 1 - others[beat],
    )
    return jnp.clip(others[beat] + jnp.clip(time - peaks[nearest], -before, after), 0, num_samples - 1)
