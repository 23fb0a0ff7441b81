"""One network for every lead: all leads share its weights, and the leads of a record become rows of the batch."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ecgjax.encoders.encoder import Encoder
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows


class LeadWise(Encoder):
    """Applies an encoder of one channel to every lead of a record by itself.

    All leads go through it as one batch, `[batch · lead, time, 1]`, so that a layer is one convolution, and the
    statistics of batch norm are those of all leads together. Dropout draws anew for every lead.

    Attributes:
        encoder: Encoder of one channel.
        embedding_dim: Dimension of one lead's embedding.
        feature_dim: Number of features, the pooled activations.
        lead_groups: Number of leads, each with an embedding of its own.
    """

    def __init__(self, encoder: Encoder, *, num_leads: int):
        if encoder.lead_groups != 1:
            raise ConfigError(f"config.encoder.lead_wise: {type(encoder).__name__} already tells groups of leads apart")
        self.encoder = encoder
        self.embedding_dim, self.feature_dim = encoder.embedding_dim, encoder.feature_dim
        self.lead_groups = num_leads

    def features(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns the pooled activations, the mean over the leads.

        Args:
            ecg: Recordings, `f32[batch, time, lead]`, in mV.
            train: Whether the batch's statistics are used and the running ones updated, instead of using the running
                ones.
            keys: Random key of each row for dropout, `key[batch]`; None switches dropout off.
            valid: Mask of the rows that hold a recording, `bool[batch]`; others stay out of the batch's statistics.
                None for all.

        Returns:
            Features, `f32[batch, feature_dim]`.
        """
        rows = _leads_as_rows(ecg, keys, valid)
        out = self.encoder.features(rows.ecg, train=train, keys=rows.keys, valid=rows.valid)
        return jnp.mean(out.reshape(ecg.shape[0], self.lead_groups, self.feature_dim), axis=1)

    def __call__(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns embeddings of every lead, `f32[batch, lead, embedding_dim]`; arguments are those of `features`."""
        rows = _leads_as_rows(ecg, keys, valid)
        out = self.encoder(rows.ecg, train=train, keys=rows.keys, valid=rows.valid)
        return out.reshape(ecg.shape[0], self.lead_groups, self.embedding_dim)


class _Leads(NamedTuple):
    """Leads as rows of a batch, `[batch · lead, time, 1]`, with a key and a validity for each."""

    ecg: Array
    keys: Array | None
    valid: Array | None


def _leads_as_rows(ecg: Array, keys: Array | None, valid: Array | None) -> _Leads:
    """Turns the leads of each record into rows of the batch that stand next to each other."""
    num_leads = ecg.shape[2]
    return _Leads(
        ecg=ecg.swapaxes(1, 2).reshape(-1, ecg.shape[1], 1),
        keys=None if keys is None else split_rows(keys, num_leads).reshape(-1),
        valid=None if valid is None else jnp.repeat(valid, num_leads),
    )
