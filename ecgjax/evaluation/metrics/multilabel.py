"""Metrics of tasks with several classes: a metric of every class, and the plain mean over the classes that have one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.ranking import RankedScores, undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric, estimate

#: Function of labels `[n]` and scores `[n]` that returns the metric of a class.
MetricOf = Callable[[np.ndarray, np.ndarray], Metric]


def auroc_of(labels: np.ndarray, scores: np.ndarray) -> Metric:
    """Returns the AUROC as a metric, see `ranking.RankedScores`."""
    return RankedScores(labels, scores).auroc


def auprc_of(labels: np.ndarray, scores: np.ndarray) -> Metric:
    """Returns the average precision as a metric, see `ranking.RankedScores`."""
    return RankedScores(labels, scores).auprc


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByClass:
    """A metric of every class that has both labels.

    Attributes:
        metrics: Metrics by class, over which `macro` is the mean.
        left_out: Reasons why classes have no metric, by class, such as `"none of 60 records is positive"`.
        number: Number of records.
    """

    metrics: Mapping[str, Metric]
    left_out: Mapping[str, str]
    number: int

    def macro(self, weights: np.ndarray) -> np.ndarray:
        """Returns the mean over the classes in `metrics`: `f64[weightings]`, itself a `weighting.Metric`."""
        return macro_of(self.metrics.values())(weights)

    def estimates(self) -> dict[str, float]:
        """Returns the metric of each class on the records as they are."""
        return {name: estimate(metric, self.number) for name, metric in self.metrics.items()}


def macro_of(metrics: Collection[Metric]) -> Metric:
    """Returns the plain mean of metrics of classes.

    The mean is NaN where one of them is undefined: a mean over whichever classes a resample happens to have would be
    another metric in each resample.
    """

    def metric(weights: np.ndarray) -> np.ndarray:
        weights = np.atleast_2d(weights)
        if not metrics:
            return np.full(len(weights), math.nan)
        return np.mean([each(weights) for each in metrics], axis=0)

    return metric


def by_class(labels: np.ndarray, scores: np.ndarray, *, classes: Sequence[str], metric: MetricOf = auroc_of) -> ByClass:
    """Computes a metric for every class.

    Args:
        labels: Labels, `[n, classes]`, 0 or 1.
        scores: Scores, `[n, classes]`, larger for a more likely positive.
        classes: Names of the columns.
        metric: Function that returns the metric of a class.

    Raises:
        DataError: Shapes differ, a name comes twice, a label is not 0 or 1, or a score is not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 2 or labels.shape != scores.shape or labels.shape[1] != len(classes):
        raise DataError(
            f"labels {labels.shape} and scores {scores.shape} must both be records × classes, of {len(classes)} classes"
        )
    if len(set(classes)) != len(classes):
        raise DataError(f"a class is named twice: {', '.join(classes)}")
    if not np.isin(labels, (0, 1)).all():
        raise DataError("labels must be 0 or 1; leave records without a label out before scoring")
    metrics, left_out = {}, {}
    for column, name in enumerate(classes):
        if reason := undefined_reason(labels[:, column]):
            left_out[name] = reason
        else:
            metrics[name] = metric(labels[:, column], scores[:, column])
    return ByClass(metrics=metrics, left_out=left_out, number=len(labels))
