"""Self-attention between the tokens of a record."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.operations.gradient_sums import Linear, spread
from ecgjax.encoders.operations.layers import PARAM_DTYPE
from ecgjax.encoders.operations.portability import is_portable
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
        if not is_portable() and _is_fused(target_device(), self.dtype, self.head_dim):
            with jax.numpy_dtype_promotion("standard"):  # JAX's own code may mix types.
                mixed = jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
        else:
            mixed = attend(query, key, value)
        return self.out(mixed.reshape(x.shape))

    def _by_head(self, bias: nnx.Param, like: Array) -> Array:
        by_head = bias[...].reshape(1, 1, self.num_heads, self.head_dim)
        return spread(by_head, shape=like.shape, dtype=self.dtype)


def attend(query: Array, key: Array, value: Array) -> Array:
    """Returns the values of all tokens, weighted by the softmax of scaled inner products of queries and keys.

    The scores and their softmax are float32. All products, those of the backward pass too, multiply numbers of the type
    of the queries. JAX's own form multiplies the scores' float32 gradient with bf16 queries and keys, in float32.

    Args:
        query: Queries, `[batch, token, head, feature]`.
        key: Keys, of the same shape and type.
        value: Values, of the same shape and type.

    Returns:
        Weighted values, of the same shape and type.
    """
    scores = _scores(query, key) * jnp.float32(query.shape[3] ** -0.5)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    return jnp.einsum("bhts,bshf->bthf", weights, value)


@jax.custom_vjp
def _scores(query: Array, key: Array) -> Array:
    """Returns inner products of queries and keys, `f32[batch, head, query, key]`."""
    return jnp.einsum("bthf,bshf->bhts", query, key, preferred_element_type=jnp.float32)


def _scores_forward(query: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
    return _scores(query, key), (query, key)


def _scores_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    query, key = saved
    gradient = gradient.astype(query.dtype)
    return jnp.einsum("bhts,bshf->bthf", gradient, key), jnp.einsum("bhts,bthf->bshf", gradient, query)


_scores.defvjp(_scores_forward, _scores_backward)


def _is_fused(device: jax.Device, dtype: jnp.dtype, head_dim: int) -> bool:
    """Whether device, type and head size allow cuDNN's fused kernel, which JAX itself never chooses."""
    nvidia = device.platform == "gpu" and device.device_kind.startswith("NVIDIA")
    if not nvidia or float(device.compute_capability) < _CUDNN_CAPABILITY:
        return False
    return dtype == jnp.bfloat16 and head_dim % 8 == 0 and head_dim <= _CUDNN_HEAD_DIM
