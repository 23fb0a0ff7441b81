"""Rows of embeddings that a batch of recordings becomes, and the metadata of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ecgjax.augmentations import partners
from ecgjax.augmentations.crops import Recorded, segments_alike
from ecgjax.augmentations.views import Shown
from ecgjax.data.row_metadata import CLASSES
from ecgjax.data.settings import SamplingSettings
from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs.relations import NEGATIVE, RELATIONS, WITHIN_RECORDING, Rows
from ecgjax.training.settings import MethodSettings

# Columns of a batch that are no metadata of its rows.
_NOT_METADATA = ("signal", "valid_start", "valid_samples", "paired", "measured", partners.COLUMN, "moved")

#: Loss that takes no relation → relation by which it pairs rows.
WITHOUT_RELATION = {"vicreg": "same_record"}


class Layout(NamedTuple):
    """Numbers of embedding rows that each recording becomes, by time segment, view and group of leads.

    The rows of a recording stand next to each other, leads fastest, then views, then segments.

    Attributes:
        segments: Number of adjacent parts (segments) of the recording's time.
        views: Number of views of each segment.
        lead_groups: Number of embeddings of each view, one of every lead or group of leads (`ecgjax.encoders`).
        shown: Signal that each view of a segment shows (`Views.shown`); None where augmentations are drawn for every
            view.
    """

    segments: int = 1
    views: int = 2
    lead_groups: int = 1
    shown: tuple[Shown, ...] | None = None

    @property
    def signals(self) -> int:
        """Number of signals that are encoded for each recording."""
        return self.segments * self.views

    @property
    def rows(self) -> int:
        """Number of rows of embeddings that a recording becomes."""
        return self.signals * self.lead_groups


def spread(values: Array, layout: Layout) -> Array:
    """Returns the value of every recording in each of its rows: `[batch, …]` → `[batch · layout.rows, …]`."""
    shape = (len(values), layout.rows, *values.shape[1:])
    return jnp.broadcast_to(values[:, None], shape).reshape(-1, *values.shape[1:])


def of_views(views: Sequence[int], layout: Layout, *, recordings: int) -> Array:
    """Returns the mask of the rows that show one of some views, `bool[recordings · layout.rows]`.

    Args:
        views: Numbers of the views, from 0.
        layout: Layout of every recording.
        recordings: Number of recordings.
    """
    within = np.arange(layout.rows) // layout.lead_groups % layout.views
    return jnp.tile(jnp.asarray(np.isin(within, views)), recordings)


def embedding_rows(batch: Mapping[str, Array], layout: Layout) -> Rows:
    """Returns the metadata of the embedding rows that a batch of recordings becomes.

    Args:
        batch: Columns `row`, `record` and `patient`, `i32[batch]`, `valid`, `bool[batch]`, and any other of `Rows`.
            Where views are moved towards other recordings, `moved`, `bool[batch]`, says which recordings are. Where
            recordings have padding, `signal`, `[batch, time, 8]`, `valid_start` and `valid_samples`, `i32[batch]`, say
            which of their segments are the same.
        layout: Layout of every recording; `view` of a row counts through all rows of its recording.

    Returns:
        Metadata of `batch · layout.rows` rows.
    """
    size = batch["row"].shape[0]

    def repeat(values: Array) -> Array:
        """Repeats the same values, one for each row of a recording, in every recording."""
        return jnp.broadcast_to(values[None, :], (size, layout.rows)).reshape(-1)

    columns = {name: spread(values, layout) for name, values in batch.items() if name not in _NOT_METADATA}
    if CLASSES in columns:
        # Relations and miners see a quantity as classes, and its task the values themselves.
        columns["label"] = columns.pop(CLASSES)
    within = jnp.arange(layout.rows, dtype=jnp.int32)
    view = repeat(within)
    places = {
        "row": columns["row"] * layout.rows + view,
        "view": view,
        "segment": repeat(within // (layout.views * layout.lead_groups)),
        "lead": repeat(within % layout.lead_groups),
    }
    if layout.shown is not None and any(view.number >= 0 for view in layout.shown):
        shown = _shown(layout, layout.shown, batch.get("moved"), _segments_alike(batch, layout.segments))
        places["shown"] = jnp.broadcast_to(shown, (size, layout.rows)).reshape(-1)
    return Rows(**columns | places)


def _segments_alike(batch: Mapping[str, Array], segments: int) -> Array:
    """Returns, for each segment, the first that shows the same samples: `i32[1 or batch, segments]`."""
    if segments == 1 or "valid_start" not in batch:
        return jnp.arange(segments, dtype=jnp.int32)[None, :]
    recorded = Recorded(batch["valid_start"], batch["valid_samples"])
    return segments_alike(batch["signal"].shape[1], recorded, segments=segments)


def _shown(layout: Layout, views: Sequence[Shown], moved: Array | None, alike: Array) -> Array:
    """Returns what every row shows of its recording, as `Rows.shown`: `i32[1 or batch, layout.rows]`."""
    within = np.arange(layout.rows, dtype=np.int32)
    segment, lead = within // (layout.views * layout.lead_groups), within % layout.lead_groups
    view = within // layout.lead_groups % layout.views
    number = np.array([each.number for each in views])[view]
    if_moved = np.array([each.if_moved for each in views])[view]
    place = alike[:, segment] * layout.views * layout.lead_groups + (number * layout.lead_groups + lead)[None, :]
    shown = jnp.where((number >= 0)[None, :], place, -1).astype(jnp.int32)
    if moved is None or not if_moved.any():
        return shown
    return jnp.where(moved[:, None] & if_moved[None, :], -1, shown)


def patient_pairs(patient: Array, record: Array, valid: Array) -> Array:
    """Counts pairs of different recordings of one patient.

    Patient-aware relations depend on these pairs: where patients rarely repeat there are almost none in a random batch.

    Args:
        patient: Patient numbers, `i32[batch]`, not negative.
        record: Record numbers, `i32[batch]`, not negative; a recording that was drawn twice is no pair.
        valid: Recordings that count, `bool[batch]`; the others are in no pair.

    Returns:
        Number of pairs, `f32[]`.
    """
    return _equal_pairs(patient, valid) - _equal_pairs(record, valid)


def _equal_pairs(ids: Array, valid: Array) -> Array:
    """Returns the number of pairs of rows with equal ids, `f32[]`."""
    index = jnp.arange(len(ids), dtype=ids.dtype)
    # Rows that are not valid get an id each that nobody has, so that they equal none.
    ordered = jnp.sort(jnp.where(valid, ids, -1 - index))
    # The number of pairs of a large batch exceeds 32 bits, so that it is summed as float32.
    return jnp.sum(index - jnp.searchsorted(ordered, ordered, side="left"), dtype=jnp.float32)


def check_positives(method: MethodSettings, layout: Layout) -> None:
    """Raises an error where a relation within recordings finds no positive, so that the loss would stay 0.

    Args:
        method: Settings of loss, relation and miner.
        layout: Layout of every recording.

    Raises:
        ConfigError: The relation finds no positive; the message gives the numbers of segments, views and lead groups.
    """
    name, loss = method.relation.name, method.objective.name
    within = name if loss is None else WITHOUT_RELATION.get(loss, name)
    # The positives of label_distance are other recordings, whatever the relation.
    others = within not in WITHIN_RECORDING or method.miner.name == "label_distance"
    if within is None or others or method.objective.weight == 0 or _finds_positives(within, layout):
        return
    who = f"config.objective.name={loss!r}" if loss in WITHOUT_RELATION else f"config.relation.name={name!r}"
    becomes = (
        f"{who} finds no positive: a recording becomes {layout.segments} segment(s) (config.views.segments) of "
        f"{layout.views} view(s) (config.views.num), each embedded as {layout.lead_groups} group(s) of leads "
        "(config.encoder.lead_wise)"
    )
    if _finds_positives(within, layout._replace(shown=None)):
        becomes += "; nothing is drawn for the views, which are all the same signal: enable one of config.augment"
    raise ConfigError(becomes)


def positives_are_other_recordings(method: MethodSettings, sampling: SamplingSettings, layout: Layout) -> bool:
    """Returns whether only other recordings of its patient can be positives of a row.

    This holds with `same_patient` where a recording becomes one row and nothing is drawn for it.

    Args:
        method: Settings of loss, relation and miner.
        sampling: Settings of the sampling.
        layout: Layout of every recording.
    """
    if method.relation.name != "same_patient" or method.objective.weight == 0:
        return False
    if method.miner.name == "label_distance":
        return False
    # Units of several recordings draw one again where a patient has too few. It then has another view, where anything
    # is drawn for views.
    again = sampling.name == "patients" and sampling.records_per_patient > 1
    return not _finds_positives("same_patient", layout, drawn=2 if again else 1)


def others_are_negatives(method: MethodSettings) -> bool:
    """Returns whether the other recordings of its patient are negatives of a row, by name.

    Args:
        method: Settings of loss, relation and miner.
    """
    return method.relation.arguments.get("others_of_patient") == NEGATIVE and method.objective.weight != 0


def _finds_positives(relation: str, layout: Layout, *, drawn: int = 1) -> bool:
    """Returns whether there is a positive among the rows of one recording that a batch holds `drawn` times."""
    # A dry run assembles its model in a trace, in which a few numbers are still computed at once.
    with jax.ensure_compile_time_eval():
        one = jnp.zeros(drawn, jnp.int32)
        known = {"record": one, "patient": one, "valid": jnp.ones(drawn, bool), "moved": jnp.ones(drawn, bool)}
        rows = embedding_rows({"row": jnp.arange(drawn, dtype=jnp.int32), **known}, layout)
        # The relation itself is asked, so that this check cannot come to differ from it.
        return bool(RELATIONS[relation](rows, rows).positive.any())
