"""Activation functions whose gradients need no more memory than their argument."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_ZERO = 1 / math.sqrt(2 * math.pi)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """Returns x · Φ(x), the exact GELU; Φ is the standard normal distribution function.

    It is computed in float32 and returned in the type of `x`. The gradient is written out, so that the backward pass
    keeps `x` alone. JAX's own keeps several arrays of that size, whose values come from a function that costs twice as
    much (docs/speed.md).

    Args:
        x: Activations of any shape.

    References:
        Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.
    """
    wide = x.astype(jnp.float32)
    return (wide * _distribution(wide)).astype(x.dtype)


def _forward(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _backward(x: Array, gradient: Array) -> tuple[Array]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * jnp.float32(_DENSITY_AT_ZERO)
    slope = _distribution(wide) + wide * density
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


def _distribution(x: Array) -> Array:
    """Returns Φ(x)."""
    return 0.5 + 0.5 * jax.lax.erf(x * jnp.float32(_SQRT_HALF))


gelu.defvjp(_forward, _backward)
