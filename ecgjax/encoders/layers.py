"""Pieces that several encoders share."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

#: Parameters, statistics and normalisation stay in this type whatever the compute type.
PARAM_DTYPE = jnp.float32


def conv(
    features_in: int, features_out: int, *, kernel: int, stride: int = 1, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Conv:
    """A 1-D convolution over time, `[batch, time, channel]`, padded by (kernel − 1) / 2 on both sides.

    It has no bias: every convolution here stands before a normalisation, where a bias has no gradient.
    """
    return nnx.Conv(
        features_in,
        features_out,
        kernel_size=(kernel,),
        strides=(stride,),
        padding=((kernel // 2, kernel // 2),),
        use_bias=False,
        dtype=dtype,
        param_dtype=PARAM_DTYPE,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


def batch_norm(features: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalisation with float32 statistics; over a global batch it is synchronised by construction."""
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, param_dtype=PARAM_DTYPE, rngs=rngs)


def row_dropout(x: Array, keys: Array | None, rate: float) -> Array:
    """Dropout whose mask for a row depends on that row's key alone.

    Args:
        x: `[batch, ...]`.
        keys: `key[batch]`, or None at inference, which returns `x`.
        rate: share dropped, in [0, 1).

    Returns:
        `x` with dropped elements zero and the rest scaled by 1 / (1 − rate).
    """
    if keys is None or rate == 0.0:
        return x
    bits = _row_bits(keys, x.shape[1:])
    keep = bits >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def _row_bits(keys: Array, shape: tuple[int, ...]) -> Array:
    """Random bits, `u32[batch, *shape]`, each row's a function of its key and of the position alone.

    The keys come from threefry; the bits from MurmurHash3's finaliser over key and position. Threefry for every element
    of every dropout would take a third of the step's time on a CPU, and most of its compilation.
    """
    words = jax.random.key_data(keys).astype(jnp.uint32)
    high, low = (words[:, i].reshape(-1, *(1,) * len(shape)) for i in (0, 1))
    position = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(1, *shape)
    h = (position * jnp.uint32(0x9E3779B9)) ^ high
    for multiplier, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13), (0x27D4EB2F, 15)):
        h = (h ^ (h >> jnp.uint32(shift)) ^ low) * jnp.uint32(multiplier)
    return h ^ (h >> jnp.uint32(16))
