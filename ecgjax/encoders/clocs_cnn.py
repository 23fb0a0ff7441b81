"""The convolutional network of CLOCS (Kiyasseh, Zhu & Clifton 2021, ICML, arXiv 2005.13249)."""

from __future__ import annotations

import itertools
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.encoder import Encoder, linear_head
from ecgjax.encoders.grid import Grid, resampled
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.pooling import max_pool
from ecgjax.encoders.token_pool import Pool
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows
from ecgjax.settings.bounds import ZERO_OR_MORE, BelowOne, Count, Counts

KERNEL, STRIDE, POOL = 7, 3, 2


class ClocsCNN(Encoder):
    """Network of three convolutional blocks and one linear layer over the activations at all positions in time.

    A block is conv k7 s3 (unpadded), BN, ReLU, max-pool 2 and dropout after the pooling. In CLOCS the network has one
    channel, widths 4 / 16 / 32, dropout .1 and 2,500 samples, five seconds at 500 Hz. The blocks' output has ten
    positions of 32 channels. The linear layer takes these concatenated, and has weights of its own for each position.
    That fixes the length, so that recordings of another length are interpolated. In CLOCS the network sees every lead
    by itself (`LeadWise`); with several channels it sees all leads at once.

    Args:
        num_leads: Number of channels of the input.
        widths: Numbers of channels of the layers or stages, from the first to the last.
        input_samples: Number of samples that recordings are interpolated to.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of an embedding, the size of the linear layer; the authors tried 32 to 320.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding, the size of the linear layer; the authors tried 32 to 320.
        feature_dim: Number of features, the activations that the linear layer takes.

    Raises:
        ConfigError: The convolutions leave nothing of so few samples.
    """

    pool = Pool("flatten")

    def __init__(
        self,
        *,
        num_leads: Count = 1,
        widths: Counts = (4, 16, 32),
        input_samples: Annotated[int, ZERO_OR_MORE] = 2500,
        dropout: BelowOne = 0.1,
        embedding_dim: Count = 128,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        places = input_samples
        for _ in widths:
            places = ((places - KERNEL) // STRIDE + 1) // POOL
        if places < 1:
            raise ConfigError(
                f"config.encoder.input_samples={input_samples}: too few for {len(widths)} convolutions of kernel "
                f"{KERNEL} and stride {STRIDE}, each with a pooling by {POOL}"
            )
        self.convs = nnx.List(
            layers.conv(a, b, kernel=KERNEL, stride=STRIDE, padding="VALID", dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise((num_leads, *widths))
        )
        self.norms = nnx.List(layers.BatchNorm(width, dtype=dtype) for width in widths)
        self.feature_dim = places * widths[-1]
        self.head = linear_head(self.feature_dim, embedding_dim, rngs=rngs)
        self.input_samples, self.dropout, self.dtype = input_samples, dropout, dtype
        self.embedding_dim = embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations before and after every pooling, in order; arguments are those of `Encoder.maps`."""
        x = layers.cast_ecg(ecg, self.dtype, num_samples=self.input_samples)
        layer_keys = None if keys is None else split_rows(keys, len(self.convs))
        maps = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = jax.nn.relu(norm(conv(x), train=train, valid=valid))
            maps.append(x)
            x = max_pool(x, window=POOL, stride=POOL)
            x = layers.row_dropout(x, None if layer_keys is None else layer_keys[:, i], self.dropout)
            maps.append(x)
        return maps

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time (and leads) of each of `maps`; `num_samples` is that of the recordings."""
        grids = [resampled(num_samples, self.input_samples)]
        for _ in self.convs:
            grids.append(grids[-1].windows(KERNEL, stride=STRIDE, padding="VALID"))
            grids.append(grids[-1].windows(POOL, stride=POOL, padding="VALID"))
        return grids[1:]
