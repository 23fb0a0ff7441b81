"""Results for a quantity or for several classes: rows per model, class and group of patients, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ecgjax.data.labels import common_classes
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.regression import BlandAltman
from ecgjax.studies.comparison import REFERENCE
from ecgjax.studies.neighbourhood import Neighbourhood

#: Models whose AUROC is reported for each class.
BY_CLASS = (REFERENCE, "random", "supervised")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """A model's predictions.

    Attributes:
        title: Title of the model in tables.
        val_outputs: Predictions for the validation records, `f64[n]` or `f64[n, classes]`.
        outputs: Predictions for the test records, `f64[n]` or `f64[n, classes]`.
        val_metric: Primary metric of the selected model on the validation records.
        selected: Description of what was selected on validation, such as `"C = 0.001 of 13"`.
    """

    title: str
    val_outputs: np.ndarray
    outputs: np.ndarray
    val_metric: float
    selected: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerRow:
    """Results of one model in the comparison.

    Attributes:
        name: Key of the model, such as `"random"`.
        title: Title of the model in tables.
        metrics: Metrics on the test records with intervals over patients, by name; the primary metric comes first.
        difference: Paired difference in the metric `Answers.compared`, the pretrained encoder's minus this model's;
            None for the pretrained encoder itself.
        val_metric: Primary metric of the selected model on the validation records.
        selected: Description of what was selected on validation.
    """

    name: str
    title: str
    metrics: Mapping[str, Interval]
    difference: Interval | None
    val_metric: float
    selected: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Results for one class of a multi-label task.

    Attributes:
        name: Name of the class.
        train_positives: Number of positive training records.
        positives: Number of positive test records.
        patients: Number of test patients with a positive record.
        aurocs: AUROC on the test records for each model of `BY_CLASS`; empty if they lack one of the two labels.
        difference: Paired difference in AUROC, the pretrained encoder's minus the random encoder's; None if the test
            records lack one of the two labels.
        reason: Reason why there is no AUROC; empty if there is one.
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
    """The pretrained encoder's probe for one class, calibrated and given thresholds on validation.

    Attributes:
        name: Name of the class.
        val_positives: Number of positive validation records.
        positives: Number of positive test records.
        threshold: Probability threshold with the best F1 on validation; None if validation lacks one of the two labels.
        metrics: Metrics on the test records with intervals, by name; empty if validation or test lacks one of the two
            labels.
        reason: Reason why there are no metrics; empty if there are.
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
        name: Key of the model, such as `"random"`.
        title: Title of the model in tables.
        metrics: Metrics on the test records with intervals, by name; the macro F1 comes first.
        differences: Paired differences in these metrics, the pretrained encoder's minus this model's; empty for the
            pretrained encoder itself.
    """

    name: str
    title: str
    metrics: Mapping[str, Interval]
    differences: Mapping[str, Interval]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassesOperating:
    """Decisions on a multi-label task, made by calibrated models at their thresholds.

    Attributes:
        models: Decisions of each model; the pretrained encoder comes first.
        classes: Results of the pretrained encoder's probe, one entry per class.
        unscored: Classes that the CinC 2021 Challenge's score needs and the task lacks; the score is given if there are
            none.
    """

    models: tuple[ModelDecisions, ...]
    classes: tuple[ClassOperating, ...]
    unscored: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerGroup:
    """Results of the pretrained encoder's probe in one group of patients.

    Attributes:
        column: Name of the column that defines the groups.
        group: Name of the group.
        records, patients: Numbers of test records and patients in the group.
        classes: Number of classes that the metric is averaged over; 0 for a quantity.
        metrics: Metrics in the group with intervals, by name; empty if there are too few records.
        gaps: Paired differences in these metrics, the group's minus that of all other records, by name.
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
    """Result of the experiment on a quantity or on several classes.

    Attributes:
        rows: Results of each model; the pretrained encoder comes first.
        compared: Name of the metric that models are compared by. It is the primary metric; if some classes are too rare
            for an interval of the mean over all classes, it is the mean over the other classes.
        outputs: Predictions for the test records, by the model's name.
        embeddings: Embeddings of the test records, `f32[test records, dim]`, by encoder (`"pretrained"`, `"random"`).
        classes: Results for each class of a multi-label task; empty for a quantity.
        operating: Decisions on a multi-label task; None for a quantity.
        agreement: Bias and limits of agreement of a quantity on one record per patient, by the model's title.
        groups: Results of the pretrained encoder's probe in every group of patients.
        near: Retrieval among nearest neighbours in the embeddings of both encoders.
        measurement_failures: Number of records that lack an interval or amplitude, by reason.
        bootstrap: Number of bootstrap resamples.
        seed: Seed of the resampling.
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
        """Returns the paired difference of the pretrained encoder from another model.

        Raises:
            ValueError: The model is the pretrained encoder's own.
        """
        if (difference := self.row(name).difference) is None:
            raise ValueError(f"{name!r} is what the others are compared with")
        return difference


def one_a_patient(patients: np.ndarray) -> np.ndarray:
    """Returns the row of each patient's first record, `int64[patients]`, in ascending order."""
    return np.sort(np.unique(patients, return_index=True)[1])


def common_is_fewer(labels: np.ndarray) -> bool:
    """Returns whether some class has both labels but too few records of one of them."""
    positives = labels.sum(axis=0)
    return len(common_classes(labels)) < int(((positives > 0) & (positives < len(labels))).sum())
