"""From a task to labelled train, validation and test records of disjoint patients."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.data.tasks import LabelColumns, Task

#: Fewer records of a class than these tell nothing about a group.
MIN_EVENTS = 10


class Column(Protocol):
    """A value of every record: an array, or what reads as one."""

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        """Returns the values of some records, `int64[n]`."""


class LabelledIndex(LabelColumns, Protocol):
    """What the probe needs of a data set's index."""

    @property
    def patient_id(self) -> Column:
        """`str[records]`, patient of each."""

    @property
    def group(self) -> Column:
        """`int[records]`, code of the patient, or of patients that belong together."""

    @property
    def fold(self) -> Column:
        """`int[records]`, fold of each."""


class RecordSplit(Protocol):
    """Record numbers of splits without common patients, and how many records were left out of them by reason."""

    @property
    def train(self) -> np.ndarray:
        """`int64[n]`, of training."""

    @property
    def val(self) -> np.ndarray:
        """`int64[n]`, of validation."""

    @property
    def test(self) -> np.ndarray:
        """`int64[n]`, of test."""

    @property
    def excluded(self) -> Mapping[str, int]:
        """Reason → records that were left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledRecords:
    """Records of one split that have the label.

    Attributes:
        records: `int64[n]`, record numbers.
        labels: `int64[n]` of 0 and 1, `int64[n, classes]` of a multi-label task, or `f64[n]` of a quantity.
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
        """Number of positive records of a binary task."""
        return int(self.labels.sum())

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Records and labels, for the identity of a study."""
        return self.records, self.labels


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
        classes: columns of a multi-label task's labels; none of others.
    """

    task: Task
    train: LabelledRecords
    val: LabelledRecords
    test: LabelledRecords
    label_fraction: float
    seed: int
    train_available: LabelledRecords
    excluded: Mapping[str, int]
    classes: tuple[str, ...] = ()

    @property
    def enough_for_curves(self) -> bool:
        """Whether there are so many positive and negative test records that curves of them are no steps of a few."""
        if self.task.kind != "binary":
            return True
        return min(self.test.positives, len(self.test.records) - self.test.positives) >= MIN_EVENTS


def common_classes(labels: np.ndarray) -> list[int]:
    """Returns the columns of `[n, classes]` labels with at least `MIN_EVENTS` positive and as many negative records."""
    positives = labels.sum(axis=0)
    return np.flatnonzero((positives >= MIN_EVENTS) & (len(labels) - positives >= MIN_EVENTS)).tolist()


def of_common_classes(data: ProbeData) -> tuple[ProbeData, tuple[str, ...]]:
    """Leaves classes out that the test records have too few of, one of which would leave the mean over all undefined.

    Returns:
        The data; of a multi-label task with the classes that have `MIN_EVENTS` positive and negative test records,
        where there are any. And what a reader must know of the others, a sentence each.
    """
    if data.task.kind != "multilabel":
        return data, ()
    kept = common_classes(data.test.labels)
    if len(kept) == len(data.classes):
        return data, ()
    words = f"fewer than {MIN_EVENTS} positive or negative test records"
    if not kept:
        return data, (f"{data.task.title}: every class has {words}, which tell little.",)
    rare = [name for column, name in enumerate(data.classes) if column not in kept]
    parts = {
        name: dataclasses.replace(part, labels=part.labels[:, kept])
        for name in ("train", "val", "test", "train_available")
        for part in [getattr(data, name)]
    }
    classes = tuple(data.classes[column] for column in kept)
    return (
        dataclasses.replace(data, **parts, classes=classes),
        (f"{data.task.title}: not asked, for {words}: {', '.join(rare)}.",),
    )


def probe_data(index: LabelledIndex, split: RecordSplit, *, task: Task, label_fraction: float, seed: int) -> ProbeData:
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
    answers = task.targets(index)
    dtype = np.float64 if task.kind == "quantity" else np.int64
    known_answer = ~np.isnan(answers).reshape(len(answers), -1).any(axis=1)
    parts = {}
    for name in ("train", "val", "test"):
        records = np.asarray(getattr(split, name), np.int64)
        known = records[known_answer[records]]
        if not len(known):
            raise DataError(
                f"none of the {len(records)} records of the {name} split has the label of {task.title!r}: "
                f"choose another label or other config.data.{name}_folds. {SPREAD_LABELS}"
            )
        parts[name] = _labelled(index, answers, known, dtype=dtype, unlabelled=len(records) - len(known))
    available = parts["train"]
    drawn = draw_patients(
        available.patients, patient_ids=index.patient_id[available.records], fraction=label_fraction, seed=seed
    )
    train = _labelled(index, answers, available.records[drawn], dtype=dtype, unlabelled=available.unlabelled)
    return ProbeData(
        task=task,
        train=train,
        val=parts["val"],
        test=parts["test"],
        label_fraction=label_fraction,
        seed=seed,
        train_available=available,
        excluded=dict(split.excluded),
        classes=task.classes(index),
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


def _labelled(
    index: LabelledIndex, answers: np.ndarray, records: np.ndarray, *, dtype: type, unlabelled: int
) -> LabelledRecords:
    return LabelledRecords(
        records=records,
        labels=answers[records].astype(dtype),
        patients=np.asarray(index.group[records]),
        unlabelled=unlabelled,
    )
