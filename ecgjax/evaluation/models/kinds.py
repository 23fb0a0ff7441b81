"""Kinds of tasks: the metrics of a kind, and the properties of models for it.

A new kind is a class and an entry of `KINDS` here, and a task of that kind in `ecgjax/data/tasks.py`. All studies,
models and pages use these. What a kind does not define has the default of `QuestionKind`. To report another metric in
every study, add it to what `metrics` of a kind returns; metrics are computed in `ecgjax/evaluation/metrics/`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from scipy import special

from data_pipelines.system.counted import counted
from ecgjax.data.labels import MIN_EVENTS, LabelledRecords, ProbeData, common_classes
from ecgjax.data.tasks import Kind, Task
from ecgjax.evaluation.metrics import regression
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.multilabel import auprc_of, auroc_of, by_class, macro_of
from ecgjax.evaluation.metrics.ranking import RankedScores, undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric, estimate

#: The `reason` of a `DataError` that says why labels and settings give no model. Other errors are about damaged data.
NO_MODEL = "no_model"


class QuestionKind(abc.ABC):
    """Properties that all tasks of a kind share.

    Attributes:
        primary: Name of the metric by which models are chosen and compared; higher is better.
        needs: Description of what records must have for metrics to be defined that `needs.py` does not know.
        log_odds: Whether a model predicts log odds, and not values in the unit of a quantity.
        alike: Relation of two records whose features metric learning pulls together: `"same_label"`, or `"same_record"`
            for a record and itself; empty where the kind has none.
        strengths: Inverse L2 strengths C of a logistic regression to choose from, strongest regularisation first.
        iterations: Largest number of iterations of a logistic regression.
        yes_or_no: Whether a record has one label, which is 0 or 1.
        fewest_positives: Sentence that explains a column of fewest positive records; empty where there is no such
            column.
    """

    primary: ClassVar[str]
    needs: ClassVar[str]
    log_odds: ClassVar[bool] = True
    alike: ClassVar[Literal["same_label", "same_record", ""]] = ""
    # At the strong end the direction no longer changes (it is the difference of the class means); at the weak end a few
    # hundred labels with 512 features are fitted perfectly.
    strengths: ClassVar[tuple[float, ...]] = tuple(float(c) for c in np.logspace(-5, 1, 13))
    iterations: ClassVar[int] = 2000
    yes_or_no: ClassVar[bool] = False
    fewest_positives: ClassVar[str] = ""

    @abc.abstractmethod
    def metrics(self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> dict[str, Metric]:
        """Returns the metrics by name, the primary one first.

        Args:
            targets: Targets, `[n]`, or `[n, classes]` where a record has several labels.
            outputs: Outputs of the shape of the targets: log odds, or values in the quantity's unit.
            classes: Names of the columns where a record has several labels.

        Raises:
            DataError: Shapes differ, labels are not 0 or 1, or outputs are not finite.
        """

    @abc.abstractmethod
    def undefined(self, targets: np.ndarray) -> str:
        """Returns the reason why the primary metric is undefined for these targets, or "" where it is defined."""

    def estimates(self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> dict[str, float]:
        """Returns the values of `metrics` on the records, by name, NaN where undefined; arguments as of `metrics`."""
        metrics = self.metrics(targets, outputs, classes=classes)
        return {name: estimate(metric, len(targets)) for name, metric in metrics.items()}

    def value(self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> float:
        """Returns the primary metric on the records, NaN where undefined; its arguments are those of `metrics`."""
        return estimate(self.metrics(targets, outputs, classes=classes)[self.primary], len(targets))

    def loss(self, targets: np.ndarray, outputs: np.ndarray) -> float:
        """Returns the mean cross-entropy of log odds, in nats, or the mean squared error of values."""
        targets, outputs = np.asarray(targets, np.float64), np.asarray(outputs, np.float64)
        if not self.log_odds:
            return float(np.mean((outputs - targets) ** 2))
        return float(-np.mean(special.log_expit(np.where(targets == 1, outputs, -outputs))))

    def of_classes(
        self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()
    ) -> dict[str, Interval]:
        """Returns the AUROC of each class, without an interval; empty where a record has one label."""
        del targets, outputs, classes
        return {}

    def compared(self, targets: np.ndarray) -> str:
        """Returns the name, among those of `metrics`, of the metric that models are compared by on these records."""
        del targets
        return self.primary

    def positives(self, labels: np.ndarray) -> int | None:
        """Returns the number of positive records, of the class that has most; None for a quantity."""
        return int(np.max(labels.sum(axis=0))) if self.log_odds else None

    def few(self, labels: np.ndarray) -> str:
        """Returns a phrase on the label that too few test records have; empty where there are enough."""
        del labels
        return ""

    def enough_for_curves(self, labels: np.ndarray) -> bool:
        """Returns whether a curve of these test records would have more than a few steps."""
        return not self.few(labels)

    def in_folds(self, answers: np.ndarray, folds: np.ndarray) -> str:
        """Returns sentences on the folds that have positive records, if a split has too few; empty without labels 0, 1.

        Args:
            answers: Labels of all records of the data set, `f64[records]`, NaN where missing.
            folds: Fold of each record, `int[records]`.
        """
        del answers, folds
        return ""

    def spread(self, labels: np.ndarray) -> str:
        """Returns the distribution of labels as text, for a column titled `spread_title`."""
        return f"{labels.mean():.4g} ± {labels.std():.3g} [{labels.min():.4g}, {labels.max():.4g}]"

    #: Title of a column of `spread`.
    spread_title: ClassVar[str] = "mean ± SD [range]"

    def counts(self, part: LabelledRecords) -> str:
        """Returns the size of the training, validation or test part as text."""
        return f"{counted(len(part.records), 'record')} of {counted(part.num_patients, 'patient')}"

    def answer_text(self, task: Task, label: np.ndarray, *, classes: Sequence[str]) -> str:
        """Returns a record's label as text."""
        del classes
        return f"{task.title} {label:.4g}"

    def examples(self, data: ProbeData) -> tuple[str, list[tuple[str, np.ndarray]]]:
        """Returns a description of the test records to show as examples, and a title and candidate rows for each.

        Args:
            data: Labelled records of the task.
        """
        labels = data.test.labels
        low, high = np.quantile(labels, (0.1, 0.9))
        return "a test record from the highest and one from the lowest tenth of the values", [
            ("A record from the highest tenth", np.flatnonzero(labels >= high)),
            ("A record from the lowest tenth", np.flatnonzero(labels <= low)),
        ]


