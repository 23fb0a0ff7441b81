"""Interpolation of a recording between its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError


def resample(ecg: Array, position: Array, *, method: str = "linear") -> Array:
    """Reads a recording at positions between its samples.

    Args:
        ecg: Recording, `f32[time, lead]`, of at least two samples.
        position: Positions to read at, `f32[positions]`, 0 for the first sample and time − 1 for the last; positions
            outside are taken to lie at the nearer end.
        method: Method of interpolation: `"linear"`, or `"cubic"` for cubic convolution (Keys 1981, a = −½), which keeps
            more of the QRS.

    Returns:
        Values at the positions, `f32[positions, lead]`; at whole positions they are the samples themselves, bit for
        bit.

    Raises:
        ConfigError: The method is unknown.
    """
    if method not in _WEIGHTS:
        raise ConfigError(f"method={method!r} of resampling is unknown; there are: {', '.join(_WEIGHTS)}")
    position = jnp.clip(position, 0, len(ecg) - 1)
    before = jnp.minimum(jnp.floor(position).astype(jnp.int32), len(ecg) - 2)
    weights = _WEIGHTS[method](position - before.astype(jnp.float32))
    # The weights reach over several samples on each side of a position: the first and the last are repeated beyond the
    # ends.
    margin = len(weights) // 2 - 1
    padded = jnp.pad(ecg, ((margin, margin), (0, 0)), mode="edge")
    # Terms are added one by one, so that the order does not follow the batch as that of a sum over an axis may.
    terms = [weight[:, None] * padded[before + tap] for tap, weight in enumerate(weights)]
    return sum(terms[1:], terms[0])


def _linear(fraction: Array) -> list[Array]:
    return [1 - fraction, fraction]


def _cubic(f: Array) -> list[Array]:
    return [
        f * (-0.5 + f * (1 - 0.5 * f)),
        1 + f * f * (-2.5 + 1.5 * f),
        f * (0.5 + f * (2 - 1.5 * f)),
        f * f * (-0.5 + 0.5 * f),
    ]


_WEIGHTS: Mapping[str, Callable[[Array], list[Array]]] = {"linear": _linear, "cubic": _cubic}
