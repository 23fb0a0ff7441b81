"""An encoder that embeds every lead by itself: one network for all leads, which become rows of the batch."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ecgjax.encoders.encoder import Encoder
from ecgjax.encoders.grid import Grid
from ecgjax.errors import ConfigError
from ecgjax.keys import split_rows


class LeadWise(Encoder):
    """Applies an encoder of one channel to every lead of a record by itself.

    All leads go through it as one batch, `[batch · lead, time, 1]`, so that a layer is one convolution, and the
    statistics of batch norm are those of all leads together. Dropout is drawn for every lead separately.

    Args:
        encoder: Encoder of one channel.
        num_leads: Number of leads of a record.

    Raises:
        ConfigError: The encoder makes several embeddings of a record already.

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
        self.pool = dataclasses.replace(encoder.pool, leads=num_leads)

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the activations of all leads, each `[batch, lead · positions, width]`, one lead after the other.

        Arguments are those of `Encoder.maps`.
        """
        rows = leads_as_rows(ecg, keys, valid)
        maps = self.encoder.maps(rows.ecg, train=train, keys=rows.keys, valid=rows.valid)
        return [x.reshape(ecg.shape[0], ecg.shape[2] * x.shape[1], x.shape[2]) for x in maps]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time (and leads) of each of `maps`; `num_samples` is that of the recordings."""
        leads = tuple(range(self.lead_groups))
        return [dataclasses.replace(grid, leads=leads) for grid in self.encoder.grids(num_samples)]

    def features(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> Array:
        """Returns the mean over leads of each lead's features, `f32[batch, feature_dim]`.

        Arguments are those of `Encoder.features`. Each lead's tokens are pooled by themselves.
        """
        rows = leads_as_rows(ecg, keys, valid)
        out = self.encoder.features(rows.ecg, train=train, keys=rows.keys, valid=rows.valid)
        return self.pool.over_leads(out)

    def with_features(
        self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns embeddings of every lead, `f32[batch, lead, embedding_dim]`, and the features; see `Encoder`."""
        rows = leads_as_rows(ecg, keys, valid)
        out, features = self.encoder.with_features(rows.ecg, train=train, keys=rows.keys, valid=rows.valid)
        return out.reshape(ecg.shape[0], self.lead_groups, self.embedding_dim), self.pool.over_leads(features)


def of_recordings(embeddings: Array) -> Array:
    """Returns one embedding of each recording: the mean over leads or groups of leads where each has its own.

    Features are averaged over leads in the same way (`LeadWise.features`).

    Args:
        embeddings: Embeddings, `f32[batch, dim]` or `f32[batch, lead_groups, dim]`.
    """
    return embeddings if embeddings.ndim == 2 else jnp.mean(embeddings, axis=1)


class Leads(NamedTuple):
    """Leads as rows of a batch, `[batch · lead, time, 1]`, with a key and a validity for each."""

    ecg: Array
    keys: Array | None
    valid: Array | None


def leads_as_rows(ecg: Array, keys: Array | None, valid: Array | None) -> Leads:
    """Turns the leads of each record into rows of the batch that stand next to each other."""
    num_leads = ecg.shape[2]
    return Leads(
        ecg=ecg.swapaxes(1, 2).reshape(-1, ecg.shape[1], 1),
        keys=None if keys is None else split_rows(keys, num_leads).reshape(-1),
        valid=None if valid is None else jnp.repeat(valid, num_leads),
    )