class Binary(QuestionKind):
    """A task with the labels yes (1) and no (0)."""

    primary, needs, yes_or_no = "AUROC", "positive and negative records", True
    alike = "same_label"
    spread_title = "positive"
    fewest_positives = " Fewest positives are the positive training records of the seed that has fewest."

    def metrics(self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> dict[str, Metric]:
        """Returns AUROC and AUPRC."""
        del classes
        ranked = RankedScores(targets, outputs)
        return {"AUROC": ranked.auroc, "AUPRC": ranked.auprc}

    def undefined(self, targets: np.ndarray) -> str:
        """Returns that one of the two labels is missing; empty where both are there."""
        return undefined_reason(targets)

    def few(self, labels: np.ndarray) -> str:
        """Returns the number of positive or of negative records, whichever is smaller, where it is too small."""
        positives = int(labels.sum())
        fewest, name = min((positives, "positive"), (len(labels) - positives, "negative"))
        return f"only {counted(fewest, f'{name} test record')}" if fewest < MIN_EVENTS else ""

    def in_folds(self, answers: np.ndarray, folds: np.ndarray) -> str:
        """Returns sentences on the numbers of positive records of every fold, and on how to choose folds."""
        counts = [f"{np.count_nonzero(answers[folds == fold] == 1):,} in fold {fold}" for fold in np.unique(folds)]
        return (
            f"Of all records {np.count_nonzero(answers == 1):,} are positive ({', '.join(counts)}): choose others by "
            "config.data.train_folds, val_folds and test_folds, or another threshold. "
        )

    def spread(self, labels: np.ndarray) -> str:
        """Returns the number and share of positive records."""
        return _share(labels)

    def counts(self, part: LabelledRecords) -> str:
        """Returns the numbers of records, of positive records and of patients."""
        records, patients = counted(len(part.records), "record"), counted(part.num_patients, "patient")
        return f"{records} ({part.positives:,} positive) of {patients}"

    def answer_text(self, task: Task, label: np.ndarray, *, classes: Sequence[str]) -> str:
        """Returns the task's title with yes or no."""
        del classes
        return f"{task.title}: {'yes' if label else 'no'}"

    def examples(self, data: ProbeData) -> tuple[str, list[tuple[str, np.ndarray]]]:
        """Returns the positive and the negative records as candidates for examples."""
        rows = [(f"A {name} record", np.flatnonzero(data.test.labels == label)) for name, label in _SIGNS]
        return "a positive and a negative test record", rows


_SIGNS = (("positive", 1), ("negative", 0))


class MultiLabel(QuestionKind):
    """A task with several classes, of which a record can have any number."""

    primary, needs = "macro AUROC", "positive and negative records of every class"
    # The strengths, one for all classes, are coarser than those of a single label: each takes a fit for every class.
    strengths = tuple(float(c) for c in np.logspace(-5, 1, 7))
    iterations = 500
    spread_title = "positive for any class"
    fewest_positives = " Fewest positives are those of the class with most, in the seed where it has fewest."

    def metrics(self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> dict[str, Metric]:
        """Returns means of AUROC and AUPRC over all classes, and of AUROC over the common classes if any is rare."""
        aurocs, auprcs = (by_class(targets, outputs, classes=classes, metric=each) for each in (auroc_of, auprc_of))
        metrics: dict[str, Metric] = {"macro AUROC": aurocs.macro, "macro AUPRC": auprcs.macro}
        if (compared := self.compared(targets)) not in metrics:
            metrics[compared] = macro_of([aurocs.metrics[classes[column]] for column in common_classes(targets)])
        return metrics

    def of_classes(
        self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()
    ) -> dict[str, Interval]:
        """Returns the AUROC of each class, or the reason why it is undefined."""
        found = by_class(targets, outputs, classes=classes)
        values = {name: Interval.alone(value) for name, value in found.estimates().items()}
        return values | {name: Interval.missing(reason) for name, reason in found.left_out.items()}

    def compared(self, targets: np.ndarray) -> str:
        """Returns the name of the mean over all classes, or over the common ones if any is too rare for an interval."""
        common = len(common_classes(targets))
        return f"macro AUROC of {common} classes" if common and common_is_fewer(targets) else self.primary

    def value(self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> float:
        """Returns the macro AUROC alone: models are chosen by it, and average precision takes as long again."""
        return estimate(by_class(targets, outputs, classes=classes).macro, len(targets))

    def undefined(self, targets: np.ndarray) -> str:
        """Returns that no class has both labels; empty where one has."""
        both = [column for column in np.asarray(targets).T if not undefined_reason(column)]
        return "" if both else f"no class of {np.shape(targets)[1]} has both labels in {len(targets)} records"

    def spread(self, labels: np.ndarray) -> str:
        """Returns the number and share of records that are positive for any class."""
        return _share(np.any(labels, axis=1))

    def answer_text(self, task: Task, label: np.ndarray, *, classes: Sequence[str]) -> str:
        """Returns the names of the classes that a record has, as text."""
        names = [name for name, positive in zip(classes, label, strict=True) if positive]
        return f"classes: {' and '.join(names) or 'none'}"

    def examples(self, data: ProbeData) -> tuple[str, list[tuple[str, np.ndarray]]]:
        """Returns the records with at least one class, and all records, as candidates for examples."""
        return "two test records, the first with at least one of the classes if there is such a record", [
            ("A record with at least one class", np.flatnonzero(data.test.labels.any(axis=1))),
            ("Any record", np.arange(len(data.test.labels))),
        ]


def common_is_fewer(labels: np.ndarray) -> bool:
    """Returns whether some class has both labels but too few records of one of them to be common (`common_classes`).

    Args:
        labels: Labels, `[n, classes]`, 0 or 1.
    """
    positives = labels.sum(axis=0)
    return len(common_classes(labels)) < int(((positives > 0) & (positives < len(labels))).sum())


class Quantity(QuestionKind):
    """A quantity, predicted in its own unit."""

    primary, needs, log_odds = "R²", "values that differ", False
    alike = "same_record"

    def metrics(self, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> dict[str, Metric]:
        """Returns R², Pearson's correlation, and the errors in the quantity's unit."""
        del classes
        return {
            "R²": regression.r_squared(targets, outputs),
            "Pearson's r": regression.pearson(targets, outputs),
            "RMSE": regression.rmse(targets, outputs),
            "MAE": regression.mae(targets, outputs),
        }

    def undefined(self, targets: np.ndarray) -> str:
        """Returns that there are no records, or that all have the same value; empty where neither holds."""
        if len(targets) == 0:
            return "no records"
        return "" if np.ptp(targets) > 0 else f"all {len(targets)} records have the same value"


def _share(positive: np.ndarray) -> str:
    return f"{int(positive.sum()):,} ({positive.sum() / len(positive):.1%})"


#: Every kind, by the name that a task has.
KINDS: Mapping[Kind, QuestionKind] = {"binary": Binary(), "multilabel": MultiLabel(), "quantity": Quantity()}


def kind_of(task: Task) -> QuestionKind:
    """Returns the kind of a task."""
    return KINDS[task.kind]
