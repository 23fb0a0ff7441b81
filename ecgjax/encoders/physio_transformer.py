"""Transformer on a convolutional stem, with an optional decoder: the encoder of Maghsoodi et al. 2025 (PhysioCLR)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.encoder import Encoder, linear_head
from ecgjax.encoders.grid import Grid, patches
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.convolutions import DoublingConv, grouped_conv
from ecgjax.encoders.operations.gradient_sums import Linear, spread
from ecgjax.encoders.transformer import INIT_STD, KERNEL_INIT, Blocks, LayerNorm, pad_to_multiple
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows
from ecgjax.settings.bounds import BelowOne, Count, Counts

_NUM_HALVINGS = 4
_STRIDE = 2**_NUM_HALVINGS


class ConvStem(nnx.Module):
    """Four convolutions of kernel 2 and stride 2, each with GELU; the first has a group norm with one channel a group.

    Such a convolution is a matrix product on pairs of samples, and is written as one.
    """

    def __init__(self, num_leads: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.convs = nnx.List(
            Linear(
                2 * (width if i else num_leads),
                width,
                use_bias=False,
                kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
                dtype=dtype,
                param_dtype=layers.PARAM_DTYPE,
                rngs=rngs,
            )
            for i in range(_NUM_HALVINGS)
        )
        self.norm = ChannelNorm(width, dtype=dtype)

    def __call__(self, x: Array) -> Array:
        """Maps `[batch, time, num_leads]`, a time divisible by 16, to `[batch, time / 16, width]`."""
        return self.maps(x)[-1]

    def maps(self, x: Array) -> list[Array]:
        """Returns the activations of each convolution, `[batch, time / 2, width]` to `[batch, time / 16, width]`."""
        maps = []
        for i, conv in enumerate(self.convs):
            x = conv(x.reshape(x.shape[0], -1, 2 * x.shape[2]))
            x = layers.gelu(x if i else self.norm(x))
            maps.append(x)
        return maps


class ChannelNorm(nnx.Module):
    """Normalises each channel of each row by its own mean and variance over time, in float32.

    References:
        Wu and He, Group Normalization, ECCV 2018, with as many groups as channels.
    """

    def __init__(self, width: int, *, dtype: jnp.dtype, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones((width,), layers.PARAM_DTYPE))
        self.bias = nnx.Param(jnp.zeros((width,), layers.PARAM_DTYPE))
        self.dtype, self.epsilon = dtype, epsilon

    def __call__(self, x: Array) -> Array:
        """Maps `[batch, time, width]` to the same shape."""
        x = x.astype(layers.PARAM_DTYPE)
        x = x - x.mean(1, keepdims=True)
        x = x * jax.lax.rsqrt((x * x).mean(1, keepdims=True) + jnp.float32(self.epsilon))
        return (x * self.scale[...][None, None, :] + self.bias[...][None, None, :]).astype(self.dtype)


class ConvPositions(nnx.Module):
    """Encoding of positions relative to neighbouring tokens: a wide grouped convolution with weight norm, and GELU.

    References:
        Baevski et al., wav2vec 2.0, NeurIPS 2020. Salimans and Kingma, Weight Normalization, NeurIPS 2016.
    """

    def __init__(self, dim: int, *, kernel: int, groups: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        if dim % groups:
            raise ConfigError(f"config.encoder.dim={dim} does not divide into config.encoder.position_groups={groups}")
        init = nnx.initializers.normal((4 / (kernel * dim)) ** 0.5)
        self.direction = nnx.Param(init(rngs.params(), (kernel, dim // groups, dim), layers.PARAM_DTYPE))
        self.length = nnx.Param(_length(self.direction[...]))
        self.bias = nnx.Param(jnp.zeros((dim,), layers.PARAM_DTYPE))
        self.kernel, self.groups, self.dtype = kernel, groups, dtype

    def __call__(self, x: Array) -> Array:
        """Maps `[batch, token, dim]` to the same shape, to be added to it."""
        direction = self.direction[...]
        weight = direction * (self.length[...] / _length(direction))[:, None, None]
        padding = (self.kernel // 2, (self.kernel - 1) // 2)
        y = grouped_conv(x, weight, groups=self.groups, padding=padding)
        bias = spread(self.bias[...][None, None, :], shape=y.shape, dtype=self.dtype)
        return layers.gelu(y + bias)


def _length(weight: Array) -> Array:
    """Returns the Euclidean length of the weights at each position of a kernel, `[kernel, in, out]` → `f32[kernel]`."""
    return jnp.sqrt((weight * weight).sum((1, 2)))


class Decoder(nnx.Module):
    """Decoder of a transposed convolution with GELU for each convolution of the stem, and a last convolution to leads.

    The transposed convolutions have kernel 4, stride 2 and `widths` channels. PhysioCLR's code has two of them, of
    widths 256 and 128, which undo a quarter of the stem's stride of 16. The two that are missing are given the second's
    width.
    """

    def __init__(self, dim: int, num_leads: int, *, widths: Sequence[int], dtype: jnp.dtype, rngs: nnx.Rngs):
        if len(widths) != _NUM_HALVINGS:
            raise ConfigError(f"config.encoder.decoder_widths={tuple(widths)} must be {_NUM_HALVINGS}, one a doubling")
        self.convs = nnx.List(
            DoublingConv(
                width_in,
                width,
                kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
                dtype=dtype,
                rngs=rngs,
            )
            for width_in, width in zip((dim, *widths), widths, strict=False)
        )
        self.last = layers.conv(widths[-1], num_leads, kernel=3, dtype=dtype, rngs=rngs)
        # Biases are added here, because a bias inside of flax's convolutions broadcasts over an axis that it does not
        # name.
        self.biases = nnx.List(nnx.Param(jnp.zeros((width,), layers.PARAM_DTYPE)) for width in (*widths, num_leads))
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """Maps `[batch, token, dim]` to `f32[batch, 16 · token, num_leads]`."""
        *inner, last = self.biases
        for conv, bias in zip(self.convs, inner, strict=True):
            x = layers.gelu(self._shifted(conv(x), bias))
        return self._shifted(self.last(x), last).astype(jnp.float32)

    def _shifted(self, x: Array, bias: nnx.Param) -> Array:
        return x + spread(bias[...][None, None, :], shape=x.shape, dtype=self.dtype)


class PhysioTransformer(Encoder):
    """Transformer on a convolutional stem of stride 16, with convolutional positions and the mean over its tokens.

    The stem is followed by a projection, the convolutional positions and a post-norm transformer. The published form is
    wav2vec 2.0 in fairseq-signals' version for ECGs: 256 channels, 12 layers of 768 channels and 3,072 hidden ones,
    dropout .1. Its authors' configuration has 8 heads, fairseq-signals 12; the parameters are the same.

    This implementation differs in four points. Attention weights are not dropped, because fused attention cannot do so
    with a mask that depends on the row's key alone. Keys have no bias (`SelfAttention`). Lengths that 16 does not
    divide have their last sample repeated instead of being cut. The embedding is made from all tokens and not from the
    first one.

    The group norm of the first convolution removes each channel's mean and its deviation over the recording. So
    no later layer has the amplitude of a recording: neither a probe for voltage criteria nor a reconstruction in mV can
    work.

    Args:
        num_leads: Number of channels of the input.
        stem_width: Number of channels of the stem's convolutions.
        dim: Width of the tokens, in channels.
        depth: Number of transformer blocks.
        num_heads: Number of heads of every attention.
        hidden_dim: Width of the hidden layer of a block's perceptron, in channels.
        position_kernel: Length of the convolution that encodes positions, in tokens.
        position_groups: Number of groups of channels of the convolution that encodes positions.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of an embedding.
        decoder: Whether there is a decoder, which reconstruction trains.
        decoder_widths: Numbers of channels of the decoder's layers.
        remat: Whether a block is computed again for the gradient, which takes less memory and more time.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, the mean over the tokens before the last layer.

    References:
        Maghsoodi et al., PhysioCLR, arXiv 2509.08116. Oh et al., Lead-agnostic Self-supervised Learning for Local and
        Global Representations of Electrocardiogram (fairseq-signals), CHIL 2022.
    """

    def __init__(
        self,
        *,
        num_leads: Count = 12,
        stem_width: Count = 256,
        dim: Count = 768,
        depth: Count = 12,
        num_heads: Count = 12,
        hidden_dim: Count = 3072,
        position_kernel: Count = 128,
        position_groups: Count = 16,
        dropout: BelowOne = 0.1,
        embedding_dim: Count = 128,
        decoder: bool = False,
        decoder_widths: Counts = (256, 128, 128, 128),
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem = ConvStem(num_leads, stem_width, dtype=dtype, rngs=rngs)
        self.stem_norm = LayerNorm(stem_width, use_bias=True, dtype=dtype)
        self.token_projection = Linear(
            stem_width, dim, kernel_init=KERNEL_INIT, dtype=dtype, param_dtype=layers.PARAM_DTYPE, rngs=rngs
        )
        self.positions = ConvPositions(dim, kernel=position_kernel, groups=position_groups, dtype=dtype, rngs=rngs)
        self.token_norm = LayerNorm(dim, use_bias=True, dtype=dtype)
        self.blocks = Blocks(
            depth,
            dim=dim,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            norm_first=False,
            use_bias=True,
            residual_std=INIT_STD,
            dropout=dropout,
            remat=remat,
            dtype=dtype,
            rngs=rngs,
        )
        self.head = linear_head(dim, embedding_dim, rngs=rngs)
        self.has_decoder = decoder
        if decoder:
            self.decoder = Decoder(dim, num_leads, widths=decoder_widths, dtype=dtype, rngs=rngs)
        self.dropout, self.dtype = dropout, dtype
        self.feature_dim, self.embedding_dim = dim, embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations of the stem's first three convolutions, and the last layer's tokens.

        Arguments are those of `Encoder.maps`.

        Neither `train` nor `valid` makes a difference: nothing is normalised by the batch.
        """
        del train, valid
        input_keys, sum_keys, block_keys = (None,) * 3 if keys is None else split_rows(keys, 3).T
        *finer, x = self.stem.maps(pad_to_multiple(layers.cast_ecg(ecg, self.dtype), _STRIDE))
        x = self.token_projection(self.stem_norm(x))
        x = layers.row_dropout(x, input_keys, self.dropout)
        x = layers.row_dropout(self.token_norm(x + self.positions(x)), sum_keys, self.dropout)
        return [*finer, self.blocks(x, block_keys)]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time of each of `maps`; the convolution that encodes positions does not count."""
        padded = patches(num_samples, _STRIDE).number * _STRIDE
        return [patches(padded, 2 ** (i + 1)) for i in range(_NUM_HALVINGS)]

    def reconstruct(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns embeddings and reconstructed signals, both of the same tokens; arguments are those of `features`.

        Returns:
            Embeddings, `f32[batch, embedding_dim]`, and signals, `f32[batch, time, num_leads]`, of the length of the
            input.

        Raises:
            ConfigError: The encoder was made without a decoder.
        """
        if not self.has_decoder:
            raise ConfigError("config.encoder.decoder is False: set it to True to reconstruct signals")
        tokens = self.maps(ecg, train=train, keys=keys, valid=valid)[-1]
        return self.head(self.pool(tokens.astype(jnp.float32))), self.decoder(tokens)[:, : ecg.shape[1]]
