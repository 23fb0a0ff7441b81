"""Pieces that several encoders share."""

from __future__ import annotations

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
        rate: share dropped, in [0, 1); realised to 1/65,536.

    Returns:
        `x` with dropped elements zero and the rest scaled by 1 / (1 − rate).
    """
    if keys is None or rate == 0.0:
        return x
    # 16 random bits an element halve the generator's work against 32; the keep probability used is the exact one.
    threshold = round(rate * 65536)
    draw = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint16))(keys)
    scale = jnp.asarray(65536 / (65536 - threshold), x.dtype)
    return jnp.where(draw >= threshold, x * scale, jnp.zeros((), x.dtype))
