"""xresnet1d of the PTB-XL benchmark (Strodthoff et al. 2021, IEEE JBHI 25(5), arXiv 2004.13701)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.encoder import Encoder, linear_head
from ecgjax.encoders.grid import Grid, halvings
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.pooling import max_pool
from ecgjax.encoders.token_pool import Pool
from ecgjax.settings.bounds import BelowOne, Count, Counts

_EXPANSION = 4


class ConvNorm(nnx.Module):
    """A convolution without bias, batch norm and, where `relu` is true, ReLU."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        kernel: int,
        stride: int = 1,
        relu: bool = True,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.conv = layers.conv(width_in, width, kernel=kernel, stride=stride, dtype=dtype, rngs=rngs)
        self.norm = layers.BatchNorm(width, dtype=dtype)
        self.relu = relu

    def __call__(self, x: Array, *, train: bool, valid: Array | None, skip: Array | None = None) -> Array:
        """Maps `[batch, time, width_in]` to `[batch, ceil(time / stride), width]`; see `Encoder.features`.

        `skip` is added before the ReLU.
        """
        x = self.conv(x)
        if not self.relu:
            return self.norm(x, train=train, valid=valid)
        return self.norm.rectified(x, train=train, valid=valid, skip=skip)


class Bottleneck(nnx.Module):
    """A block of 1×1, wide and 1×1 convolutions plus skip, ReLU.

    `width` is that of the inner convolutions, and the output has 4 · `width` channels. The skip averages pairs of
    samples where the block has stride 2, then widens with a 1×1 convolution where widths differ. The scale of the last
    normalisation begins at zero, so that a new block passes on its skip.

    References:
        He et al., Bag of Tricks for Image Classification with Convolutional Neural Networks, CVPR 2019.
    """

    def __init__(self, width_in: int, width: int, *, kernel: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        out = _EXPANSION * width
        self.reduce = ConvNorm(width_in, width, kernel=1, dtype=dtype, rngs=rngs)
        self.wide = ConvNorm(width, width, kernel=kernel, stride=stride, dtype=dtype, rngs=rngs)
        self.expand = ConvNorm(width, out, kernel=1, dtype=dtype, rngs=rngs)
        self.expand.norm.scale[...] = jnp.zeros_like(self.expand.norm.scale[...])
        self.stride, self.projects = stride, width_in != out
        if self.projects:
            self.skip = ConvNorm(width_in, out, kernel=1, relu=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, *, train: bool, valid: Array | None) -> Array:
        """Maps `[batch, time, width_in]` to `[batch, ceil(time / stride), 4 · width]`; see `Encoder.features`."""
        y = self.reduce(x, train=train, valid=valid)
        y = self.wide(y, train=train, valid=valid)
        if self.stride == 2:
            x = _average_pairs(x)
        if self.projects:
            x = self.skip(x, train=train, valid=valid)
        return self.expand(y, train=train, valid=valid, skip=x)


def _average_pairs(x: Array) -> Array:
    """Averages pairs of samples of `[batch, time, channel]`, which halves the time; an odd last sample stays."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0)), mode="edge")
    return x.reshape(x.shape[0], -1, 2, x.shape[2]).mean(2)


class XResNet1d(Encoder):
    """Network of a stem, four stages of bottlenecks, maximum and mean over time, and a linear head.

    The stem has three convolutions and a max-pool, and the head BN, dropout and a linear layer. The benchmark's
    one-dimensional form has the same width, 64, in all stages, 256 channels between blocks, kernel 5 in stem and
    blocks, and dropout .5 before the last layer. With 12 leads xresnet1d50, whose stages have (3, 4, 6, 3) blocks, has
    886,400 parameters before the head, and xresnet1d101, with (3, 4, 23, 3), has 1,804,672. The benchmark trains on
    2.5 s at 100 Hz.

    Args:
        num_leads: Number of channels of the input.
        num_blocks: Number of blocks of each stage.
        width: Number of channels inside a block, a quarter of those between blocks.
        stem_widths: Numbers of channels of the stem's three convolutions.
        kernel: Length of the convolutions' kernels, in samples.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of an embedding.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, the two poolings side by side.
    """

    pool = Pool("max and mean")

    def __init__(
        self,
        *,
        num_leads: Count = 12,
        num_blocks: Counts = (3, 4, 6, 3),
        width: Count = 64,
        stem_widths: Counts = (32, 32, 64),
        kernel: Count = 5,
        dropout: BelowOne = 0.5,
        embedding_dim: Count = 128,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem = nnx.List(
            ConvNorm(width_in, width_out, kernel=kernel, stride=2 if i == 0 else 1, dtype=dtype, rngs=rngs)
            for i, (width_in, width_out) in enumerate(zip((num_leads, *stem_widths), stem_widths, strict=False))
        )
        blocks, width_in = [], stem_widths[-1]
        for stage, number in enumerate(num_blocks):
            for block in range(number):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Bottleneck(width_in, width, kernel=kernel, stride=stride, dtype=dtype, rngs=rngs))
                width_in = _EXPANSION * width
        self.blocks = nnx.List(blocks)
        self.head_norm = layers.BatchNorm(2 * width_in, dtype=jnp.float32)
        self.head = linear_head(2 * width_in, embedding_dim, rngs=rngs)
        self.num_stages, self.dropout, self.dtype = len(num_blocks), dropout, dtype
        self.feature_dim, self.embedding_dim = 2 * width_in, embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations after the stem and every stage; arguments are those of `Encoder.maps`.

        `keys` make no difference here, because only the head has dropout.
        """
        del keys
        x = layers.cast_ecg(ecg, self.dtype)
        for conv in self.stem:
            x = conv(x, train=train, valid=valid)
        maps = [x]
        x = max_pool(x, window=3, stride=2, padding=(1, 1))
        for block in self.blocks:
            if block.stride > 1:
                maps.append(x)
            x = block(x, train=train, valid=valid)
        return [*maps, x]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time (and leads) of each of `maps`; `num_samples` is that of the recordings."""
        return halvings(num_samples, 1 + self.num_stages)

    def with_features(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns embeddings and features; arguments are those of `features`, `keys` for the dropout of the head."""
        features = self.features(ecg, train=train, keys=keys, valid=valid)
        x = self.head_norm(features[:, None, :], train=train, valid=valid)[:, 0]
        return self.head(layers.row_dropout(x, keys, self.dropout)), features
