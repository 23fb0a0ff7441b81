"""AUROC and AUPRC of binary labels, for one weighting of the records or many at once.

The same function computes the point estimate and the bootstrap: a resample is a vector of integer weights on the
records, and a weighted metric needs one sort of the scores for any number of weightings.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.weighting import check_binary, divide, estimate


class RankedScores:
    """Labels and scores sorted once, for metrics under many weightings of the records.

    Attributes:
        labels: Labels, `int64[n]`, 0 or 1, in ascending order of the scores.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray):
        """Sorts the records by score.

        Args:
            labels: Labels, `[n]`, 0 or 1, of any numeric type.
            scores: Scores, `[n]`, larger for a more likely positive.

        Raises:
            DataError: Shapes differ, a label is not 0 or 1, or a score is not finite.
        """
        labels, scores = check_binary(labels, scores)
        self._order = np.argsort(scores, kind="stable")
        self.labels = labels[self._order]
        ranked = scores[self._order]
        # Records of equal score form one threshold: neither ranks above the other.
        self._threshold_starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]][: len(ranked)])

    def _weight_by_threshold(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the weight of positives and of negatives at each threshold, `f64[weighting, threshold]`."""
        weights = np.atleast_2d(np.asarray(weights, np.float64))
        if weights.shape[1] != len(self.labels):
            raise DataError(f"{weights.shape[1]} weights for {len(self.labels)} records")
        ranked = weights[:, self._order]
        positives = np.add.reduceat(ranked * self.labels, self._threshold_starts, axis=1)
        negatives = np.add.reduceat(ranked * (1 - self.labels), self._threshold_starts, axis=1)
        return positives, negatives

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Returns the AUROC under each weighting: `f64[weightings]`, NaN where a class has no weight.

        It is the probability that a positive outranks a negative, where a tie counts one half (Mann and Whitney 1947).

        Args:
            weights: Weights, `[weightings, n]`, non-negative, in the order in which the records were given.
        """
        positives, negatives = self._weight_by_threshold(weights)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return divide((positives * below).sum(axis=1), pairs)

    def auprc(self, weights: np.ndarray) -> np.ndarray:
        """Returns the average precision under each weighting: `f64[weightings]`, NaN where a class has no weight.

        It has the step form Σ (R_k − R_{k−1}) P_k, without interpolation (Davis and Goadrich 2006 show why).

        Args:
            weights: Weights, `[weightings, n]`, non-negative, in the order in which the records were given.
        """
        positives, negatives = self._weight_by_threshold(weights)
        # From the highest score downwards, as ever more records are called positive.
        true_positives = np.cumsum(positives[:, ::-1], axis=1)[:, ::-1]
        false_positives = np.cumsum(negatives[:, ::-1], axis=1)[:, ::-1]
        predicted = true_positives + false_positives
        precision = np.divide(true_positives, predicted, out=np.zeros_like(predicted), where=predicted > 0)
        total = np.where(negatives.sum(axis=1) > 0, positives.sum(axis=1), 0.0)
        return divide((positives * precision).sum(axis=1), total)


def undefined_reason(labels: np.ndarray) -> str:
    """Returns the reason why AUROC and AUPRC of these labels do not exist, or "" where they do.

    Args:
        labels: Labels, `[n]`, 0 or 1.
    """
    positives = int(np.count_nonzero(labels))
    if len(labels) == 0:
        return "no records"
    if positives == 0:
        return f"none of {len(labels)} records is positive"
    if positives == len(labels):
        return f"all {len(labels)} records are positive"
    return ""


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the area under the ROC curve, NaN where `undefined_reason(labels)` gives a reason.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        scores: Scores, `[n]`, larger for a more likely positive; ties count one half.
    """
    return estimate(RankedScores(labels, scores).auroc, len(labels))


def auprc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the average precision, NaN where `undefined_reason(labels)` gives a reason.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        scores: Scores, `[n]`, larger for a more likely positive.
    """
    return estimate(RankedScores(labels, scores).auprc, len(labels))
