"""Which rows of embeddings a batch of recordings becomes, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from ecgjax.augmentations import partners
from ecgjax.errors import ConfigError
from ecgjax.objectives.relations import RELATIONS, WITHIN_RECORDING, Rows

# Columns of a batch that are no metadata of its rows.
_NOT_METADATA = ("signal", "valid_start", "valid_samples", "paired", partners.COLUMN)


class Layout(NamedTuple):
    """What each recording becomes: parts of its time, views of each, and groups of leads of each that are embedded.

    The rows of a recording stand next to each other, leads fastest, then views, then segments.

    Attributes:
        segments: adjacent parts of the time.
        views: of each segment.
        lead_groups: embeddings of each view, see `ecgjax.encoders`.
    """

    segments: int = 1
    views: int = 2
    lead_groups: int = 1

    @property
    def signals(self) -> int:
        """Signals that a recording becomes."""
        return self.segments * self.views

    @property
    def rows(self) -> int:
        """Rows of embeddings that a recording becomes."""
        return self.signals * self.lead_groups


def embedding_rows(batch: Mapping[str, Array], layout: Layout) -> Rows:
    """Metadata of the rows of `f32[batch · layout.rows, dim]`.

    Args:
        batch: with `row`, `record` and `patient`, each `i32[batch]`, `valid`, `bool[batch]`, and any other of `Rows`.
        layout: of each recording; `view` of a row counts through all rows of its recording.

    Returns:
        Metadata of `batch · layout.rows` rows.
    """
    size = batch["row"].shape[0]

    def spread(values: Array) -> Array:
        """One value of every recording."""
        shape = (size, layout.rows, *values.shape[1:])
        return jnp.broadcast_to(values[:, None], shape).reshape(-1, *values.shape[1:])

    def repeat(values: Array) -> Array:
        """The same values in every recording."""
        return jnp.broadcast_to(values[None, :], (size, layout.rows)).reshape(-1)

    columns = {name: spread(values) for name, values in batch.items() if name not in _NOT_METADATA}
    within = jnp.arange(layout.rows, dtype=jnp.int32)
    view = repeat(within)
    places = {
        "row": columns["row"] * layout.rows + view,
        "view": view,
        "segment": repeat(within // (layout.views * layout.lead_groups)),
        "lead": repeat(within % layout.lead_groups),
    }
    return Rows(**columns | places)


def patient_pairs(patient: Array, valid: Array) -> Array:
    """Counts pairs of recordings of one patient.

    What patient-aware relations have to go by: where patients rarely repeat there are almost none in a random batch.

    Args:
        patient: `i32[batch]`, not negative.
        valid: `bool[batch]`; other recordings are in no pair.

    Returns:
        `f32[]`.
    """
    index = jnp.arange(len(patient), dtype=patient.dtype)
    ordered = jnp.sort(jnp.where(valid, patient, -1 - index))
    return jnp.sum(index - jnp.searchsorted(ordered, ordered, side="left"), dtype=jnp.float32)


def check_positives(config: ConfigDict, layout: Layout) -> None:
    """Refuses a relation that finds no positive among the rows that a recording becomes: its loss would stay 0.

    Args:
        config: with `objective.weight`, `relation.name` and `miner.name`.
        layout: of each recording.

    Raises:
        ConfigError: naming what a recording becomes.
    """
    name = config.relation.name
    # The positives of label_distance are other recordings, whatever the relation.
    others = name not in WITHIN_RECORDING or config.miner.name == "label_distance"
    if others or config.objective.weight == 0:
        return
    one = jnp.zeros(1, jnp.int32)
    rows = embedding_rows({"row": one, "record": one, "patient": one, "valid": jnp.ones(1, bool)}, layout)
    if not RELATIONS[name](rows, rows).positive.any():
        raise ConfigError(
            f"config.relation.name={name!r} finds no positive: a recording becomes {layout.segments} segment(s) "
            f"(config.views.segments) of {layout.views} view(s) (config.views.num), each embedded as "
            f"{layout.lead_groups} group(s) of leads (config.encoder.lead_wise)"
        )
