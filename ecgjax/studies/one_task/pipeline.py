"""The experiment on one task of any kind: models on the same labelled records, measured on the same resamples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.data.tasks import Kind
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.clustered_auroc import interval_of_few
from ecgjax.evaluation.metrics.few_patients import without_few, without_too_few
from ecgjax.evaluation.metrics.needs import needed_for
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Key, Results, measured, minus
from ecgjax.studies.model_names import REFERENCE
from ecgjax.studies.one_task.binary import Binary
from ecgjax.studies.one_task.multilabel import MultiLabel
from ecgjax.studies.one_task.neighbours import Sought, neighbourhoods
from ecgjax.studies.one_task.quantity import Quantity
from ecgjax.studies.one_task.supplement import Group, Report, Supplement
from ecgjax.studies.readouts import pairs_of

#: What is measured beyond the metrics of every model, by kind of question; kinds without an entry have their groups.
SUPPLEMENTS: Mapping[Kind, Supplement] = {"binary": Binary(), "multilabel": MultiLabel(), "quantity": Quantity()}


def supplement_of(data: ProbeData) -> Supplement:
    """Returns the object that measures a task beyond the metrics of every model, by the task's kind."""
    return SUPPLEMENTS.get(data.task.kind, Supplement())


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneTask:
    """Result of the experiment.

    Attributes:
        data: Labelled records that the results rest on.
        models: Predictions of every model, by its key.
        results: Every number that was measured, with its interval; differences are the pretrained encoder's minus
            another model's.
        compared: Name of the metric that models are compared by. It is the primary metric; if some classes are too rare
            for an interval of the mean over all classes, it is the mean over the other classes.
        embeddings: Embeddings of the test records, `f32[test records, dim]`, by encoder (`"pretrained"`, `"random"`).
        groups: Groups of patients, in the order of tables.
        sought: Retrievals in the embedding space.
        facts: Plain values that are no metrics, such as thresholds.
        measurement_failures: Number of records that lack an interval or amplitude, by reason.
        report: What the report was asked for.
    """

    data: ProbeData
    models: Mapping[str, Answers]
    results: Results
    compared: str
    embeddings: Mapping[str, np.ndarray]
    groups: list[Group]
    sought: list[Sought]
    facts: Mapping[str, Any]
    measurement_failures: Mapping[str, int]
    report: Report

    def value(self, model: str, metric: str, *, minus: str = "", part: str = "") -> Interval:
        """Returns a number of `results`.

        Args:
            model: Key of the model.
            metric: Name of the metric.
            minus: Key of the model that is subtracted; empty for no difference.
            part: Class, group or match that the number is about; empty for the whole task.
        """
        return self.results[Key(model, metric, self.data.task.title, minus=minus, part=part)]


def measure_task(
    models: Mapping[str, Answers],
    data: ProbeData,
    report: Report,
    *,
    embeddings: Mapping[str, SplitFeatures],
    measurement_failures: Mapping[str, int],
) -> OneTask:
    """Computes all results of the models' predictions for one task.

    Args:
        models: Predictions of every model, by its key; one is `model_names.REFERENCE`.
        data: Labelled records of the task.
        report: Settings of the report.
        embeddings: Embeddings of the labelled records, by encoder.
        measurement_failures: Number of records that lack an interval or amplitude, by reason.

    Raises:
        DataError: The labels do not define the metrics.
    """
    test, supplement = data.test, supplement_of(data)
    of_test = {name: each.test for name, each in embeddings.items()}
    rows = metrics_of(models, data, report)
    further, facts = supplement.measure(models, data, report, embeddings=embeddings[REFERENCE])
    of_groups, groups = supplement.groups(models, data, report)
    labels, patients = test.labels if kind_of(data.task).yes_or_no else None, test.patients
    near, sought = neighbourhoods(
        of_test, task=data.task.title, labels=labels, patients=patients, resamples=report.resamples, seed=report.seed
    )
    return OneTask(
        data=data,
        models=models,
        results=rows | further | of_groups | near,
        compared=kind_of(data.task).compared(test.labels),
        embeddings=of_test,
        groups=groups,
        sought=sought,
        facts=facts,
        measurement_failures=measurement_failures,
        report=report,
    )


def metrics_of(models: Mapping[str, Answers], data: ProbeData, report: Report) -> dict[Key, Interval]:
    """Returns the metrics of every model, and the pretrained encoder's differences from all others.

    Args:
        models: Predictions of every model, by its key.
        data: Labelled records of the task.
        report: Settings of the report.
    """
    kind, test = kind_of(data.task), data.test
    outputs = {name: each for name, answers in models.items() if (each := answers.outputs) is not None}
    metrics = {
        Key(name, metric, data.task.title): function
        for name, each in outputs.items()
        for metric, function in kind.metrics(test.labels, each, classes=data.classes).items()
    }
    differences = minus(metrics, REFERENCE, tuple(models))
    for one, other in pairs_of(tuple(models)):
        differences |= minus(metrics, one, [other])
    rows = measured(
        metrics, patients=test.patients, resamples=report.resamples, seed=report.seed, differences=differences,
        needs=lambda key: needed_for(key.metric, kind.needs),
    )  # fmt: skip
    for key, value in rows.items():
        # Where few patients have a label, the interval of a bootstrap is too short.
        if key.metric == "AUROC" and not key.minus:
            rows[key] = interval_of_few(value, test.labels, outputs[key.model], patients=test.patients)
        elif kind.yes_or_no:
            bounded = without_too_few if key.minus else without_few
            rows[key] = bounded(value, key.metric, test.labels, patients=test.patients)
    return rows
