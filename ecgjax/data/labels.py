"""Labelled training, validation and test records of a task, whose patients are disjoint."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.data.tasks import BinaryTask, LabelColumns, MultiLabelTask, Task

#: Least number of records of a class for results that tell anything about a group.
MIN_EVENTS = 10


class Column(Protocol):
    """A value of every record, in an array or an object that is indexed like one."""

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        """Returns the values of the records with these numbers, `int64[n]`."""


class LabelledIndex(LabelColumns, Protocol):
    """Columns of a data set's index that a probe needs."""

    @property
    def patient_id(self) -> Column:
        """Patient id of each record, `str[records]`."""

    @property
    def group(self) -> Column:
        """Code of the patient of each record, or of patients that belong together, `int[records]`."""

    @property
    def fold(self) -> Column:
        """Fold of each record, `int[records]`."""


class RecordSplit(Protocol):
    """Record numbers of splits without common patients, and numbers of records that were left out by reason."""

    @property
    def train(self) -> np.ndarray:
        """Numbers of the training records, `int64[n]`."""

    @property
    def val(self) -> np.ndarray:
        """Numbers of the validation records, `int64[n]`."""

    @property
    def test(self) -> np.ndarray:
        """Numbers of the test records, `int64[n]`."""

    @property
    def excluded(self) -> Mapping[str, int]:
        """Number of records that were left out by reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledRecords:
    """Records of one split that have the label.

    Attributes:
        records: Record numbers, `int64[n]`.
        labels: Labels, `int64[n]` of 0 and 1, `int64[n, classes]` for a multi-label task, or `f64[n]` for a quantity.
        patients: Patient (group) code of each record, `int[n]`.
        unlabelled: Number of records of the split that were left out because the label is missing.
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
        """Record numbers and labels; a study stores their digest to recognise its own results."""
        return self.records, self.labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeData:
    """Labelled records of a task, the same for every model that is compared.

    Attributes:
        task: Task that the labels answer.
        train: Labelled training records of the drawn fraction of patients.
        val: Labelled validation records.
        test: Labelled test records.
        label_fraction: Share of the labelled training patients that `train` holds.
        seed: Seed of the draw.
        train_available: Labelled training records before the draw.
        excluded: Number of records left out of the splits by reason.
        classes: Names of the columns of a multi-label task's labels; empty for other tasks.
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

    def of_columns(self, columns: Sequence[int]) -> ProbeData:
        """Returns the data with the labels of some classes alone.

        Args:
            columns: Numbers of the classes of a multi-label task.
        """
        kept = list(columns)
        parts = {
            name: dataclasses.replace(part, labels=part.labels[:, kept])
            for name in ("train", "val", "test", "train_available")
            for part in [getattr(self, name)]
        }
        return dataclasses.replace(self, **parts, classes=tuple(self.classes[column] for column in kept))


def common_classes(labels: np.ndarray) -> list[int]:
    """Returns the columns of labels `[n, classes]` with at least `MIN_EVENTS` positive and as many negative records."""
    positives = labels.sum(axis=0)
    return np.flatnonzero((positives >= MIN_EVENTS) & (len(labels) - positives >= MIN_EVENTS)).tolist()


def of_common_classes(data: ProbeData) -> tuple[ProbeData, tuple[str, ...]]:
    """Leaves out the classes of a multi-label task that are too rare among the test records.

    A single such class would make the mean over all classes undefined.

    Returns:
        The data, reduced for a multi-label task to the classes with `MIN_EVENTS` positive and as many negative test
        records, where there are any; and cautions on the other classes for the report, one sentence each.
    """
    kept = common_classes(data.test.labels) if data.classes else []
    if len(kept) == len(data.classes):
        return data, ()
    words = f"fewer than {MIN_EVENTS} positive or negative test records"
    if not kept:
        return data, (f"{data.task.title}: every class has {words}, which tell little.",)
    rare = [name for column, name in enumerate(data.classes) if column not in kept]
    return (
        data.of_columns(kept),
        (f"{data.task.title}: not asked, for {words}: {', '.join(rare)}.",),
    )


def probe_data(index: LabelledIndex, split: RecordSplit, *, task: Task, label_fraction: float, seed: int) -> ProbeData:
    """Labels the records of a split and draws a fraction of the training patients.

    Args:
        index: Columns of the data set.
        split: Record numbers of disjoint patients, without duplicates.
        task: Task that the labels answer.
        label_fraction: Share of the labelled training patients to keep, in (0, 1].
        seed: Seed of the draw.

    Raises:
        DataError: The label is unknown, or a split has no labelled record.
    """
    answers = task.targets(index)
    # Labels of all other kinds may have decimals, and would lose them as whole numbers.
    dtype = np.int64 if isinstance(task, BinaryTask | MultiLabelTask) else np.float64
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

    Patients are ranked by a keyed hash of their own id, so that a smaller fraction is part of every larger one, and a
    patient's rank does not change when others join the data set.

    Args:
        patients: Patient (group) code of each record, `int[n]`. A group with several ids is ranked by the smallest.
        patient_ids: Patient id of each record, `str[n]`.
        fraction: Share of the patients, in (0, 1]; rounded up to a whole patient.
        seed: Seed of the hash.

    Returns:
        Whether each record's patient was drawn, `bool[n]`.

    Raises:
        DataError: The fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise DataError(f"config.probe.label_fraction is {fraction:g}; it must be above 0 and at most 1")
    by_id = np.argsort(patient_ids, kind="stable")
    codes, first = np.unique(patients[by_id], return_index=True)
    key = seed.to_bytes(8, "little", signed=True)
    ranks = [hashlib.blake2b(str(name).encode(), key=key, digest_size=8).digest() for name in patient_ids[by_id][first]]
    order = sorted(range(len(codes)), key=ranks.__getitem__)
    # The 1e-9 absorbs rounding: a tenth of 30 patients is 3, although .1 × 30 > 3 in floating point.
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
