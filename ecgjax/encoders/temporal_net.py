"""TemporalNet of Dade et al. 2026 (Heart Rhythm O2): one network for every lead, or one for each of two streams."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ecgjax.encoders.encoder import Encoder, linear_head
from ecgjax.encoders.grid import Grid
from ecgjax.encoders.lead_wise import LeadWise
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.pooling import max_pool
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows
from ecgjax.settings.bounds import BelowOne, Count, Counts

#: Number of leads → places of the leads of the two streams, {I, II, V5, V6} and {V1–V4}, among the 8 stored leads or
#: among all 12.
STREAMS = {8: ((0, 1, 6, 7), (2, 3, 4, 5)), 12: ((0, 1, 10, 11), (6, 7, 8, 9))}
_POOL = 4


class ResidualBlock(nnx.Module):
    """A block of conv-BN-ReLU-conv-BN-dropout plus skip, ReLU.

    The first convolution keeps its input's width, the second widens. The skip is a 1×1 convolution and BN where widths
    differ. Nothing is strided.
    """

    def __init__(self, width_in: int, width: int, *, kernel: int, dropout: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv1 = layers.conv(width_in, width_in, kernel=kernel, dtype=dtype, rngs=rngs)
        self.norm1 = layers.BatchNorm(width_in, dtype=dtype)
        self.conv2 = layers.conv(width_in, width, kernel=kernel, dtype=dtype, rngs=rngs)
        self.norm2 = layers.BatchNorm(width, dtype=dtype)
        self.projects = width_in != width
        if self.projects:
            self.skip_conv = layers.conv(width_in, width, kernel=1, dtype=dtype, rngs=rngs)
            self.skip_norm = layers.BatchNorm(width, dtype=dtype)
        self.dropout = dropout

    def __call__(self, x: Array, *, train: bool, keys: Array | None, valid: Array | None) -> Array:
        """Maps `[batch, time, width_in]` to `[batch, time, width]`; see `Encoder.features`."""
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train, valid=valid))
        y = layers.row_dropout(self.norm2(self.conv2(y), train=train, valid=valid), keys, self.dropout)
        if self.projects:
            x = self.skip_norm(self.skip_conv(x), train=train, valid=valid)
        return jax.nn.relu(x + y)


class TemporalNet(Encoder):
    """Network of a stem, two parallel branches of residual blocks at a quarter of the rate, and a merging convolution.

    The stem is conv k7, BN, ReLU and max-pool 4. The branches have kernels 3 and 7 and four blocks each. They are
    concatenated, and merged by conv k3, BN, dropout, ReLU and a global average pool. The head for pretraining has two
    linear layers without a nonlinearity. `widths` are the channels of the stem, and of each block of a branch; every
    block and the merge have dropout.

    In Dade et al. 2026 the network has one channel, widths 32 / 64 / 128 / 256 / 256, dropout .5, features of 512 and
    an embedding of 128 through 256: 2.84 M parameters before the head and 14 GMAC for eight leads of 2,500 samples. It
    sees every lead by itself (`LeadWise`).

    Args:
        num_leads: Number of channels of the input.
        widths: Numbers of channels of the layers or stages, from the first to the last.
        kernels: Lengths of the kernels of the parallel branches, in samples, one for each branch.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of an embedding.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, the pooled activations before the head.
    """

    head: nnx.List[nnx.Linear]

    def __init__(
        self,
        *,
        num_leads: Count = 1,
        widths: Counts = (32, 64, 128, 256, 256),
        kernels: Counts = (3, 7),
        dropout: BelowOne = 0.5,
        embedding_dim: Count = 128,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem_conv = layers.conv(num_leads, widths[0], kernel=7, dtype=dtype, rngs=rngs)
        self.stem_norm = layers.BatchNorm(widths[0], dtype=dtype)
        self.branches = nnx.List(
            nnx.List(
                ResidualBlock(a, b, kernel=kernel, dropout=dropout, dtype=dtype, rngs=rngs)
                for a, b in itertools.pairwise(widths)
            )
            for kernel in kernels
        )
        self.feature_dim = len(kernels) * widths[-1]
        self.merge_conv = layers.conv(self.feature_dim, self.feature_dim, kernel=3, dtype=dtype, rngs=rngs)
        self.merge_norm = layers.BatchNorm(self.feature_dim, dtype=dtype)
        hidden = self.feature_dim // 2
        self.head = nnx.List(
            linear_head(a, b, rngs=rngs) for a, b in ((self.feature_dim, hidden), (hidden, embedding_dim))
        )
        self.dropout, self.dtype = dropout, dtype
        self.embedding_dim = embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations of the stem and of the merge; arguments are those of `Encoder.maps`."""
        x = self.stem_conv(layers.cast_ecg(ecg, self.dtype))
        x = jax.nn.relu(self.stem_norm(x, train=train, valid=valid))
        stem = x
        x = max_pool(x, window=_POOL, stride=_POOL)
        num_blocks = sum(len(branch) for branch in self.branches)
        split = None if keys is None else split_rows(keys, num_blocks + 1)
        layer_keys = iter([None] * (num_blocks + 1) if split is None else jnp.unstack(split, axis=1))
        out = []
        for branch in self.branches:
            y = x
            for block in branch:
                y = block(y, train=train, keys=next(layer_keys), valid=valid)
            out.append(y)
        x = self.merge_norm(self.merge_conv(jnp.concatenate(out, axis=-1)), train=train, valid=valid)
        return [stem, jax.nn.relu(layers.row_dropout(x, next(layer_keys), self.dropout))]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time (and leads) of each of `maps`; `num_samples` is that of the recordings."""
        stem = Grid(num_samples)
        return [stem, stem.windows(_POOL, stride=_POOL, padding="VALID")]

    def project(self, features: Array) -> Array:
        """Applies two linear layers: `f32[batch, feature_dim]` → `f32[batch, embedding_dim]`."""
        for layer in self.head:
            features = layer(features)
        return features


class DualTemporalNet(Encoder):
    """Two TemporalNets, one for the stream of leads I, II, V5, V6 and one for V1–V4.

    Each network takes every lead of its stream by itself, and the stream's features are the mean over its leads. With
    twelve leads the four that follow from I and II are left out.

    Args:
        num_leads: Number of leads: 8 for the stored ones, or 12.
        widths: Numbers of channels of the layers of each stream, from the first to the last.
        kernels: Lengths of the kernels of the parallel branches, in samples, one for each branch.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of one stream's embedding.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of one stream's embedding.
        feature_dim: Number of features, the pooled activations.
        lead_groups: Number of streams, 2, each with an embedding of its own.

    Raises:
        ConfigError: The number of leads is neither 8 nor 12.
    """

    def __init__(
        self,
        *,
        num_leads: Count = 8,
        widths: Counts = (32, 64, 128, 256, 256),
        kernels: Counts = (3, 7),
        dropout: BelowOne = 0.5,
        embedding_dim: Count = 128,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_leads not in STREAMS:
            raise ConfigError(f"the two streams of TemporalNet are made of 8 or 12 leads, not of {num_leads}")
        self.stream_leads = STREAMS[num_leads]
        self.streams = nnx.List(
            LeadWise(
                TemporalNet(
                    widths=widths,
                    kernels=kernels,
                    dropout=dropout,
                    embedding_dim=embedding_dim,
                    dtype=dtype,
                    rngs=rngs,
                ),
                num_leads=len(leads),
            )
            for leads in self.stream_leads
        )
        self.embedding_dim, self.feature_dim = embedding_dim, self.streams[0].feature_dim
        self.lead_groups = len(self.streams)
        self.pool = dataclasses.replace(self.streams[0].pool, leads=sum(map(len, self.stream_leads)))

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations of all leads, those of the first stream before those of the second.

        Arguments are those of `Encoder.maps`.
        """
        of_streams = [
            stream.maps(part, train=train, keys=key, valid=valid) for stream, part, key in self._inputs(ecg, keys)
        ]
        return [jnp.concatenate(maps, axis=1) for maps in zip(*of_streams, strict=True)]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time (and leads) of each of `maps`; `num_samples` is that of the recordings."""
        leads = tuple(itertools.chain.from_iterable(self.stream_leads))
        return [dataclasses.replace(grid, leads=leads) for grid in self.streams[0].grids(num_samples)]

    def features(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns the mean of both streams' features, `f32[batch, feature_dim]`; arguments as in `Encoder.features`."""
        return jnp.mean(self._streams(ecg, train=train, keys=keys, valid=valid), axis=1)

    def with_features(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns embeddings of both streams, `f32[batch, 2, embedding_dim]`, and the features; see `Encoder`."""
        features = self._streams(ecg, train=train, keys=keys, valid=valid)
        out = jnp.stack([stream.encoder.project(features[:, i]) for i, stream in enumerate(self.streams)], axis=1)
        return out, jnp.mean(features, axis=1)

    def _streams(self, ecg: Array, *, train: bool, keys: Array | None, valid: Array | None) -> Array:
        """Returns each stream's activations, the mean of its leads, `f32[batch, 2, feature_dim]`."""
        out = [
            stream.features(part, train=train, keys=key, valid=valid) for stream, part, key in self._inputs(ecg, keys)
        ]
        return jnp.stack(out, axis=1)

    def _inputs(self, ecg: Array, keys: Array | None) -> Iterator[tuple[LeadWise, Array, Array | None]]:
        """Yields each stream's encoder, its leads, `f32[batch, time, 4]`, and its keys, `key[batch]` or None."""
        stream_keys = [None] * 2 if keys is None else jnp.unstack(split_rows(keys, 2), axis=1)
        for stream, leads, key in zip(self.streams, self.stream_leads, stream_keys, strict=True):
            yield stream, ecg[:, :, np.array(leads)], key
