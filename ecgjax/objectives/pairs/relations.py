"""Relations: rules on the metadata of rows that tell positive from negative pairs.

Every embedding row carries ids. A relation takes the metadata of anchors and keys and says of each pair whether it is
positive, negative or neither. Rows of one patient are no negatives of each other, unless a relation within recordings
is told to make them so (`OTHERS_OF_PATIENT`), and a row is never paired with itself. It is not paired either with its
recording drawn a second time and shown in the same way: a positive is another recording or another view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError, check_known
from ecgjax.settings.bounds import ZeroOrMore

LEFT_OUT, NEGATIVE = "left_out", "negative"

#: What the other recordings of an anchor's patient can be, where only its own recording gives positives.
OTHERS_OF_PATIENT = (LEFT_OUT, NEGATIVE)


class Rows(NamedTuple):
    """Metadata of embedding rows; columns that neither relation nor miner of a run uses are None.

    Attributes:
        row: Number of the embedding row in the global batch, `i32[rows]`; it is unique, and the row's position there.
        record: Record number, `i32[rows]`.
        patient: Patient code, `i32[rows]`.
        view: Number of the view among its record's, `i32[rows]`.
        valid: Mask of the rows that hold a recording, `bool[rows]`; a row that is not valid takes part in no pair.
        segment: Number of the part of the recording's time that the view shows, `i32[rows]`.
        lead: Number of the lead, or group of leads, that the row shows, `i32[rows]`.
        shown: Number of the signal that the row shows of its record, `i32[rows]`: rows of one record with the same
            number show the same signal. −1 where an augmentation was drawn for this row, so that no other row shows the
            same; None where that holds of every row.
        label: Class or value of the record, `f32[rows]`; NaN where it is unknown.
        cluster: Cluster of the record's wave attributes, `i32[rows]`; −1 where it is unknown.
        sex: Sex of the patient as stored, `i32[rows]`; −1 where it is unknown.
        age: Age of the patient in years, `f32[rows]`; NaN where it is unknown.
        physiology: Standardised physiology vector, `f32[rows, features]`; all NaN where there is none.
        nearest: Number `row` of the nearest other recording in signal space, `i32[rows]`; −1 where there is none.
        nearest_record: Number `record` of that nearest recording, which may stand in other rows too, `i32[rows]`; −1
            where there is none.
        farthest: Numbers `row` of the farthest recordings of other patients in signal space, `i32[rows, num]`; −1 where
            there is none.
        neighbours: Numbers `record` of the nearest recordings of the data set, `i32[rows, k]`; −1 where there are
            fewer.
        pair_group: Number of the recording's partner of another modality, `i32[rows]`; it is the same for partners that
            are the same, and −1 where there is none.
    """

    row: Array
    record: Array
    patient: Array
    view: Array
    valid: Array
    segment: Array | None = None
    lead: Array | None = None
    shown: Array | None = None
    label: Array | None = None
    cluster: Array | None = None
    sex: Array | None = None
    age: Array | None = None
    physiology: Array | None = None
    nearest: Array | None = None
    nearest_record: Array | None = None
    farthest: Array | None = None
    neighbours: Array | None = None
    pair_group: Array | None = None


class Pairs(NamedTuple):
    """Positive and negative pairs among anchors × keys, as a relation tells them apart.

    Attributes:
        positive: Mask of the positive pairs, `bool[anchors, keys]`.
        negative: Mask of the negative pairs, `bool[anchors, keys]`, disjoint from `positive`; a pair that is neither is
            left out.
    """

    positive: Array
    negative: Array


Relation = Callable[[Rows, Rows], Pairs]


def same_record(anchors: Rows, keys: Rows, *, others_of_patient: str = LEFT_OUT) -> Pairs:
    """Makes the views of one record positives and rows of other patients negatives (SimCLR, Chen et al. 2020).

    A patient's other recordings are the negatives that are hardest to tell apart; `others_of_patient="negative"` asks
    for them by name, and `config.sampling.name="patients"` draws them into one batch.

    Args:
        anchors: Metadata of the anchors.
        keys: Metadata of the keys.
        others_of_patient: Role of the patient's other recordings: `"left_out"`, or `"negative"` on purpose.
    """
    positive = _equal(anchors.record, keys.record)
    return _pairs(anchors, keys, positive=positive, others_of_patient=others_of_patient)


def same_patient(anchors: Rows, keys: Rows) -> Pairs:
    """Makes rows of one patient positives and those of others negatives (PCLR, Diamant et al. 2022, and 3KG)."""
    return _pairs(anchors, keys, positive=_equal(anchors.patient, keys.patient))


def other_segment(anchors: Rows, keys: Rows, *, others_of_patient: str = LEFT_OUT) -> Pairs:
    """Makes other parts of the same recording's time in the same lead positives (CMSC, Kiyasseh et al. 2021).

    Args:
        anchors: Metadata of the anchors.
        keys: Metadata of the keys.
        others_of_patient: Role of the patient's other recordings: `"left_out"`, or `"negative"` on purpose.
    """
    same, segment, lead = (_equal(*_both(anchors, keys, name)) for name in ("record", "segment", "lead"))
    return _pairs(anchors, keys, positive=same & ~segment & lead, others_of_patient=others_of_patient)


def other_lead(anchors: Rows, keys: Rows, *, others_of_patient: str = LEFT_OUT) -> Pairs:
    """Makes other leads of the same part of the same recording positives (CMLC, Kiyasseh et al. 2021).

    Args:
        anchors: Metadata of the anchors.
        keys: Metadata of the keys.
        others_of_patient: Role of the patient's other recordings: `"left_out"`, or `"negative"` on purpose.
    """
    same, segment, lead = (_equal(*_both(anchors, keys, name)) for name in ("record", "segment", "lead"))
    return _pairs(anchors, keys, positive=same & segment & ~lead, others_of_patient=others_of_patient)


def other_segment_or_lead(anchors: Rows, keys: Rows, *, others_of_patient: str = LEFT_OUT) -> Pairs:
    """Makes all other parts and leads of the same recording positives (CMSMLC, Kiyasseh et al. 2021).

    Args:
        anchors: Metadata of the anchors.
        keys: Metadata of the keys.
        others_of_patient: Role of the patient's other recordings: `"left_out"`, or `"negative"` on purpose.
    """
    same, segment, lead = (_equal(*_both(anchors, keys, name)) for name in ("record", "segment", "lead"))
    return _pairs(anchors, keys, positive=same & ~(segment & lead), others_of_patient=others_of_patient)


def similar_physiology(anchors: Rows, keys: Rows, *, min_cosine: float = 0.25) -> Pairs:
    """Makes records positives where their physiology vectors agree in direction, and otherwise negatives.

    This is the relation of PhysioCLR (Maghsoodi et al. 2025).

    Views of the same record are positives, whether or not its vector is known; pairs of records of which one vector is
    unknown are left out.

    Args:
        anchors: Metadata of the anchors, with `physiology`, standardised: otherwise the features in milliseconds decide
            alone.
        keys: Metadata of the keys, with `physiology`, standardised.
        min_cosine: Lowest cosine δ of two physiology vectors that makes their records a positive pair.
    """
    a, b = _both(anchors, keys, "physiology")
    known = jnp.isfinite(a).all(1)[:, None] & jnp.isfinite(b).all(1)[None, :]
    a, b = (jnp.where(jnp.isfinite(x), x, jnp.float32(0)) for x in (a, b))
    cosine = jnp.matmul(_unit(a), _unit(b).T, precision="highest")
    return _matched(anchors, keys, same=cosine >= min_cosine, known=known)


def same_cluster(anchors: Rows, keys: Rows) -> Pairs:
    """Makes records of one wave-attribute cluster positives (Jeong et al. 2024, arXiv 2411.17702).

    Views of the same record are positives as well; pairs of which one has no cluster are left out.
    """
    a, b = _both(anchors, keys, "cluster")
    return _matched(anchors, keys, same=_equal(a, b), known=(a >= 0)[:, None] & (b >= 0)[None, :])


def same_demographics(anchors: Rows, keys: Rows, *, max_years: ZeroOrMore = 5.0) -> Pairs:
    """Makes records of the same sex and of ages at most `max_years` apart positives (Jeong et al. 2024).

    Args:
        anchors: Metadata of the anchors, with `sex` and `age`.
        keys: Metadata of the keys, with `sex` and `age`.
        max_years: Greatest difference in age, in years.
    """
    sex_a, sex_b = _both(anchors, keys, "sex")
    age_a, age_b = _both(anchors, keys, "age")
    known = ((sex_a >= 0) & jnp.isfinite(age_a))[:, None] & ((sex_b >= 0) & jnp.isfinite(age_b))[None, :]
    near = jnp.abs(age_a[:, None] - age_b[None, :]) <= max_years
    return _matched(anchors, keys, same=_equal(sex_a, sex_b) & near, known=known)


def same_label(anchors: Rows, keys: Rows) -> Pairs:
    """Makes rows of one label positives and rows of another negatives (supervised contrast, Khosla et al. 2020).

    Views of the same record are positives as well; pairs of which one has no label are left out.
    """
    a, b = _both(anchors, keys, "label")
    return _matched(anchors, keys, same=_equal(a, b), known=jnp.isfinite(a)[:, None] & jnp.isfinite(b)[None, :])


def nearest_signal(anchors: Rows, keys: Rows) -> Pairs:
    """Makes the recording nearest in signal space the positive, and all others negatives (Jeong et al. 2023).

    `signal_space.nearest_and_farthest` finds the nearest recording beforehand, because a pair alone does not show it.
    Where a recording has several views, the positive of each is the same view of the neighbour. The neighbour's other
    views are left out, and so is the neighbour where it was drawn a second time.
    """
    nearest, _ = _both(anchors, keys, "nearest")
    pairs = _pairs(anchors, keys, positive=_equal(nearest, keys.row))
    # The views of a recording stand next to each other: a row number less its view identifies the recording.
    neighbour = _equal(nearest - anchors.view, keys.row - keys.view) & (nearest >= 0)[:, None]
    if anchors.nearest_record is not None:
        neighbour |= _equal(anchors.nearest_record, keys.record)
    return pairs._replace(negative=pairs.negative & ~neighbour)


def nearest_in_dataset(anchors: Rows, keys: Rows, *, either: bool = True) -> Pairs:
    """Makes the nearest recordings of the whole data set positives, as `data_pipelines.neighbours` has found them.

    Views of the same record are positives as well. A recording whose nearest are unknown, as on the validation side, is
    in no other pair.

    Args:
        anchors: Metadata of the anchors, with `neighbours`.
        keys: Metadata of the keys, with `neighbours`.
        either: Whether it is enough that one of both is among the nearest of the other. If not, pairs in which the
            anchor is a neighbour of the key alone are left out, since one of them cannot be like and unlike the other.
    """
    a, b = _both(anchors, keys, "neighbours")
    near = (a[:, None, :] == keys.record[None, :, None]).any(2)
    near_to = (b[None, :, :] == anchors.record[:, None, None]).any(2)
    known = (a >= 0).any(1)[:, None] & (b >= 0).any(1)[None, :]
    if either:
        return _matched(anchors, keys, same=near | near_to, known=known)
    return _matched(anchors, keys, same=near, known=known & (near | ~near_to))


#: Name in a config → relation. Arguments that a relation has of its own are leaves of `config.relation`.
RELATIONS: Mapping[str, Relation] = {
    "same_record": same_record,
    "same_patient": same_patient,
    "other_segment": other_segment,
    "other_lead": other_lead,
    "other_segment_or_lead": other_segment_or_lead,
    "similar_physiology": similar_physiology,
    "same_cluster": same_cluster,
    "same_demographics": same_demographics,
    "same_label": same_label,
    "nearest_signal": nearest_signal,
    "nearest_in_dataset": nearest_in_dataset,
}

#: Relations whose positives are rows of one recording.
WITHIN_RECORDING = ("same_record", "other_segment", "other_lead", "other_segment_or_lead")


def _both(anchors: Rows, keys: Rows, name: str) -> tuple[Array, Array]:
    a, b = getattr(anchors, name), getattr(keys, name)
    if a is None or b is None:
        raise ConfigError(f"this relation looks at '{name}', which the rows of this run do not carry")
    return a, b


def _equal(anchors: Array, keys: Array) -> Array:
    return anchors[:, None] == keys[None, :]


def _unit(x: Array) -> Array:
    norm = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return x / jnp.where(norm > 0, norm, jnp.float32(1))


def _matched(anchors: Rows, keys: Rows, *, same: Array, known: Array) -> Pairs:
    """Returns pairs by a rule whose answer may be unknown; views of one record are positives in any case.

    Args:
        anchors: Metadata of the anchors.
        keys: Metadata of the keys.
        same: Answer of the rule, `bool[anchors, keys]`, where it is known.
        known: Mask of the pairs for which the rule is known, `bool[anchors, keys]`; the others are left out.
    """
    own = _equal(anchors.record, keys.record)
    pairs = _pairs(anchors, keys, positive=own | (same & known))
    return pairs._replace(negative=pairs.negative & known)


def _pairs(anchors: Rows, keys: Rows, *, positive: Array, others_of_patient: str = LEFT_OUT) -> Pairs:
    check_known(others_of_patient, OTHERS_OF_PATIENT, setting="config.relation.others_of_patient")
    both = (anchors.valid[:, None] & keys.valid[None, :]) & ~_equal(anchors.row, keys.row)
    # A recording has one patient: rows of two patients are of two recordings as well.
    alike = "record" if others_of_patient == NEGATIVE else "patient"
    negative = both & ~positive & ~_equal(*_both(anchors, keys, alike))
    return Pairs(positive=both & positive & ~same_signal(anchors, keys), negative=negative)


def same_signal(anchors: Rows, keys: Rows) -> Array:
    """Returns which pairs show one recording in the same way, `bool[anchors, keys]`, or `bool[]` where none can."""
    if anchors.shown is None or keys.shown is None:
        return jnp.zeros((), bool)
    return _equal(anchors.record, keys.record) & _equal(anchors.shown, keys.shown) & (anchors.shown >= 0)[:, None]
