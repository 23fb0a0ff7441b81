"""What every encoder is: activations that probes use, and a head that gives what an objective compares."""

from __future__ import annotations

from flax import nnx
from jax import Array

from ecgjax.encoders import layers


class Encoder(nnx.Module):
    """An encoder of `f32[batch, time, lead]` in mV.

    A subclass has `features`, and `head`, or a `project` of its own where that is more than one layer; with a decoder
    it has `reconstruct`, too.

    Attributes:
        embedding_dim: size of an embedding.
        feature_dim: size of what `features` returns.
        head: last layer or layers, which make embeddings of features.
        lead_groups: embeddings of each record: 1, or one of every lead or stream of leads.
        dtype: compute type.
    """

    embedding_dim: int
    feature_dim: int
    head: nnx.Linear | nnx.List[nnx.Linear]
    lead_groups: int = 1

    def features(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Pooled activations before the head, which probes use.

        Args:
            ecg: `f32[batch, time, num_leads]`, mV.
            train: normalise by the batch (and update the running statistics) instead of by the running statistics.
            keys: `key[batch]` for dropout; None switches dropout off.
            valid: `bool[batch]`, rows that hold a recording; others stay out of the batch's statistics. None for all.

        Returns:
            `f32[batch, feature_dim]`.
        """
        raise NotImplementedError(type(self).__name__)

    def project(self, features: Array) -> Array:
        """The head: `f32[batch, feature_dim]` → `f32[batch, embedding_dim]`."""
        if not isinstance(self.head, nnx.Linear):
            raise NotImplementedError(type(self).__name__)
        return self.head(features)

    def reconstruct(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Embeddings and the signal again, of encoders with a decoder; arguments as for `features`.

        Returns:
            `f32[batch, embedding_dim]`, and `f32[batch, time, num_leads]`.
        """
        raise NotImplementedError(type(self).__name__)

    def __call__(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Embeddings, `f32[batch, embedding_dim]`; arguments as for `features`.

        Of several groups of leads `f32[batch, lead_groups, embedding_dim]`.
        """
        return self.project(self.features(ecg, train=train, keys=keys, valid=valid))


def linear_head(dim: int, embedding_dim: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer in float32, whatever the compute type."""
    return nnx.Linear(dim, embedding_dim, dtype=layers.PARAM_DTYPE, param_dtype=layers.PARAM_DTYPE, rngs=rngs)
