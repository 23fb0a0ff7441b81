"""Decisions on each class of a multi-label task: calibrated and given thresholds on validation, judged on test.

For every model, the threshold of each class is the one with the best F1. Metrics of single classes are given for the
pretrained encoder's probe alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_pipelines.metadata.snomed import SCORED_CLASSES
from ecgjax.data.labels import ProbeData, common_classes
from ecgjax.evaluation.metrics.bootstrap import Bootstrap, bootstrap_metrics
from ecgjax.evaluation.metrics.calibration import LogisticCalibration, brier
from ecgjax.evaluation.metrics.cinc2021 import challenge_score, unscored
from ecgjax.evaluation.metrics.multilabel import macro_of
from ecgjax.evaluation.metrics.operating_points import Decisions
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.studies.answers import ClassesOperating, ClassOperating, Contestant, ModelDecisions, common_is_fewer
from ecgjax.studies.comparison import REFERENCE
from ecgjax.studies.operating import RESAMPLES, SPECIFICITY, Calibrated, calibrate

#: Name under which the score of the CinC 2021 Challenge stands among the metrics.
CHALLENGE = "CinC 2021 score"


def operate_classes(
    contestants: Mapping[str, Contestant], data: ProbeData, *, resamples: int, seed: int
) -> ClassesOperating:
    """Calibrates every class of every model on validation, chooses thresholds there, and judges the test records.

    Args:
        contestants: Models by name.
        data: Labelled records of the task.
        resamples: Number of bootstrap resamples of the patients, the same for all models; at most `operating.RESAMPLES`
            are drawn.
        seed: Seed of the resampling.
    """
    # A class without both labels on validation has no threshold, and models never answer it.
    chosen = [column for column in range(len(data.classes)) if not undefined_reason(data.val.labels[:, column])]
    judged = [column for column in chosen if not undefined_reason(data.test.labels[:, column])]
    metrics: dict[str, Metric] = {}
    of_models, of_classes = {}, {}
    for name, contestant in contestants.items():
        used = {
            column: calibrate(
                data.val.labels[:, column], contestant.val_outputs[:, column], contestant.outputs[:, column]
            )
            for column in chosen
        }
        own = _of_model(used, data, judged=judged)
        metrics |= {f"{name}\t{metric}": function for metric, function in own.items()}
        of_models[name] = tuple(own)
        if name == REFERENCE:
            thresholds = {column: each.threshold for column, each in used.items()}
            for column in judged:
                own = _of_class(used[column], data.test.labels[:, column])
                metrics |= {f"{column}\t{metric}": function for metric, function in own.items()}
                of_classes[column] = tuple(own)
    found = bootstrap_metrics(
        metrics,
        patients=data.test.patients,
        resamples=min(resamples, RESAMPLES),
        seed=seed,
        needs="both labels, not wholly separated, and records on both sides of the threshold",
    )
    return ClassesOperating(
        models=tuple(
            ModelDecisions(
                name=name,
                title=contestants[name].title,
                metrics={metric: found.interval(f"{name}\t{metric}") for metric in names},
                differences={
                    metric: found.difference(f"{REFERENCE}\t{metric}", f"{name}\t{metric}")
                    for metric in names
                    if name != REFERENCE
                },
            )
            for name, names in of_models.items()
        ),
        classes=tuple(
            _class(column, data, threshold=thresholds.get(column), names=of_classes.get(column, ()), found=found)
            for column in range(len(data.classes))
        ),
        unscored=unscored(data.classes),
    )


def _of_model(used: Mapping[int, Calibrated], data: ProbeData, *, judged: list[int]) -> dict[str, Metric]:
    """Returns a model's metrics over all classes: macro F1, and the challenge's score if its classes are there."""
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
        answers = np.zeros_like(labels)
        for column, each in used.items():
            answers[:, column] = each.probabilities >= each.threshold
        columns = [data.classes.index(name) for name in SCORED_CLASSES]
        metrics[CHALLENGE] = challenge_score(labels[:, columns], answers[:, columns], classes=SCORED_CLASSES)
    return metrics


def _of_class(used: Calibrated, labels: np.ndarray) -> dict[str, Metric]:
    best, strict = (Decisions(labels, used.probabilities, threshold=each) for each in (used.threshold, used.strict))
    logistic = LogisticCalibration(labels, used.probabilities)
    return {
        "F1": best.f1,
        "sensitivity": best.sensitivity,
        "specificity": best.specificity,
        f"sensitivity at {SPECIFICITY:g}": strict.sensitivity,
        "specificity there": strict.specificity,
        "Brier": brier(labels, used.probabilities),
        "slope": logistic.slope,
        "intercept": logistic.intercept,
    }


def _class(
    column: int, data: ProbeData, *, threshold: float | None, names: tuple[str, ...], found: Bootstrap
) -> ClassOperating:
    val, test = data.val.labels[:, column], data.test.labels[:, column]
    reasons = {"validation": undefined_reason(val), "test": undefined_reason(test)}
    return ClassOperating(
        name=data.classes[column],
        val_positives=int(val.sum()),
        positives=int(test.sum()),
        threshold=threshold,
        metrics={metric: found.interval(f"{column}\t{metric}") for metric in names},
        reason=next((f"{split}: {reason}" for split, reason in reasons.items() if reason), ""),
    )
