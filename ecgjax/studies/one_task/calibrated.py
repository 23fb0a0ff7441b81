"""Calibrates predictions and chooses decision thresholds, both on validation."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special
from sklearn.linear_model import LogisticRegression

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.metrics.calibration import LogisticCalibration, brier
from ecgjax.evaluation.metrics.operating_points import Decisions, best_f1_threshold, threshold_at_specificity
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.evaluation.models.answers import Answers

#: Specificity on validation at which sensitivity is reported.
SPECIFICITY = 0.9

#: Largest number of resamples: calibration slopes of thousands would take longer than the models.
RESAMPLES = 500

#: Smallest distance of a probability from 0 and 1, which have no log odds.
_CLOSEST = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Calibrated probabilities of the test records, and thresholds; all of it is chosen on validation.

    Attributes:
        probabilities: Probabilities of the test records, `f64[test records]`.
        threshold: Probability threshold with the best F1.
        strict: Lowest probability threshold with a specificity of at least `SPECIFICITY`; infinite if there is none.
    """

    probabilities: np.ndarray
    threshold: float
    strict: float

    def metrics(self, labels: np.ndarray) -> dict[str, Metric]:
        """Returns the metrics of decisions at both thresholds, and of calibration, by name.

        Args:
            labels: Labels of the test records, `[n]` of 0 and 1.
        """
        best, strict = (Decisions(labels, self.probabilities, threshold=each) for each in (self.threshold, self.strict))
        logistic = LogisticCalibration(labels, self.probabilities)
        return {
            "F1": best.f1,
            "sensitivity": best.sensitivity,
            "specificity": best.specificity,
            f"sensitivity at {SPECIFICITY:g}": strict.sensitivity,
            "specificity there": strict.specificity,
            "Brier": brier(labels, self.probabilities),
            "slope": logistic.slope,
            "intercept": logistic.intercept,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Platt:
    """Calibration of scores: logit p = steepness · (score − middle) / spread + intercept.

    Attributes:
        middle: Mean of the scores that it was fitted on.
        spread: Standard deviation of these, or 1 where they are all equal.
        steepness: Coefficient of the standardised scores, 0 or more.
        intercept: Log odds at the mean of the scores.
    """

    middle: float
    spread: float
    steepness: float
    intercept: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Returns probabilities, which are above 0 and below 1."""
        log_odds = self.steepness * (np.asarray(scores, np.float64) - self.middle) / self.spread + self.intercept
        return np.clip(special.expit(log_odds), _CLOSEST, 1 - _CLOSEST)

    @property
    def of_scores(self) -> tuple[float, float]:
        """Slope and intercept of the log odds on the scores as they are."""
        slope = self.steepness / self.spread
        return slope, self.intercept - slope * self.middle


def platt(val_labels: np.ndarray, val_scores: np.ndarray) -> Platt:
    """Fits slope and intercept of the log odds on validation (Platt scaling).

    The slope is never below 0: scores that rank no better than chance all become the prevalence.

    Args:
        val_labels: Labels of the validation records, `[n]` of 0 and 1, with both present.
        val_scores: Scores of the validation records, `[n]`.

    References:
        Platt, Probabilistic outputs for support vector machines, Advances in Large Margin Classifiers (1999) 61.
    """
    # Scores that are all equal have no spread to divide by.
    middle, spread = float(np.mean(val_scores)), float(np.std(val_scores)) or 1.0
    # The penalty is tiny, just enough for a solution to exist when the scores separate the classes.
    fit = LogisticRegression(C=1e3).fit(((val_scores - middle) / spread)[:, None], val_labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope < 0:
        slope, intercept = 0.0, float(special.logit(np.mean(val_labels)))
    return Platt(middle=middle, spread=spread, steepness=slope, intercept=intercept)


def calibrate(val_labels: np.ndarray, val_scores: np.ndarray, scores: np.ndarray) -> Calibrated:
    """Calibrates scores on validation and chooses thresholds there.

    Args:
        val_labels: Labels of the validation records, `[m]` of 0 and 1, with both present.
        val_scores: Scores of the validation records, `[m]`.
        scores: Scores of the test records, `[n]`.

    Returns:
        Calibrated probabilities of the test records, and the thresholds.

    Raises:
        DataError: The validation records lack one of the two labels.
    """
    if reason := undefined_reason(val_labels):
        raise DataError(f"nothing can be calibrated: {reason} in the validation split. {SPREAD_LABELS}")
    calibrated = platt(val_labels, val_scores)
    val = calibrated(val_scores)
    return Calibrated(
        probabilities=calibrated(scores),
        threshold=best_f1_threshold(val_labels, val),
        strict=threshold_at_specificity(val_labels, val, specificity=SPECIFICITY),
    )


def calibrated(answers: Answers, data: ProbeData, column: int | None = None) -> Calibrated:
    """Returns a model's calibrated probabilities of the test records, and thresholds, both chosen on validation.

    A model that brings its own calibration and threshold keeps them; only its threshold of a specificity is chosen.

    Args:
        answers: Predictions of a model.
        data: Labelled records of the task.
        column: Number of a class of the task; None where a record has one label.

    Raises:
        DataError: The validation records lack one of the two labels.
        ValueError: Predictions of the validation or of the test records are missing.
    """
    if answers.outputs is None or answers.val_outputs is None:
        raise ValueError("calibration needs answers for the validation and for the test records")
    place = ... if column is None else (slice(None), column)
    if answers.thresholds is None:
        return calibrate(data.val.labels[place], answers.val_outputs[place], answers.outputs[place])
    labels, val = data.val.labels[place], special.expit(answers.val_outputs[place])
    threshold = float(answers.thresholds[column or 0])
    return Calibrated(
        probabilities=special.expit(answers.outputs[place]),
        threshold=best_f1_threshold(labels, val) if np.isnan(threshold) else threshold,
        strict=threshold_at_specificity(labels, val, specificity=SPECIFICITY),
    )
