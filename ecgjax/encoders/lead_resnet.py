"""Residual network that sees every lead by itself, with weights that all leads share, and embeds the recording.

It is ours and no published encoder. Leads are rows of the batch, so that a filter finds its wave in any lead, and each
layer is one convolution. No layer normalises a recording by itself: amplitudes stay those in mV. Unlike `LeadWise` it
makes one embedding of a recording, whose features are averages over leads.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.encoder import Encoder, linear_head
from ecgjax.encoders.grid import Grid
from ecgjax.encoders.lead_wise import leads_as_rows
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.pooling import max_pool
from ecgjax.encoders.resnet import residual_stages, stage_maps
from ecgjax.encoders.token_pool import Pool
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import BelowOne, Count, Counts

_KERNEL, _STRIDE, _POOL = 9, 2, 4


class LeadResNet(Encoder):
    """Network of a stem and stages of residual blocks on every lead, mean and deviation over time, and a linear layer.

    The stem is conv k9 s2, max-pool 4, BN and ReLU; BN stands behind the pooling, where it costs a quarter. The blocks
    are those of ResNet-18, and each stage but the first halves the time. The features are mean and standard deviation
    over time of the last activations of each lead, averaged over leads.

    Args:
        num_leads: Number of leads of a recording.
        widths: Numbers of channels of the layers or stages, from the first to the last.
        num_blocks: Number of blocks of each stage.
        kernel: Length of the convolutions' kernels, in samples.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of an embedding.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, mean and deviation side by side.

    Raises:
        ConfigError: `widths` and `num_blocks` have different numbers of stages.
    """

    def __init__(
        self,
        *,
        num_leads: Count = 12,
        widths: Counts = (64, 128, 256),
        num_blocks: Counts = (2, 2, 2),
        kernel: Count = 3,
        dropout: BelowOne = 0.2,
        embedding_dim: Count = 128,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if len(widths) != len(num_blocks):
            raise ConfigError(
                f"config.encoder.widths={tuple(widths)} and config.encoder.num_blocks={tuple(num_blocks)} must have "
                "one number for each stage, and so be equally many"
            )
        self.stem_conv = layers.conv(1, widths[0], kernel=_KERNEL, stride=_STRIDE, dtype=dtype, rngs=rngs)
        self.stem_norm = layers.BatchNorm(widths[0], dtype=dtype)
        self.blocks = residual_stages(widths, num_blocks, kernel=kernel, dropout=dropout, dtype=dtype, rngs=rngs)
        self.pool = Pool("mean and deviation", leads=num_leads)
        self.feature_dim = 2 * widths[-1]
        self.head = linear_head(self.feature_dim, embedding_dim, rngs=rngs)
        self.num_leads, self.dtype, self.embedding_dim = num_leads, dtype, embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations of every stage, each `[batch, lead · positions, width]`, one lead after the other.

        Arguments are those of `Encoder.maps`.
        """
        rows = leads_as_rows(ecg, keys, valid)
        x = max_pool(self.stem_conv(layers.cast_ecg(rows.ecg, self.dtype)), window=_POOL, stride=_POOL)
        x = self.stem_norm.rectified(x, train=train, valid=rows.valid)
        maps = stage_maps(self.blocks, x, train=train, keys=rows.keys, valid=rows.valid)
        return [x.reshape(ecg.shape[0], ecg.shape[2] * x.shape[1], x.shape[2]) for x in maps]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time and leads of each of `maps`; `num_samples` is that of the recordings."""
        stem = Grid(num_samples).windows(_KERNEL, stride=_STRIDE).windows(_POOL, stride=_POOL, padding="VALID")
        grids = [dataclasses.replace(stem, leads=tuple(range(self.num_leads)))]
        for block in self.blocks:
            if block.stride > 1:
                grids.append(grids[-1].windows(3, stride=2))  # Any odd length has the same grid.
        return grids
