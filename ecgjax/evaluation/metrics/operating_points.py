"""Decisions at a threshold, which is chosen on validation records, and their metrics on other records."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric, check_binary, check_probabilities, divide, ratio


class Decisions:
    """Metrics of calling records positive if their score is at least the threshold.

    Each attribute is a `weighting.Metric`.

    Attributes:
        sensitivity: Share of true positives among the positives.
        specificity: Share of true negatives among the negatives.
        ppv: Share of true positives among those called positive, at the records' own prevalence.
        npv: Share of true negatives among those called negative, at the records' own prevalence.
        f1: Harmonic mean of PPV and sensitivity; 0 where there are positives and none is found.
        accuracy: Share of correct decisions.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray, *, threshold: float):
        """Makes the decisions.

        Args:
            labels: Labels, `[n]`, 0 or 1.
            scores: Scores, `[n]`, larger for a more likely positive.
            threshold: Threshold, chosen on other records; it is the same for every weighting.

        Raises:
            DataError: `weighting.check_binary` raises it.
        """
        labels, scores = check_binary(labels, scores)
        called, positive = scores >= threshold, labels == 1
        hit = called & positive
        self.sensitivity = ratio(hit, positive)
        self.specificity = ratio(~called & ~positive, ~positive)
        self.ppv = ratio(hit, called)
        self.npv = ratio(~called & ~positive, ~called)
        # In this form it is defined where nobody is called positive.
        self.f1 = ratio(2.0 * hit, called.astype(float) + positive)
        self.accuracy = ratio(called == positive, np.ones(len(labels)))

    def ppv_at(self, prevalence: float) -> Metric:
        """Returns the PPV at a given prevalence as a metric, see `ppv_at_prevalence`."""
        return lambda weights: ppv_at_prevalence(
            self.sensitivity(weights), self.specificity(weights), prevalence=prevalence
        )

    def npv_at(self, prevalence: float) -> Metric:
        """Returns the NPV at a given prevalence as a metric, see `npv_at_prevalence`."""
        return lambda weights: npv_at_prevalence(
            self.sensitivity(weights), self.specificity(weights), prevalence=prevalence
        )


def best_f1_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the threshold with the highest F1, to be chosen on validation records.

    Of thresholds with equal F1 it is the highest, which calls the fewest records positive.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        scores: Scores, `[n]`, larger for a more likely positive.

    Raises:
        DataError: A class is missing, or `weighting.check_binary` raises it.
    """
    thresholds, hits, called, positives, _ = _counts(labels, scores)
    # Thresholds descend, so that the first of equal ones is the highest.
    return float(thresholds[np.argmax(2 * hits / (called + positives))])


def threshold_at_specificity(labels: np.ndarray, scores: np.ndarray, *, specificity: float) -> float:
    """Returns the lowest threshold with at least that specificity, to be chosen on validation records.

    It is infinity, which calls nobody positive, where no score reaches that specificity.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        scores: Scores, `[n]`, larger for a more likely positive.
        specificity: Least specificity, in [0, 1].

    Raises:
        DataError: A class is missing, or `weighting.check_binary` raises it.
    """
    thresholds, hits, called, _, negatives = _counts(labels, scores)
    # The small term keeps rounding from refusing a threshold that has just this specificity.
    allowed = called - hits <= (1 - specificity) * negatives + 1e-9 * negatives
    return float(thresholds[np.flatnonzero(allowed)[-1]]) if allowed.any() else np.inf


def ppv_at_prevalence(sensitivity: np.ndarray, specificity: np.ndarray, *, prevalence: float) -> np.ndarray:
    """Returns the PPV at a given prevalence by Bayes's rule; it is NaN where nobody is called positive.

    The prevalence among the records of a study is seldom that among the people who will be tested.

    Args:
        sensitivity: Sensitivity of the decisions, `[...]`, in [0, 1].
        specificity: Specificity of the decisions, `[...]`, in [0, 1].
        prevalence: Prevalence where the test is to be used, in [0, 1].

    Returns:
        The PPV, `f64[...]`.

    Raises:
        DataError: The prevalence lies outside [0, 1].
    """
    _check_prevalence(prevalence)
    true = np.asarray(sensitivity, np.float64) * prevalence
    return divide(true, true + (1 - np.asarray(specificity, np.float64)) * (1 - prevalence))


def npv_at_prevalence(sensitivity: np.ndarray, specificity: np.ndarray, *, prevalence: float) -> np.ndarray:
    """Returns the NPV at a given prevalence by Bayes's rule, `f64[...]`; it is NaN where everybody is called positive.

    Arguments and errors are those of `ppv_at_prevalence`.
    """
    _check_prevalence(prevalence)
    true = np.asarray(specificity, np.float64) * (1 - prevalence)
    return divide(true, true + (1 - np.asarray(sensitivity, np.float64)) * prevalence)


def net_benefit(labels: np.ndarray, probabilities: np.ndarray, *, threshold: float) -> Metric:
    """Returns the net benefit per record as a metric.

    It is the number of true positives minus that of false positives times the odds of the threshold.

    A threshold of .1 says that one would treat nine healthy people to treat one ill person. Treating nobody is worth 0;
    treating everybody is worth `net_benefit(labels, np.ones(n), threshold=…)`.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        probabilities: Calibrated probabilities of the positive class, `[n]`.
        threshold: Probability from which one would treat, in [0, 1).

    References:
        Vickers and Elkin, Decision curve analysis, Medical Decision Making 26 (2006) 565.
    """
    if not 0 <= threshold < 1:
        raise DataError(f"the threshold of a net benefit is a probability of 0 or more and below 1, not {threshold}")
    labels, probabilities = check_probabilities(labels, probabilities)
    called = probabilities >= threshold
    worth = called * np.where(labels == 1, 1.0, -threshold / (1 - threshold))
    return ratio(worth, np.ones(len(labels)))


def _check_prevalence(prevalence: float) -> None:
    if not 0 <= prevalence <= 1:
        raise DataError(f"a prevalence lies between 0 and 1, not at {prevalence}")


def _counts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Returns counts of decisions at every distinct score as the threshold.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        scores: Scores, `[n]`.

    Returns:
        The distinct scores, descending; the numbers of true positives and of records called positive at each; and the
        numbers of positive and of negative records.

    Raises:
        DataError: A class is missing, or `weighting.check_binary` raises it.
    """
    labels, scores = check_binary(labels, scores)
    if reason := undefined_reason(labels):
        raise DataError(f"no threshold can be chosen: {reason}")
    thresholds, index, number = np.unique(scores, return_inverse=True, return_counts=True)
    hits = np.bincount(index, weights=labels, minlength=len(thresholds))
    positives = int(labels.sum())
    return thresholds[::-1], np.cumsum(hits[::-1]), np.cumsum(number[::-1]), positives, len(labels) - positives
