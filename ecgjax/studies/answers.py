"""What is found of a quantity or of several classes: a row a model, a class and a group, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ecgjax.data.labels import common_classes
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.regression import BlandAltman
from ecgjax.studies.comparison import REFERENCE
from ecgjax.studies.neighbourhood import Neighbourhood

#: Models whose AUROC is given class by class.
BY_CLASS = (REFERENCE, "random", "supervised")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """A model's answers.

    Attributes:
        title: as in the table.
        val_outputs: for the validation records, `f64[n]`, or `f64[n, classes]`.
        outputs: for the test records, likewise.
        val_metric: primary metric on validation of what was selected there.
        selected: what was selected, in words.
    """

    title: str
    val_outputs: np.ndarray
    outputs: np.ndarray
    val_metric: float
    selected: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerRow:
    """A model of the comparison.

    Attributes:
        name: key, such as `"random"`.
        title: as in the table.
        metrics: name → on the test records, with intervals over patients; the primary one first.
        difference: `Answers.compared` of the pretrained encoder less this model's, paired; None for itself.
        val_metric: of what was selected on validation.
        selected: what was selected there.
    """

    name: str
    title: str
    metrics: Mapping[str, Interval]
    difference: Interval | None
    val_metric: float
    selected: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class of a multi-label task.

    Attributes:
        name: of the class.
        train_positives: training records.
        positives: test records.
        patients: test patients with a positive record.
        aurocs: model of `BY_CLASS` → on the test records; none of a class that has not both labels.
        difference: of the pretrained encoder less the random one, paired; None likewise.
        reason: why there is none, or "".
    """

    name: str
    train_positives: int
    positives: int
    patients: int
    aurocs: Mapping[str, Interval]
    difference: Interval | None
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassOperating:
    """The pretrained encoder's probe of one class, calibrated and given thresholds on validation.

    Attributes:
        name: of the class.
        val_positives: validation records.
        positives: test records.
        threshold: probability with the best F1 on validation; None where it lacks a label.
        metrics: name → on the test records, with intervals; none where validation or test lacks a label.
        reason: why there are none, or "".
    """

    name: str
    val_positives: int
    positives: int
    threshold: float | None
    metrics: Mapping[str, Interval]
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDecisions:
    """A model that decides on every class at thresholds chosen on validation.

    Attributes:
        name: key, such as `"random"`.
        title: as in the table.
        metrics: name → on the test records, with intervals; the macro F1 first.
        differences: likewise, of the pretrained encoder less this model, paired; none for itself.
    """

    name: str
    title: str
    metrics: Mapping[str, Interval]
    differences: Mapping[str, Interval]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassesOperating:
    """A multi-label task as its models would be used.

    Attributes:
        models: one a model, the pretrained encoder first.
        classes: of the pretrained encoder's probe, one a class.
        unscored: classes that the CinC 2021 Challenge's score needs and the task does not have; there is a score where
            none is missing.
    """

    models: tuple[ModelDecisions, ...]
    classes: tuple[ClassOperating, ...]
    unscored: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerGroup:
    """The pretrained encoder's probe in one group of patients.

    Attributes:
        column: what the groups are made by.
        group: its name.
        records, patients: how many there are.
        classes: that are measured, of a multi-label task.
        metrics: name → with intervals; none where there are too few.
        gaps: likewise, less all other records, paired.
    """

    column: str
    group: str
    records: int
    patients: int
    classes: int
    metrics: Mapping[str, Interval]
    gaps: Mapping[str, Interval]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """What the experiment gives.

    Attributes:
        rows: one a model, the pretrained encoder first.
        compared: metric that models are compared by: the primary one, or where classes are too rare for an interval of
            the mean over all the mean over the others.
        outputs: model name → answers for the test records.
        embeddings: encoder (`"pretrained"`, `"random"`) → `f32[test records, dim]`.
        classes: of a multi-label task.
        operating: of a multi-label task.
        agreement: model title → bias and limits of agreement of a quantity, on one record a patient.
        groups: the pretrained encoder's probe in every group of patients.
        near: what lies near in both encoders' embeddings.
        measurement_failures: records by reason why intervals or amplitudes are missing.
        bootstrap: number of resamples.
        seed: of the resamples.
    """

    rows: tuple[AnswerRow, ...]
    compared: str
    outputs: Mapping[str, np.ndarray]
    embeddings: Mapping[str, np.ndarray]
    classes: tuple[ClassRow, ...]
    operating: ClassesOperating | None
    agreement: Mapping[str, BlandAltman]
    groups: tuple[AnswerGroup, ...]
    near: tuple[Neighbourhood, ...]
    measurement_failures: Mapping[str, int]
    bootstrap: int
    seed: int

    def row(self, name: str) -> AnswerRow:
        """Returns the row of a model."""
        return next(row for row in self.rows if row.name == name)

    def difference(self, name: str) -> Interval:
        """Returns how far the pretrained encoder is above another model.

        Raises:
            ValueError: The model is the pretrained encoder's own.
        """
        if (difference := self.row(name).difference) is None:
            raise ValueError(f"{name!r} is what the others are compared with")
        return difference


def one_a_patient(patients: np.ndarray) -> np.ndarray:
    """Returns the first record of each patient, `int64[patients]`, in order."""
    return np.sort(np.unique(patients, return_index=True)[1])


def common_is_fewer(labels: np.ndarray) -> bool:
    """Whether some class has both labels, but too few of one."""
    positives = labels.sum(axis=0)
    return len(common_classes(labels)) < int(((positives > 0) & (positives < len(labels))).sum())
