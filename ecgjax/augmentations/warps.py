"""Augmentations that warp or reverse time, and that change the gain or sign of amplitudes."""

from __future__ import annotations

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # Its parts are imported where they are first asked for: that of signals takes a second.
from jax import Array

from ecgjax.augmentations.draws import sometimes
from ecgjax.augmentations.resampling import resample
from ecgjax.settings.bounds import Probability, ZeroOrMore, between

#: Number of standard deviations at which the speeds at the knots are cut off.
_MOST_DEVIATIONS = 2.25
#: Number of steps into which the usual speed is divided: the speed at a knot differs from it by whole steps.
_SPEEDS = 2**8


#: Standard deviation of a relative speed, and number of places at which it is drawn.
Warp = Annotated[float, between(0, 0.2, "above, time could run back")]
Knots = Annotated[int, between(1, 16)]


def time_warp(key: Array, ecg: Array, *, sigma: Warp = 0.2, num_knots: Knots = 4) -> Array:
    """Warps time: its speed is N(1, σ²) at evenly spaced knots, and a natural cubic spline between them.

    The mean extra speed is subtracted, so that the first and the last sample stay where they are. Draws are cut off at
    2.25 σ, so that for σ up to .2 time never runs back, which would play beats backwards. All leads are warped alike.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, of at least two samples.
        sigma: Standard deviation σ of the relative speed of time at a knot; at most .2, above which time could run
            back.
        num_knots: Number of knots inside the recording at which the speed is drawn; one more stands at each end.

    Returns:
        The warped recording, `f32[time, lead]`; with σ = 0 it has the same bits.

    References:
        Um et al., Data augmentation of wearable sensor data for Parkinson's disease monitoring using convolutional
        neural networks, ICMI 2017 (arXiv 1706.00527).
    """
    travelled = jnp.asarray(_travelled(len(ecg), num_knots), jnp.float32)
    draw = jax.random.truncated_normal(key, -_MOST_DEVIATIONS, _MOST_DEVIATIONS, (num_knots + 2,), jnp.float32)
    # Both factors have so few digits that their product is not rounded: a compiler may round it in one batch size and
    # not in another.
    speed = jnp.round(sigma * draw * _SPEEDS) / _SPEEDS
    position = jnp.arange(len(ecg), dtype=jnp.float32)
    return resample(
        ecg, functools.reduce(jnp.add, [speed[k] * travelled[:, k] for k in range(num_knots + 2)], position)
    )


@functools.cache
def _travelled(num_samples: int, num_knots: int) -> np.ndarray:
    """Returns the matrix from speeds at knots to shifts in time, `f64[time, knot]`.

    Entry [t, k] is the shift at sample t, in samples, for one unit of extra speed at knot k. Entries are rounded to
    multiples of 2⁻¹⁵ of the greatest one's power of two, so that `time_warp` multiplies them without rounding.
    """
    time = np.arange(num_samples)
    knots = np.linspace(0, num_samples - 1, num_knots + 2)
    travelled = scipy.interpolate.CubicSpline(knots, np.eye(num_knots + 2), bc_type="natural").antiderivative()(time)
    ahead = travelled - travelled[-1] * time[:, None] / (num_samples - 1)
    unit = 2.0 ** (np.ceil(np.log2(np.abs(ahead).max())) - 15)
    return np.round(ahead / unit) * unit


def time_reversal(key: Array, ecg: Array, *, p: Probability = 0.5) -> Array:
    """Reverses time with probability `p`: T then comes before QRS and QRS before P, which no heart does.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`.
        p: Probability that the augmentation acts.

    Returns:
        The recording forwards or backwards, `f32[time, lead]`.
    """
    return sometimes(key, ecg[::-1], ecg, p=p)


def amplitude_scale(key: Array, ecg: Array, *, sigma: ZeroOrMore = 0.1) -> Array:
    """Multiplies each stored lead by a gain N(1, σ²) of its own (Um et al. 2017).

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`, before the other limb leads are derived, so that they still follow from I and
            II.
        sigma: Standard deviation σ of the leads' gains about 1.

    Returns:
        The scaled recording, `f32[time, lead]`.
    """
    return ecg * (1 + sigma * jax.random.normal(key, (1, ecg.shape[1]), jnp.float32))


def polarity(key: Array, ecg: Array, *, p: Probability = 0.5) -> Array:
    """Inverts all leads with probability `p`: ST elevation becomes depression, and every axis its opposite.

    Args:
        key: Random key of this row and view.
        ecg: Recording, `f32[time, lead]`.
        p: Probability that the augmentation acts.

    Returns:
        The recording as it was or inverted, `f32[time, lead]`.
    """
    return sometimes(key, -ecg, ecg, p=p)
