"""Probe tasks: from a label of the data set to labelled train, validation and test records of disjoint patients."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError

RULES = ("below", "above", "present")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """A binary question about a record.

    Attributes:
        label: name of a scalar of the data set, such as `"lvef"`, or of a class of a task, such as
            `"superdiagnostic:NORM"`.
        rule: `"below"` or `"above"` the threshold, both strictly; or `"present"` for labels that are 0 or 1.
        threshold: in the label's unit; `None` for `"present"`.
        section: of the config that asks it, which messages name.
    """

    label: str
    rule: str
    threshold: float | None = None
    section: str = "config.probe"

    def __post_init__(self):
        if self.rule not in RULES:
            raise DataError(f"{self.section}.rule is {self.rule!r}; choose one of {', '.join(RULES)}")
        known = self.threshold is not None and math.isfinite(self.threshold)
        if known != (self.rule != "present"):
            need = "takes no" if self.rule == "present" else "needs a finite"
            raise DataError(
                f"{self.section}.rule={self.rule!r} {need} {self.section}.threshold, it is {self.threshold}"
            )

    @property
    def title(self) -> str:
        """The question in words, such as `"lvef below 40"`."""
        return self.label if self.rule == "present" else f"{self.label} {self.rule} {self.threshold:g}"

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Returns `f64[n]` of 0 and 1, NaN where the value is missing.

        Args:
            values: `f32[n]`, the label of each record, NaN where missing.

        Raises:
            DataError: if the rule is `"present"` and a value is neither 0 nor 1.
        """
        missing = np.isnan(values)
        if self.rule == "present":
            if not np.isin(values[~missing], (0, 1)).all():
                raise DataError(
                    f"label {self.label!r} has values other than 0 and 1: "
                    f"set {self.section}.rule to 'below' or 'above' and a {self.section}.threshold"
                )
            answers = values
        else:
            answers = values < self.threshold if self.rule == "below" else values > self.threshold
        return np.where(missing, math.nan, answers.astype(np.float64))


class LabelledIndex(Protocol):
    """What the probe needs of a data set's index."""

    patient_id: np.ndarray
    group: np.ndarray

    def label(self, name: str) -> np.ndarray:
        """Returns `f32[records]`, NaN where missing; an unknown name is a `DataError` that lists the known ones."""


class RecordSplit(Protocol):
    """Record numbers of splits without common patients, and how many records were left out of them by reason."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    excluded: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledRecords:
    """Records of one split that have the label.

    Attributes:
        records: `int64[n]`, record numbers.
        labels: `int64[n]` of 0 and 1.
        patients: `int[n]`, patient (group) code.
        unlabelled: records of the split left out because the label is missing.
    """

    records: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    unlabelled: int

    @property
    def num_patients(self) -> int:
        """Number of different patients."""
        return len(np.unique(self.patients))

    @property
    def positives(self) -> int:
        """Number of positive records."""
        return int(self.labels.sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeData:
    """Everything labels decide: the same records for every model that is compared.

    Attributes:
        task: the question.
        train: the drawn fraction of the labelled training patients.
        val: labelled validation records.
        test: labelled test records.
        label_fraction: share of the labelled training patients that `train` holds.
        seed: of the draw.
        train_available: the labelled training records before the draw.
        excluded: records left out of the splits, by reason.
    """

    task: ProbeTask
    train: LabelledRecords
    val: LabelledRecords
    test: LabelledRecords
    label_fraction: float
    seed: int
    train_available: LabelledRecords
    excluded: Mapping[str, int]


def probe_data(
    index: LabelledIndex, split: RecordSplit, *, task: ProbeTask, label_fraction: float, seed: int
) -> ProbeData:
    """Labels the records of a split and draws a fraction of the training patients.

    Args:
        index: columns of the data set.
        split: record numbers, patients disjoint, duplicates left out.
        task: the question.
        label_fraction: share of the labelled training patients to keep, in (0, 1].
        seed: of the draw.

    Raises:
        DataError: if the label is unknown, or a split has no labelled record.
    """
    answers = task.answer(index.label(task.label))
    parts = {}
    for name in ("train", "val", "test"):
        records = np.asarray(getattr(split, name), np.int64)
        known = records[~np.isnan(answers[records])]
        if not len(known):
            raise DataError(
                f"none of the {len(records)} records of the {name} split has the label {task.label!r}: "
                f"choose another label or other config.data.{name}_folds"
            )
        parts[name] = _labelled(index, answers, known, unlabelled=len(records) - len(known))
    available = parts["train"]
    drawn = draw_patients(
        available.patients, patient_ids=index.patient_id[available.records], fraction=label_fraction, seed=seed
    )
    train = _labelled(index, answers, available.records[drawn], unlabelled=available.unlabelled)
    return ProbeData(
        task=task,
        train=train,
        val=parts["val"],
        test=parts["test"],
        label_fraction=label_fraction,
        seed=seed,
        train_available=available,
        excluded=dict(split.excluded),
    )


def draw_patients(patients: np.ndarray, *, patient_ids: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draws a fraction of the patients, with all their records.

    Patients are ranked by a keyed hash of their own id, so a smaller fraction is part of every larger one, and a
    patient's rank does not change when others join the data set.

    Args:
        patients: `int[n]`, patient (group) code of each record. A group with several ids goes by the smallest.
        patient_ids: `str[n]`, patient id of each record.
        fraction: share of the patients, in (0, 1]; rounded up to a whole patient.
        seed: of the hash.

    Returns:
        `bool[n]`, whether the record's patient was drawn.

    Raises:
        DataError: if the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise DataError(f"config.probe.label_fraction is {fraction:g}; it must be above 0 and at most 1")
    by_id = np.argsort(patient_ids, kind="stable")
    codes, first = np.unique(patients[by_id], return_index=True)
    key = seed.to_bytes(8, "little", signed=True)
    ranks = [hashlib.blake2b(str(name).encode(), key=key, digest_size=8).digest() for name in patient_ids[by_id][first]]
    order = sorted(range(len(codes)), key=ranks.__getitem__)
    # 1e-9: a tenth of 30 patients is 3, although .1 × 30 > 3 in floating point.
    count = max(1, math.ceil(fraction * len(codes) - 1e-9))
    return np.isin(patients, codes[order[:count]])


def _labelled(index: LabelledIndex, answers: np.ndarray, records: np.ndarray, *, unlabelled: int) -> LabelledRecords:
    return LabelledRecords(
        records=records,
        labels=answers[records].astype(np.int64),
        patients=np.asarray(index.group[records]),
        unlabelled=unlabelled,
    )
