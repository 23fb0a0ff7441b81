"""Measures a task of several classes: the AUROC of every class, and calibrated decisions at thresholds.

For every model, the threshold of each class is the one with the best F1 on validation. Decisions on single classes are
given for the pretrained encoder's probe alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.metadata.snomed import SCORED_CLASSES
from ecgjax.data.labels import ProbeData, common_classes
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.cinc2021 import challenge_score, unscored
from ecgjax.evaluation.metrics.clustered_auroc import interval_of_few
from ecgjax.evaluation.metrics.few_patients import without_few
from ecgjax.evaluation.metrics.multilabel import by_class, macro_of
from ecgjax.evaluation.metrics.needs import needed_for
from ecgjax.evaluation.metrics.operating_points import Decisions
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric, on_rows
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import common_is_fewer
from ecgjax.evaluation.results import Key, measured, minus
from ecgjax.studies.model_names import REFERENCE
from ecgjax.studies.one_task.calibrated import RESAMPLES, Calibrated, calibrated
from ecgjax.studies.one_task.supplement import Measured, Report, Supplement

#: Name under which the score of the CinC 2021 Challenge stands among the metrics.
CHALLENGE = "CinC 2021 score"

#: Models whose AUROC is reported for each class.
BY_CLASS = (REFERENCE, "random", "supervised")


class ClassCounts(NamedTuple):
    """Counts of one class of a task, and its threshold.

    Attributes:
        name: Name of the class.
        train_positives, val_positives, positives: Numbers of positive training, validation and test records.
        patients: Number of test patients with a positive record.
        threshold: Probability threshold of the pretrained encoder's probe with the best F1 on validation; None if
            validation lacks one of the two labels.
        undecided: Reason why there are no decisions; empty if there are.
        reason: Reason why there is no AUROC; empty if there is one.
    """

    name: str
    train_positives: int
    val_positives: int
    positives: int
    patients: int
    threshold: float | None
    undecided: str
    reason: str


class MultiLabel(Supplement):
    """Measurements of a task of several classes; see `Supplement`."""

    counted = "classes"

    def measure(
        self, models: Mapping[str, Answers], data: ProbeData, report: Report, *, embeddings: SplitFeatures
    ) -> tuple[dict[Key, Interval], dict[str, Any]]:
        """Measures every class, and decisions on all classes together.

        Args and result are those of `Supplement.measure`; the facts are the counts of every class, and the classes that
        the CinC 2021 score lacks.
        """
        del embeddings
        rows, used = decisions_of_classes(models, data, report)
        return rows, {
            "classes": [_counts(column, data, used[REFERENCE].get(column)) for column in range(len(data.classes))],
            "unscored": unscored(data.classes),
        }

    def of_group(self, answers: Answers, data: ProbeData, mask: np.ndarray) -> Measured:
        """Measures the mean AUROC over the classes common enough in a group of patients; see `Supplement.of_group`."""
        labels, records = data.test.labels, np.flatnonzero(mask)
        columns = common_classes(labels[mask])
        if not columns or answers.outputs is None:
            return Measured({}, 0, "too few records")
        place = np.ix_(records, np.array(columns))
        macro = by_class(labels[place], answers.outputs[place], classes=[data.classes[c] for c in columns]).macro
        return Measured({"macro AUROC": on_rows(macro, records)}, len(columns))


def decisions_of_classes(
    models: Mapping[str, Answers], data: ProbeData, report: Report
) -> tuple[dict[Key, Interval], dict[str, dict[int, Calibrated]]]:
    """Measures the AUROC of every class, and decisions that are calibrated on validation.

    Args:
        models: Predictions of every model, by its key.
        data: Labelled records of the task.
        report: Settings of the report.

    Returns:
        The results, and calibrated probabilities and thresholds by model and number of the class.
    """
    # A class without both labels on validation has no threshold, and models never answer it.
    chosen = [column for column in range(len(data.classes)) if not undefined_reason(data.val.labels[:, column])]
    used = {name: {column: calibrated(each, data, column) for column in chosen} for name, each in models.items()}
    return _aurocs(models, data, report) | _decisions(used, data, report), used


def _aurocs(models: Mapping[str, Answers], data: ProbeData, report: Report) -> dict[Key, Interval]:
    labels, patients = data.test.labels, data.test.patients
    outputs = {name: each for name in BY_CLASS if name in models and (each := models[name].outputs) is not None}
    metrics = {
        Key(model, "AUROC", data.task.title, part=name): metric
        for model, each in outputs.items()
        for name, metric in by_class(labels, each, classes=data.classes).metrics.items()
    }
    rows = measured(
        metrics, patients=patients, resamples=report.resamples, seed=report.seed, needs=needed_for("AUROC"),
        differences=minus(metrics, REFERENCE, ["random"]),
    )  # fmt: skip
    for key, value in rows.items():
        if not key.minus:
            column = data.classes.index(key.part)
            scores = outputs[key.model][:, column]
            rows[key] = interval_of_few(value, labels[:, column], scores, patients=patients)
    return rows


def _decisions(used: Mapping[str, Mapping[int, Calibrated]], data: ProbeData, report: Report) -> dict[Key, Interval]:
    labels, title = data.test.labels, data.task.title
    judged = [column for column in used[REFERENCE] if not undefined_reason(labels[:, column])]
    over_all = {
        Key(name, metric, title): function
        for name, own in used.items()
        for metric, function in _of_all_classes(own, data, judged=judged).items()
    }
    by_class = {
        Key(REFERENCE, metric, title, part=data.classes[column]): function
        for column in judged
        for metric, function in used[REFERENCE][column].metrics(labels[:, column]).items()
    }
    rows = measured(
        over_all | by_class,
        patients=data.test.patients,
        resamples=min(report.resamples, RESAMPLES),
        seed=report.seed,
        needs=lambda key: needed_for(key.metric),
        differences=minus(over_all, REFERENCE, tuple(used)),
    )
    for key in by_class:
        of_class = labels[:, data.classes.index(key.part)]
        rows[key] = without_few(rows[key], key.metric, of_class, patients=data.test.patients)
    return rows


def _of_all_classes(used: Mapping[int, Calibrated], data: ProbeData, *, judged: list[int]) -> dict[str, Metric]:
    """Returns a model's metrics over all classes: macro F1, and the CinC 2021 score if its classes are in the task.

    Args:
        used: Calibrated probabilities and thresholds by number of the class.
        data: Labelled records of the task.
        judged: Numbers of the classes with both labels on validation and test.
    """
    labels = data.test.labels
    f1 = {
        column: Decisions(labels[:, column], used[column].probabilities, threshold=used[column].threshold).f1
        for column in judged
    }
    metrics = {"macro F1": macro_of(f1.values())}
    common = [column for column in common_classes(labels) if column in f1]
    if common and common_is_fewer(labels[:, judged]):
        metrics[f"macro F1 of {len(common)} classes"] = macro_of([f1[column] for column in common])
    if not unscored(data.classes):
        # A class without a threshold stays unanswered.
        answers = np.zeros_like(labels)
        for column, each in used.items():
            answers[:, column] = each.probabilities >= each.threshold
        columns = [data.classes.index(name) for name in SCORED_CLASSES]
        metrics[CHALLENGE] = challenge_score(labels[:, columns], answers[:, columns], classes=SCORED_CLASSES)
    return metrics


def _counts(column: int, data: ProbeData, used: Calibrated | None) -> ClassCounts:
    train, val, test = (part.labels[:, column] for part in (data.train, data.val, data.test))
    reasons = {"validation": undefined_reason(val), "test": undefined_reason(test)}
    return ClassCounts(
        name=data.classes[column],
        train_positives=int(train.sum()),
        val_positives=int(val.sum()),
        positives=int(test.sum()),
        patients=len(np.unique(data.test.patients[test == 1])),
        threshold=None if used is None else used.threshold,
        undecided=next((f"{side}: {reason}" for side, reason in reasons.items() if reason), ""),
        reason=reasons["test"],
    )
