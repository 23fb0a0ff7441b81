"""ResNet-18 over time, the encoder of Jeong, Stultz & Ghassemi 2023 (MLHC, arXiv 2308.04650)."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.encoder import Encoder, linear_head
from ecgjax.encoders.grid import Grid, halvings
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.pooling import max_pool
from ecgjax.keys import split_rows
from ecgjax.settings.bounds import BelowOne, Count, Counts

_BLOCKS_A_STAGE = 2


class BasicBlock(nnx.Module):
    """A block of conv-BN-ReLU-dropout-conv-BN plus skip, ReLU; where shapes differ the skip is a 1×1 conv and BN."""

    def __init__(
        self, width_in: int, width: int, *, kernel: int, stride: int, dropout: float, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.conv1 = layers.conv(width_in, width, kernel=kernel, stride=stride, dtype=dtype, rngs=rngs)
        self.norm1 = layers.BatchNorm(width, dtype=dtype)
        self.conv2 = layers.conv(width, width, kernel=kernel, dtype=dtype, rngs=rngs)
        self.norm2 = layers.BatchNorm(width, dtype=dtype)
        self.projects = stride != 1 or width_in != width
        if self.projects:
            self.skip_conv = layers.conv(width_in, width, kernel=1, stride=stride, dtype=dtype, rngs=rngs)
            self.skip_norm = layers.BatchNorm(width, dtype=dtype)
        self.stride, self.dropout = stride, dropout

    def __call__(self, x: Array, *, train: bool, keys: Array | None, valid: Array | None) -> Array:
        """Maps `[batch, time, width_in]` to `[batch, ceil(time / stride), width]`; see `Encoder.features`."""
        y = self.norm1.rectified(self.conv1(x), train=train, valid=valid)
        y = layers.row_dropout(y, keys, self.dropout)
        if self.projects:
            x = self.skip_norm(self.skip_conv(x), train=train, valid=valid)
        return self.norm2.rectified(self.conv2(y), train=train, valid=valid, skip=x)


def residual_stages(
    widths: Sequence[int],
    num_blocks: Sequence[int],
    *,
    kernel: int,
    dropout: float,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> nnx.List[BasicBlock]:
    """Returns the blocks of all stages, of which each but the first halves the time.

    Args:
        widths: Number of channels of each stage; the first stage also takes as many.
        num_blocks: Number of blocks of each stage.
        kernel: Length of the convolutions' kernels, in samples.
        dropout: Share of the activations that dropout takes.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.
    """
    blocks, width_in = [], widths[0]
    for stage, (width, number) in enumerate(zip(widths, num_blocks, strict=True)):
        for block in range(number):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(
                BasicBlock(width_in, width, kernel=kernel, stride=stride, dropout=dropout, dtype=dtype, rngs=rngs)
            )
            width_in = width
    return nnx.List(blocks)


def stage_maps(
    blocks: nnx.List[BasicBlock], x: Array, *, train: bool, keys: Array | None, valid: Array | None
) -> list[Array]:
    """Returns the activations after every stage of `residual_stages`, each `[batch, time, channel]`.

    Args:
        blocks: Blocks of all stages.
        x: Activations that the first stage takes, `[batch, time, channel]`.
        train: Whether batch norm takes the batch's statistics.
        keys: Random key of each row for dropout; None switches dropout off.
        valid: Mask of the rows that make up the statistics; None for all.
    """
    maps = []
    block_keys = None if keys is None else split_rows(keys, len(blocks))
    for i, block in enumerate(blocks):
        if block.stride > 1:
            maps.append(x)
        x = block(x, train=train, keys=None if block_keys is None else block_keys[:, i], valid=valid)
    return [*maps, x]


class ResNet18(Encoder):
    """Network of a stem, four stages of two basic blocks, a global average pool and a linear layer.

    The stem is conv k15 s2, BN, ReLU and max-pool. `widths` are the channels of the four stages, and `kernel` is that
    of the blocks. In Jeong et al. 2023 the network has widths 64/128/256/512, kernel 7, dropout .2, 12 leads and an
    embedding of 128: 8.74 M parameters before the last layer. There is no projection head and no normalisation of the
    output.

    Args:
        num_leads: Number of channels of the input.
        widths: Numbers of channels of the layers or stages, from the first to the last.
        kernel: Length of the convolutions' kernels, in samples.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of an embedding.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, the pooled activations before the last layer.
    """

    def __init__(
        self,
        *,
        num_leads: Count = 12,
        widths: Counts = (64, 128, 256, 512),
        kernel: Count = 7,
        dropout: BelowOne = 0.2,
        embedding_dim: Count = 128,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem_conv = layers.conv(num_leads, widths[0], kernel=15, stride=2, dtype=dtype, rngs=rngs)
        self.stem_norm = layers.BatchNorm(widths[0], dtype=dtype)
        self.blocks = residual_stages(
            widths, [_BLOCKS_A_STAGE] * len(widths), kernel=kernel, dropout=dropout, dtype=dtype, rngs=rngs
        )
        self.head = linear_head(widths[-1], embedding_dim, rngs=rngs)
        self.dtype = dtype
        self.feature_dim = widths[-1]
        self.embedding_dim = embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations after the stem and every stage; arguments are those of `Encoder.maps`."""
        x = self.stem_conv(layers.cast_ecg(ecg, self.dtype))
        stem = self.stem_norm.rectified(x, train=train, valid=valid)
        x = max_pool(stem, window=3, stride=2, padding=(1, 1))
        return [stem, *stage_maps(self.blocks, x, train=train, keys=keys, valid=valid)]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time (and leads) of each of `maps`; `num_samples` is that of the recordings."""
        return halvings(num_samples, 1 + len(self.blocks) // _BLOCKS_A_STAGE)
