"""Base class of encoders: features, which probes use, and a head that makes the embeddings an objective compares."""

from __future__ import annotations

from flax import nnx
from jax import Array

from ecgjax.encoders import layers


class Encoder(nnx.Module):
    """An encoder of `f32[batch, time, lead]` in mV.

    A subclass defines `features` and `head`, and a `project` of its own where the head is more than one layer. With a
    decoder it also defines `reconstruct`.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, as `features` returns them.
        head: Last layer or layers, which make embeddings of features.
        lead_groups: Number of embeddings of each record: 1, or one of every lead or stream of leads.
        dtype: Type that is computed in.
    """

    embedding_dim: int
    feature_dim: int
    head: nnx.Linear | nnx.List[nnx.Linear]
    lead_groups: int = 1

    def features(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns the pooled activations before the head, which probes use.

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
        raise NotImplementedError(type(self).__name__)

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

    def __call__(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns embeddings, `f32[batch, embedding_dim]`; arguments are those of `features`.

        With several groups of leads the embeddings are `f32[batch, lead_groups, embedding_dim]`.
        """
        return self.project(self.features(ecg, train=train, keys=keys, valid=valid))


def linear_head(dim: int, embedding_dim: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a linear layer in float32, whatever type is computed in."""
    return nnx.Linear(dim, embedding_dim, dtype=layers.PARAM_DTYPE, param_dtype=layers.PARAM_DTYPE, rngs=rngs)
