"""Random draws that several augmentations share: normal noise, and the draw by which an augmentation acts or not."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax.keys import hash_bits


def normals(key: Array, shape: tuple[int, ...]) -> Array:
    """Draws standard normal numbers by the method of Box and Muller (1958) from hashed bits.

    Threefry and the inverse error function for every sample of every lead would take longer than all other
    augmentations together on a CPU: measured, twenty times as long as this.

    Args:
        key: Random key, `key<threefry2x32>[]`.
        shape: Shape of the result, with any number of axes.

    Returns:
        Random numbers, `f32[shape]`, at most 5.9 in magnitude.
    """
    high, low = jax.random.key_data(key).astype(jnp.uint32)
    position = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    first, second = (_uniform(hash_bits(high, low, position * jnp.uint32(2) + jnp.uint32(part))) for part in (0, 1))
    # Only one of each pair's two normals is used: laying cosines and sines side by side costs more than drawing twice
    # as many.
    return jnp.sqrt(-2 * jnp.log(first)) * _cosine(second - jnp.float32(0.5))


def _cosine(turn: Array) -> Array:
    """Returns the cosine of 2π · `turn`, `f32[...]`, for turns of −½ … ½, to 1e-6.

    It computes the Taylor series of the sine of half the angle, and then the double angle. The compiler's own cosine,
    which holds for any angle, takes several times as long on a CPU.
    """
    half = jnp.float32(math.pi) * turn
    square = half * half
    series = jnp.float32(0)
    for k in range(6, -1, -1):
        series = (-1) ** k / math.factorial(2 * k + 1) + square * series
    sine = half * series
    return 1 - 2 * sine * sine


def _uniform(bits: Array) -> Array:
    """Returns numbers above 0 and below 1, `f32[...]`, from the upper 24 of random bits, `u32[...]`."""
    # The bits become signed integers first: every CPU has a conversion of those to floating point.
    return ((bits >> jnp.uint32(8)).astype(jnp.int32).astype(jnp.float32) + 0.5) * jnp.float32(2**-24)


def between(key: Array, low: float, high: float) -> Array:
    """Draws a number evenly between two others, from 2,048 values.

    With so few values and a distance of 13 significant bits, their product is exact in float32. So the result has the
    same bits whether or not the compiler fuses the product with the addition, which it decides by the batch's shape.

    Args:
        key: Random key of this draw.
        low: Lower end of the interval.
        high: Upper end of the interval.

    Returns:
        The number, `f32[]`.
    """
    mantissa, exponent = math.frexp(high - low)
    distance = math.ldexp(round(mantissa * 2**13), exponent - 13)
    number = jax.random.randint(key, (), 0, 2048, jnp.int32).astype(jnp.float32)
    return jnp.float32(low) + number * jnp.float32(distance / 2048)


#: Number of values that `log_between` draws from.
_LEVELS = 1024


def levels_between(low: float, high: float) -> np.ndarray:
    """Returns the values that `log_between` draws from: each is the one before times the same factor, `f64[1024]`."""
    return low * (high / low) ** ((np.arange(_LEVELS) + 0.5) / _LEVELS)


def log_between(key: Array, low: float, high: float, shape: tuple[int, ...] = ()) -> Array:
    """Draws numbers whose logarithms lie evenly between those of two others: small ones come as often as large ones.

    They are taken from a table of 1,024, because an exponential that is computed on the device may have another last
    bit in a batch of another shape.

    Args:
        key: Random key of this draw.
        low: Lower end of the interval, above 0.
        high: Upper end of the interval, at least `low`.
        shape: Shape of the result.

    Returns:
        The numbers, `f32[shape]`.
    """
    return jnp.asarray(levels_between(low, high), jnp.float32)[jax.random.randint(key, shape, 0, _LEVELS, jnp.int32)]


def sometimes(key: Array, changed: Array, ecg: Array, *, p: float) -> Array:
    """Returns `changed` with probability `p`, and otherwise `ecg`, both `f32[time, lead]`: one draw decides for all."""
    if p >= 1:
        return changed
    return jnp.where(jax.random.bernoulli(key, p), changed, ecg)
