"""Measures a yes-or-no task beyond its metrics: calibrated decisions, net benefit, and a control on shuffled labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.calibration import expected_calibration_error
from ecgjax.evaluation.metrics.clustered_auroc import interval_of_few
from ecgjax.evaluation.metrics.few_patients import without_few
from ecgjax.evaluation.metrics.needs import needed_for
from ecgjax.evaluation.metrics.operating_points import Decisions, net_benefit
from ecgjax.evaluation.metrics.subgroups import decision_metrics, too_few_events
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.shuffled_labels import shuffle_control
from ecgjax.evaluation.results import Key, measured, minus
from ecgjax.studies.model_names import REFERENCE
from ecgjax.studies.one_task.calibrated import RESAMPLES, Calibrated, calibrated
from ecgjax.studies.one_task.supplement import Measured, Report, Supplement

#: Name of treating everybody, which stands beside the models' names.
TREAT_ALL = "treat_all"


class Binary(Supplement):
    """Measurements of a yes-or-no task; see `Supplement`."""

    gaps = ("sensitivity", "false-positive rate", "mean probability minus frequency")
    counted = "positive"
    most_resamples = RESAMPLES

    def measure(
        self, models: Mapping[str, Answers], data: ProbeData, report: Report, *, embeddings: SplitFeatures
    ) -> tuple[dict[Key, Interval], dict[str, Any]]:
        """Calibrates every model on validation, chooses its thresholds there, and measures it on the test records.

        Args and result are those of `Supplement.measure`; the facts are the thresholds of every model and the control.
        """
        rows, thresholds = decisions_of(models, data, report)
        control = shuffle_control(
            embeddings, data, shuffles=report.shuffles, seed=report.seed, progress=report.progress
        )
        return rows, {"thresholds": thresholds, "shuffled_labels": dataclasses.asdict(control)}

    def of_group(self, answers: Answers, data: ProbeData, mask: np.ndarray) -> Measured:
        """Measures decisions in a group of patients, at the threshold that was chosen for all patients.

        Args and result are those of `Supplement.of_group`.
        """
        labels = data.test.labels
        events = int(labels[mask].sum())
        if reason := too_few_events(labels[mask]):
            return Measured({}, events, reason)
        used = calibrated(answers, data)
        return Measured(decision_metrics(labels, used.probabilities, mask, threshold=used.threshold), events)

    def of_few(
        self, interval: Interval, metric: str, models: Mapping[str, Answers], data: ProbeData, mask: np.ndarray
    ) -> Interval:
        """Returns an interval that is valid for few patients too; see `Supplement.of_few`."""
        test = data.test
        if metric != "AUROC":
            return without_few(interval, metric, test.labels[mask], patients=test.patients[mask])
        probabilities = calibrated(models[REFERENCE], data).probabilities
        return interval_of_few(interval, test.labels[mask], probabilities[mask], patients=test.patients[mask])


def decisions_of(
    models: Mapping[str, Answers], data: ProbeData, report: Report
) -> tuple[dict[Key, Interval], dict[str, float]]:
    """Calibrates models on validation, chooses their thresholds there, and measures them on the test records.

    Args:
        models: Predictions of every model, by its key.
        data: Labelled records of the task.
        report: Settings of the report.

    Returns:
        The results, and the threshold of every model.
    """
    labels, title = data.test.labels, data.task.title
    used = {name: calibrated(answers, data) for name, answers in models.items()}
    metrics: dict[Key, Metric] = {}
    for name, each in used.items():
        own = each.metrics(labels) | _shares(each, labels, report.prevalence)
        own["ECE"] = expected_calibration_error(labels, each.probabilities)
        metrics |= {Key(name, metric, title): function for metric, function in own.items()}
    resamples = min(report.resamples, RESAMPLES)
    draws: dict[str, Any] = {"patients": data.test.patients, "resamples": resamples, "seed": report.seed}
    rows = measured(metrics, needs=lambda key: needed_for(key.metric), **draws)
    rows = {key: without_few(value, key.metric, labels, patients=data.test.patients) for key, value in rows.items()}
    # Treating everybody is what a model does that is always certain.
    probabilities = {name: each.probabilities for name, each in used.items()} | {TREAT_ALL: np.ones(len(labels))}
    benefits = {
        Key(name, benefit_at(threshold), title): net_benefit(labels, values, threshold=threshold)
        for name, values in probabilities.items()
        for threshold in report.treat_at
    }
    above = {each: pair for name in used for each, pair in minus(benefits, name, [TREAT_ALL]).items()}
    rows |= measured(benefits, needs="records", differences=above, **draws)
    return rows, {name: each.threshold for name, each in used.items()}


def benefit_at(threshold: float) -> str:
    """Returns the metric's name for the net benefit of treating everybody with at least this probability."""
    return f"net benefit at {threshold:g}"


def _shares(used: Calibrated, labels: np.ndarray, prevalence: float | None) -> dict[str, Metric]:
    """Returns PPV and NPV at the threshold with the best F1, by name; with a prevalence, also as they would be at it.

    Args:
        used: Calibrated probabilities and thresholds of a model.
        labels: Labels of the test records, `[n]` of 0 and 1.
        prevalence: Share of positives in another population; None for none.
    """
    made = Decisions(labels, used.probabilities, threshold=used.threshold)
    shares = {"PPV": made.ppv, "NPV": made.npv}
    if prevalence is not None:
        shares |= {f"PPV at {prevalence:g}": made.ppv_at(prevalence), f"NPV at {prevalence:g}": made.npv_at(prevalence)}
    return shares
