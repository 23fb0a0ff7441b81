"""The residual network of PCLR (Diamant et al. 2022, PLOS Computational Biology, arXiv 2104.04569).

It is the network of Ribeiro et al. 2020 (Nature Communications 11:1760) with another kernel and other widths.
"""

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
from ecgjax.keys import split_rows
from ecgjax.settings.bounds import ZERO_OR_MORE, BelowOne, Count, Counts


class ResidualUnit(nnx.Module):
    """A unit with two paths: one that is normalised and activated, and a skip path of sums.

    The first path is conv-BN-ReLU-dropout-conv, whose second convolution is strided. The skip path is max-pooled by the
    stride and, where widths differ, taken through a 1×1 convolution. The sum of both goes on as the skip path, and
    through BN-ReLU-dropout as the first path.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        kernel: int,
        stride: int,
        dropout: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.conv1 = layers.conv(width_in, width, kernel=kernel, padding="SAME", dtype=dtype, rngs=rngs)
        self.norm1 = layers.BatchNorm(width, dtype=dtype)
        self.conv2 = layers.conv(width, width, kernel=kernel, stride=stride, padding="SAME", dtype=dtype, rngs=rngs)
        self.norm2 = layers.BatchNorm(width, dtype=dtype)
        self.projects = width_in != width
        if self.projects:
            self.skip_conv = layers.conv(width_in, width, kernel=1, dtype=dtype, rngs=rngs)
        self.stride, self.dropout = stride, dropout

    def __call__(
        self, x: Array, skip: Array, *, train: bool, keys: tuple[Array | None, Array | None], valid: Array | None
    ) -> tuple[Array, Array]:
        """Maps both paths, each `[batch, time, width_in]`, to `[batch, ceil(time / stride), width]`.

        Arguments are those of `Encoder.features`, with two `keys`, one for each dropout.
        """
        x = jax.nn.relu(self.norm1(self.conv1(x), train=train, valid=valid))
        x = self.conv2(layers.row_dropout(x, keys[0], self.dropout))
        skip = max_pool(skip, window=self.stride, stride=self.stride, padding="SAME")
        if self.projects:
            skip = self.skip_conv(skip)
        total = x + skip
        x = jax.nn.relu(self.norm2(total, train=train, valid=valid))
        return layers.row_dropout(x, keys[1], self.dropout), total


class PCLRResNet(Encoder):
    """Network of a stem, four residual units, a global average pool and a head.

    The stem is conv k16, BN and ReLU, and each unit divides the rate by four. The convolutions of the skips are 1×1,
    whatever `kernel` is. In PCLR the input is ten seconds of 12 leads, interpolated to 4,096 samples; the units reduce
    it to 1,024 / 256 / 64 / 16 samples of 128 / 196 / 256 / 320 channels. PCLR probes the 320 features; the head for
    pretraining is 320-ReLU-320. There are 6.39 M parameters before the head. Batch norm is this library's (ε 1e-5,
    momentum .9), not that of Keras.

    Args:
        num_leads: Number of channels of the input.
        widths: Numbers of channels of the layers or stages, from the first to the last.
        kernel: Length of the convolutions' kernels, in samples.
        input_samples: Number of samples that recordings are interpolated to, linearly as the authors do; 0 leaves their
            length.
        dropout: Share of the activations that dropout takes, inside and after every unit.
        embedding_dim: Dimension of an embedding.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, the pooled activations before the head.
    """

    def __init__(
        self,
        *,
        num_leads: Count = 12,
        widths: Counts = (64, 128, 196, 256, 320),
        kernel: Count = 16,
        input_samples: Annotated[int, ZERO_OR_MORE] = 4096,
        dropout: BelowOne = 0.0,
        embedding_dim: Count = 320,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem_conv = layers.conv(num_leads, widths[0], kernel=kernel, padding="SAME", dtype=dtype, rngs=rngs)
        self.stem_norm = layers.BatchNorm(widths[0], dtype=dtype)
        self.units = nnx.List(
            ResidualUnit(a, b, kernel=kernel, stride=4, dropout=dropout, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise(widths)
        )
        self.feature_dim = widths[-1]
        self.hidden, self.head = (
            linear_head(self.feature_dim, size, rngs=rngs) for size in (self.feature_dim, embedding_dim)
        )
        self.kernel, self.input_samples, self.dtype = kernel, input_samples, dtype
        self.embedding_dim = embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations after the stem and every unit; arguments are those of `Encoder.maps`."""
        x = self.stem_conv(layers.cast_ecg(ecg, self.dtype, num_samples=self.input_samples or None))
        x = skip = jax.nn.relu(self.stem_norm(x, train=train, valid=valid))
        unit_keys = None if keys is None else split_rows(keys, 2 * len(self.units))
        maps = [x]
        for i, unit in enumerate(self.units):
            pair = (None, None) if unit_keys is None else (unit_keys[:, 2 * i], unit_keys[:, 2 * i + 1])
            x, skip = unit(x, skip, train=train, keys=pair, valid=valid)
            maps.append(x)
        return maps

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time of each of `maps`; even kernels see one position more after than before."""
        grids = [resampled(num_samples, self.input_samples or num_samples).windows(self.kernel, padding="SAME")]
        for unit in self.units:
            first = grids[-1].windows(self.kernel, padding="SAME")
            grids.append(first.windows(self.kernel, stride=unit.stride, padding="SAME"))
        return grids

    def project(self, features: Array) -> Array:
        """Applies linear layer, ReLU and linear layer: `f32[batch, feature_dim]` → `f32[batch, embedding_dim]`."""
        return self.head(jax.nn.relu(self.hidden(features)))
