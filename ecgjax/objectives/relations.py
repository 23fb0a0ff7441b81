"""Positive-pair rules as relations on row metadata.

Every embedding row carries ids. A relation takes the metadata of anchors and keys and says of each pair whether it is
positive, negative or neither. Rows of one patient are never negatives of each other, and a row is never its own pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax import Array


class Rows(NamedTuple):
    """Metadata of embedding rows.

    Attributes:
        row: which embedding row of the global batch this is, `i32[rows]`; unique.
        record: record number, `i32[rows]`.
        patient: patient code, `i32[rows]`.
        view: number of the augmented view, `i32[rows]`.
        valid: `bool[rows]`; a row that is not valid takes part in no pair.
    """

    row: Array
    record: Array
    patient: Array
    view: Array
    valid: Array


class Pairs(NamedTuple):
    """What a relation says of anchors × keys.

    Attributes:
        positive: `bool[anchors, keys]`.
        negative: `bool[anchors, keys]`, disjoint from `positive`; a pair that is neither is left out.
    """

    positive: Array
    negative: Array


Relation = Callable[[Rows, Rows], Pairs]


def same_record(anchors: Rows, keys: Rows) -> Pairs:
    """SimCLR (Chen et al. 2020): the views of one record are positives, rows of other patients are negatives."""
    return _pairs(anchors, keys, positive=_equal(anchors.record, keys.record))


def same_patient(anchors: Rows, keys: Rows) -> Pairs:
    """PCLR (Diamant et al. 2022) and 3KG: all rows of one patient are positives, rows of others negatives."""
    return _pairs(anchors, keys, positive=_equal(anchors.patient, keys.patient))


RELATIONS: Mapping[str, Relation] = {"same_record": same_record, "same_patient": same_patient}


def _equal(anchors: Array, keys: Array) -> Array:
    return anchors[:, None] == keys[None, :]


def _pairs(anchors: Rows, keys: Rows, *, positive: Array) -> Pairs:
    both = (anchors.valid[:, None] & keys.valid[None, :]) & ~_equal(anchors.row, keys.row)
    return Pairs(positive=both & positive, negative=both & ~positive & ~_equal(anchors.patient, keys.patient))
