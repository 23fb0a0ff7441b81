"""Self-attention between the tokens of a record."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.gradient_sums import Linear, spread
from ecgjax.encoders.layers import PARAM_DTYPE
from ecgjax.encoders.portability import is_portable
from ecgjax.errors import ConfigError
from ecgjax.placement.target import target_device

#: Least compute capability and greatest size of a head that cuDNN's flash attention takes
#: (https://docs.nvidia.com/deeplearning/cudnn, scaled dot product attention).
_CUDNN_CAPABILITY = 8.0
_CUDNN_HEAD_DIM = 128


class SelfAttention(nnx.Module):
    """Scaled dot-product attention of all tokens to all, in several heads.

    Queries, keys and values come from one product. Keys have no bias: it would add the same to all scores of a query,
    which the softmax cancels, so that its gradient would be noise.

    Args:
        dim: Width of the tokens, in channels.
        num_heads: Number of heads, which must divide `dim`.
        use_bias: Whether queries, values and output have a bias.
        kernel_init: Initialisation of the product that makes queries, keys and values.
        out_init: Initialisation of the product that makes the output.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Raises:
        ConfigError: `num_heads` does not divide `dim`.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        use_bias: bool,
        kernel_init: nnx.Initializer,
        out_init: nnx.Initializer,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        if dim % num_heads:
            raise ConfigError(f"config.encoder.dim={dim} does not divide into config.encoder.num_heads={num_heads}")
        self.qkv = Linear(
            dim, 3 * dim, use_bias=False, kernel_init=kernel_init, dtype=dtype, param_dtype=PARAM_DTYPE, rngs=rngs
        )
        self.out = Linear(
            dim, dim, use_bias=use_bias, kernel_init=out_init, dtype=dtype, param_dtype=PARAM_DTYPE, rngs=rngs
        )
        self.num_heads, self.head_dim, self.use_bias, self.dtype = num_heads, dim // num_heads, use_bias, dtype
        if use_bias:
            self.query_bias = nnx.Param(jnp.zeros((dim,), PARAM_DTYPE))
            self.value_bias = nnx.Param(jnp.zeros((dim,), PARAM_DTYPE))

    def __call__(self, x: Array) -> Array:
        """Maps `[batch, token, dim]` to the same shape, in the compute type."""
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dim)
        query, key, value = (qkv[:, :, i] for i in range(3))
        if self.use_bias:
            query = query + self._by_head(self.query_bias, query)
            value = value + self._by_head(self.value_bias, value)
        implementation: Literal["cudnn", "xla"] = "xla"
        if not is_portable():
            implementation = _implementation(target_device(), self.dtype, self.head_dim)
        # JAX's own code mixes types here: the scores of bf16 queries are float32.
        with jax.numpy_dtype_promotion("standard"):
            mixed = jax.nn.dot_product_attention(query, key, value, implementation=implementation)
        return self.out(mixed.reshape(x.shape))

    def _by_head(self, bias: nnx.Param, like: Array) -> Array:
        by_head = bias[...].reshape(1, 1, self.num_heads, self.head_dim)
        return spread(by_head, shape=like.shape, dtype=self.dtype)


def _implementation(device: jax.Device, dtype: jnp.dtype, head_dim: int) -> Literal["cudnn", "xla"]:
    """Returns `"cudnn"`, the fused kernel, where device, type and head size allow it; JAX itself never chooses it."""
    nvidia = device.platform == "gpu" and device.device_kind.startswith("NVIDIA")
    if not nvidia or float(device.compute_capability) < _CUDNN_CAPABILITY:
        return "xla"
    fits = dtype == jnp.bfloat16 and head_dim % 8 == 0 and head_dim <= _CUDNN_HEAD_DIM
    return "cudnn" if fits else "xla"
