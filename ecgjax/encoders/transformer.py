"""Transformer layers over the tokens of a record, their positions, and padding to whole tokens."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.operations.attention import SelfAttention
from ecgjax.encoders.operations.gradient_sums import Linear
from ecgjax.encoders.operations.layers import PARAM_DTYPE, gelu, row_dropout
from ecgjax.encoders.operations.portability import is_portable
from ecgjax.keys import split_rows
from ecgjax.placement.target import for_cpu

#: Initial deviation of weights, as in BERT and the vision transformers.
INIT_STD = 0.02
KERNEL_INIT = nnx.initializers.normal(INIT_STD)

#: Depth up to which a program for CPUs has every layer by itself. Eight layers took twice as long to compile as a loop,
#: and 4 to 18 % less for every step (docs/speed.md).
_MOST_ONE_BY_ONE = 8


class LayerNorm(nnx.Module):
    """Layer normalisation over the channels of each token, computed in float32.

    References:
        Ba, Kiros and Hinton, Layer Normalization, arXiv 1607.06450.
    """

    def __init__(self, dim: int, *, use_bias: bool, dtype: jnp.dtype, epsilon: float = 1e-6):
        self.scale = nnx.Param(jnp.ones((dim,), PARAM_DTYPE))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((dim,), PARAM_DTYPE))
        self.use_bias, self.dtype, self.epsilon = use_bias, dtype, epsilon

    def __call__(self, x: Array) -> Array:
        """Maps `[batch, token, dim]` of any type to the same shape in the compute type."""
        x = x.astype(PARAM_DTYPE)
        x = x - x.mean(-1, keepdims=True)
        y = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + jnp.float32(self.epsilon))
        y = y * self.scale[...][None, None, :]
        if self.use_bias:
            y = y + self.bias[...][None, None, :]
        return y.astype(self.dtype)


class Block(nnx.Module):
    """Self-attention and a two-layer perceptron with GELU, each with a skip, a normalisation and dropout.

    With `norm_first` the normalisation comes before attention and perceptron, and otherwise after the sum with the
    skip. `out_init` initialises the last linear layer before each sum.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        hidden_dim: int,
        norm_first: bool,
        use_bias: bool,
        out_init: nnx.Initializer,
        dropout: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        def linear(width_in: int, width: int, kernel_init: nnx.Initializer) -> Linear:
            return Linear(
                width_in,
                width,
                use_bias=use_bias,
                dtype=dtype,
                param_dtype=PARAM_DTYPE,
                kernel_init=kernel_init,
                rngs=rngs,
            )

        self.attention_norm = LayerNorm(dim, use_bias=use_bias, dtype=dtype)
        self.attention = SelfAttention(
            dim,
            num_heads=num_heads,
            use_bias=use_bias,
            kernel_init=KERNEL_INIT,
            out_init=out_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.mlp_norm = LayerNorm(dim, use_bias=use_bias, dtype=dtype)
        self.mlp_in = linear(dim, hidden_dim, KERNEL_INIT)
        self.mlp_out = linear(hidden_dim, dim, out_init)
        self.norm_first, self.dropout = norm_first, dropout

    def __call__(self, x: Array, keys: Array | None) -> Array:
        """Maps `[batch, token, dim]` to the same shape; `keys` are `key[batch]` for dropout, None without."""
        attention_keys, mlp_keys = (None, None) if keys is None else split_rows(keys, 2).T
        if self.norm_first:
            x = x + row_dropout(self.attention(self.attention_norm(x)), attention_keys, self.dropout)
            return x + row_dropout(self._mlp(self.mlp_norm(x)), mlp_keys, self.dropout)
        x = self.attention_norm(x + row_dropout(self.attention(x), attention_keys, self.dropout))
        return self.mlp_norm(x + row_dropout(self._mlp(x), mlp_keys, self.dropout))

    def _mlp(self, x: Array) -> Array:
        return self.mlp_out(gelu(self.mlp_in(x)))


class Blocks(nnx.Module):
    """A sequence of transformer blocks (layers), compiled once.

    Each parameter is one array over all layers, with the layer as first axis, and the forward pass scans over it.

    Args:
        depth: Number of layers.
        dim: Width of the tokens, in channels.
        num_heads: Number of heads of every attention.
        hidden_dim: Width of the hidden layer of a block's perceptron, in channels.
        norm_first: Whether normalisation stands before attention and perceptron, instead of after the sum with the
            skip.
        use_bias: Whether linear layers and normalisations have a bias.
        residual_std: Initial standard deviation of the last linear layer before each sum with a skip.
        dropout: Share of the activations that dropout sets to zero before each sum with a skip.
        remat: Whether each layer is computed again in the backward pass, which then keeps the layer's input alone.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.
    """

    def __init__(
        self,
        depth: int,
        *,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        norm_first: bool,
        use_bias: bool,
        residual_std: float,
        dropout: float,
        remat: bool,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        out_init = nnx.initializers.normal(residual_std)

        @nnx.split_rngs(splits=depth)
        @nnx.vmap
        def create(rngs: nnx.Rngs) -> Block:
            return Block(
                dim,
                num_heads=num_heads,
                hidden_dim=hidden_dim,
                norm_first=norm_first,
                use_bias=use_bias,
                out_init=out_init,
                dropout=dropout,
                dtype=dtype,
                rngs=rngs,
            )

        self.layers = create(rngs)
        self.depth, self.remat = depth, remat

    def __call__(self, x: Array, keys: Array | None) -> Array:
        """Maps `[batch, token, dim]` to the same shape; `keys` are `key[batch]` for dropout, None without."""
        graph, params = nnx.split(self.layers)

        def layer(x: Array, of_layer: tuple[nnx.State, Array | None]) -> tuple[Array, None]:
            params, keys = of_layer
            return nnx.merge(graph, params)(x, keys), None

        of_layers = params, None if keys is None else split_rows(keys, self.depth).T
        if self._one_by_one():
            if self.remat:
                layer = jax.checkpoint(layer)
            leaves, tree = jax.tree.flatten(of_layers)
            # The gradients of what is unstacked are put side by side; those of single places would be padded and added.
            for of_layer in zip(*map(jnp.unstack, leaves), strict=True):
                x, _ = layer(x, jax.tree.unflatten(tree, of_layer))
            return x
        if self.remat:
            # Inside a scan XLA cannot merge the forward with the backward pass anyway, so `prevent_cse` is not needed.
            layer = jax.checkpoint(layer, prevent_cse=False)
        return jax.lax.scan(layer, x, of_layers)[0]

    def _one_by_one(self) -> bool:
        """Whether layers are traced one after the other, instead of a loop over them.

        A loop writes what the backward pass needs into arrays over all layers, which are filled with zeros before. On
        CPUs, whose memory is slow, that took a tenth of a step (docs/speed.md). Deep networks would take long to
        compile.
        """
        return self.depth <= _MOST_ONE_BY_ONE and not is_portable() and for_cpu()


def pad_to_multiple(ecg: Array, multiple: int) -> Array:
    """Pads `[batch, time, lead]` at the end with its last sample until `multiple` divides the number of samples."""
    return jnp.pad(ecg, ((0, 0), (0, -ecg.shape[1] % multiple), (0, 0)), mode="edge")


def sincos_positions(num_tokens: int, dim: int) -> Array:
    """Returns sines (even channels) and cosines (odd) of each token's number, of wavelengths 2π to 20,000π tokens.

    Returns:
        Encodings, `f32[num_tokens, dim]`; `dim` must be even.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.5.
    """
    rate = jnp.exp(jnp.arange(0, dim, 2, dtype=jnp.float32) * jnp.float32(-math.log(10_000) / dim))
    angle = jnp.arange(num_tokens, dtype=jnp.float32)[:, None] * rate[None, :]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(num_tokens, dim)
