"""Time run at another speed or backwards, and amplitudes at another gain or sign."""

from __future__ import annotations

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.interpolate import CubicSpline

from ecgjax.augmentations.draws import sometimes
from ecgjax.augmentations.resampling import resample
from ecgjax.settings.bounds import Probability, ZeroOrMore, between

#: Speeds at the knots are cut off at so many standard deviations.
_MOST_DEVIATIONS = 2.25
#: Different speeds at a knot between none and twice the usual one.
_SPEEDS = 2**8


#: Standard deviation of a relative speed, and number of places at which it is drawn.
Warp = Annotated[float, between(0, 0.2, "above, time could run back")]
Knots = Annotated[int, between(1, 16)]


def time_warp(
    key: Array,
    ecg: Array,
    *,
    sigma: Warp = 0.2,
    num_knots: Knots = 4,
) -> Array:
    """Runs time at a smoothly changing speed: N(1, σ²) at evenly spaced knots, a natural cubic spline between them.

    The mean speed is taken out, so that the first and the last sample stay where they are. Draws are cut off at 2.25 σ:
    time never runs back for σ up to .2, which would play beats backwards. All leads are warped alike.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`, at least two samples.
        sigma: of the speed at a knot.
        num_knots: inside the recording; one more stands at each end.

    Returns:
        `f32[time, lead]`; the same bits at zero σ.

    References:
        Um et al., Data augmentation of wearable sensor data for Parkinson's disease monitoring using convolutional
        neural networks, ICMI 2017 (arXiv 1706.00527).
    """
    travelled = jnp.asarray(_travelled(len(ecg), num_knots), jnp.float32)
    draw = jax.random.truncated_normal(key, -_MOST_DEVIATIONS, _MOST_DEVIATIONS, (num_knots + 2,), jnp.float32)
    # Both factors have so few digits that their product has no rounding, which a compiler may do in one batch size and
    # not in another.
    speed = jnp.round(sigma * draw * _SPEEDS) / _SPEEDS
    position = jnp.arange(len(ecg), dtype=jnp.float32)
    return resample(
        ecg, functools.reduce(jnp.add, [speed[k] * travelled[:, k] for k in range(num_knots + 2)], position)
    )


@functools.cache
def _travelled(num_samples: int, num_knots: int) -> np.ndarray:
    """How many samples time is ahead of an even pace at each sample, for a unit of speed at a knot: `f64[time, knot]`.

    To 15 binary digits of the farthest.
    """
    time = np.arange(num_samples)
    knots = np.linspace(0, num_samples - 1, num_knots + 2)
    travelled = CubicSpline(knots, np.eye(num_knots + 2), bc_type="natural").antiderivative()(time)
    ahead = travelled - travelled[-1] * time[:, None] / (num_samples - 1)
    unit = 2.0 ** (np.ceil(np.log2(np.abs(ahead).max())) - 15)
    return np.round(ahead / unit) * unit


def time_reversal(key: Array, ecg: Array, *, p: Probability = 0.5) -> Array:
    """Runs time backwards with probability `p`: T before QRS before P, which no heart does.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`.
        p: chance that it acts.

    Returns:
        `f32[time, lead]`.
    """
    return sometimes(key, ecg[::-1], ecg, p=p)


def amplitude_scale(key: Array, ecg: Array, *, sigma: ZeroOrMore = 0.1) -> Array:
    """Multiplies each stored lead by a gain N(1, σ²) of its own (Um et al. 2017).

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`; before the other limb leads are derived, so that they still follow from I and II.
        sigma: of the gain.

    Returns:
        `f32[time, lead]`.
    """
    return ecg * (1 + sigma * jax.random.normal(key, (1, ecg.shape[1]), jnp.float32))


def polarity(key: Array, ecg: Array, *, p: Probability = 0.5) -> Array:
    """Turns all leads upside down with probability `p`: ST elevation becomes depression, every axis its opposite.

    Args:
        key: of this row and view.
        ecg: `f32[time, lead]`.
        p: chance that it acts.

    Returns:
        `f32[time, lead]`.
    """
    return sometimes(key, -ecg, ecg, p=p)
