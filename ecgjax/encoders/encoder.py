"""Base class of encoders, which make tokens, pool them to the features that probes use, and embed these by a head."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ecgjax.encoders.grid import FeatureMap, Grid
from ecgjax.encoders.operations import layers
from ecgjax.encoders.token_pool import Pool


class Encoder(nnx.Module):
    """An encoder of `f32[batch, time, lead]` in mV.

    A subclass defines `maps`, `grids` and `head`, and a `project` of its own where the head is more than one layer, or
    `with_features` where embeddings take more than the features. With a decoder it also defines `reconstruct`.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, as `features` returns them.
        pool: Pooling of tokens to features; `str(pool)` describes it in words.
        head: Last layer or layers, which make embeddings of features.
        lead_groups: Number of embeddings of each record: 1, or one of every lead or stream of leads.
        dtype: Type that is computed in.
    """

    embedding_dim: int
    feature_dim: int
    pool: Pool = Pool("mean")
    head: nnx.Linear | nnx.List[nnx.Linear]
    lead_groups: int = 1

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the last activations at every stride, from the finest to the tokens.

        Arguments are those of `features`.

        Returns:
            Activations, each `[batch, positions, width]` in the type that is computed in; `grids` tells time and lead
            of each position.
        """
        raise NotImplementedError(type(self).__name__)

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time (and leads) of each of `maps`, for recordings of `num_samples` samples."""
        raise NotImplementedError(type(self).__name__)

    def feature_maps(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> list[FeatureMap]:
        """Returns the last activations at every stride, from the finest to the tokens, with their positions.

        Arguments are those of `features`.
        """
        maps = self.maps(ecg, train=train, keys=keys, valid=valid)
        return [FeatureMap(*pair) for pair in zip(maps, self.grids(ecg.shape[1]), strict=True)]

    def tokens(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns the activations that the pool makes features of, `f32[batch, tokens, dim]`.

        Arguments are those of `features`.
        """
        return self.maps(ecg, train=train, keys=keys, valid=valid)[-1].astype(jnp.float32)

    def token_times(self, num_samples: int, *, rate_hz: float) -> np.ndarray:
        """Returns the time at the centre of the samples that each token sees, `f32[tokens]`, in seconds.

        Attention, and normalisation by the whole recording, do not count. Sample `k` lasts from `k` to `k + 1` sampling
        intervals, so that a patch of the first 50 samples at 500 Hz has its centre at 0.05 s.

        Args:
            num_samples: Number of samples of the recordings.
            rate_hz: Samples a second of the recordings.
        """
        return self.grids(num_samples)[-1].times(rate_hz=rate_hz)

    def token_mask(self, num_samples: int, *, recorded: Array) -> Array:
        """Returns which tokens stand for a part of the recording, and not for its padding alone: `bool[batch, tokens]`.

        Args:
            num_samples: Number of samples of the recordings, with their padding.
            recorded: Number of samples of each row before the padding at its end, `i32[batch]`.
        """
        return self.grids(num_samples)[-1].mask(recorded)

    def token_leads(self, num_samples: int) -> np.ndarray | None:
        """Returns the lead that each token sees, `i32[tokens]`; None where tokens see all leads."""
        return self.grids(num_samples)[-1].lead_of_places()

    def features(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns the pooled tokens, the activations before the head, which probes use.

        Args:
            ecg: Recordings, `f32[batch, time, num_leads]`, in mV.
            train: Whether the batch's statistics are used and the running ones updated, instead of using the running
                ones.
            keys: Random key of each row for dropout, `key[batch]`; None switches dropout off.
            valid: Mask of the rows that hold a recording, `bool[batch]`; others stay out of the batch's statistics.
                None for all.

        Returns:
            Features, `f32[batch, feature_dim]`.
        """
        return self.pool(self.tokens(ecg, train=train, keys=keys, valid=valid))

    def project(self, features: Array) -> Array:
        """Applies the head: `f32[batch, feature_dim]` → `f32[batch, embedding_dim]`."""
        if not isinstance(self.head, nnx.Linear):
            raise NotImplementedError(type(self).__name__)
        return self.head(features)

    def reconstruct(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns embeddings and reconstructed signals, for encoders with a decoder; arguments are those of `features`.

        Returns:
            Embeddings, `f32[batch, embedding_dim]`, and signals, `f32[batch, time, num_leads]`.
        """
        raise NotImplementedError(type(self).__name__)

    def with_features(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns the embeddings and the features that they are made of; arguments are those of `features`.

        Returns:
            Embeddings, `f32[batch, embedding_dim]` or, with several groups of leads, `f32[batch, lead_groups,
            embedding_dim]`, and features, `f32[batch, feature_dim]`.
        """
        features = self.features(ecg, train=train, keys=keys, valid=valid)
        return self.project(features), features

    def __call__(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns the embeddings of `with_features`, whose arguments it takes."""
        return self.with_features(ecg, train=train, keys=keys, valid=valid)[0]


def linear_head(dim: int, embedding_dim: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a linear layer from `dim` to `embedding_dim`, which computes in float32 whatever the encoder's type."""
    return nnx.Linear(dim, embedding_dim, dtype=layers.PARAM_DTYPE, param_dtype=layers.PARAM_DTYPE, rngs=rngs)
