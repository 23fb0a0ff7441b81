"""Decisions of models that are calibrated and given a threshold on validation, judged on the test records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy import special
from sklearn.linear_model import LogisticRegression

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.metrics.bootstrap import Interval, bootstrap_metrics
from ecgjax.evaluation.metrics.calibration import LogisticCalibration, brier, expected_calibration_error
from ecgjax.evaluation.metrics.operating_points import Decisions, best_f1_threshold, threshold_at_specificity
from ecgjax.evaluation.metrics.subgroups import Subgroup, subgroups
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.studies.comparison import Contender

#: Specificity on validation at which sensitivity is reported.
SPECIFICITY = 0.9

#: Largest number of resamples: calibration slopes of thousands would take longer than the models.
RESAMPLES = 500

#: Smallest distance of a probability from 0 and 1, which have no log odds.
_CLOSEST = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operating:
    """Results of a calibrated model at its threshold.

    Attributes:
        name: Name of the model.
        title: Title of the model in tables.
        threshold: Probability threshold with the best F1 on validation.
        metrics: Metrics on the test records with intervals over patients, by name.
        decisions: Metrics of the decisions at the threshold with intervals over patients, by name.
        probabilities: Probabilities of the test records, `f64[test records]`, calibrated on validation.
    """

    name: str
    title: str
    threshold: float
    metrics: Mapping[str, Interval]
    decisions: Mapping[str, Interval]
    probabilities: np.ndarray


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


def platt(val_labels: np.ndarray, val_scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fits slope and intercept of the log odds on validation (Platt scaling).

    The slope is never below 0: scores that rank no better than chance all become the prevalence.

    Args:
        val_labels: Labels of the validation records, `[n]` of 0 and 1, with both present.
        val_scores: Scores of the validation records, `[n]`.

    Returns:
        Function from scores to probabilities, which are above 0 and below 1.

    References:
        Platt, Probabilistic outputs for support vector machines, Advances in Large Margin Classifiers (1999) 61.
    """
    middle, spread = float(np.mean(val_scores)), float(np.std(val_scores)) or 1.0
    # The penalty is tiny, just enough for a solution to exist when the scores separate the classes.
    fit = LogisticRegression(C=1e3).fit(((val_scores - middle) / spread)[:, None], val_labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope < 0:
        slope, intercept = 0.0, float(special.logit(np.mean(val_labels)))

    def probabilities(scores: np.ndarray) -> np.ndarray:
        log_odds = slope * (np.asarray(scores, np.float64) - middle) / spread + intercept
        return np.clip(special.expit(log_odds), _CLOSEST, 1 - _CLOSEST)

    return probabilities


def calibrate(val_labels: np.ndarray, val_scores: np.ndarray, scores: np.ndarray) -> Calibrated:
    """Calibrates scores on validation and chooses thresholds there.

    Args:
        val_labels: Labels of the validation records, `[m]` of 0 and 1, with both present.
        val_scores: Scores of the validation records, `[m]`.
        scores: Scores of the test records, `[n]`.

    Raises:
        DataError: The validation records lack one of the two labels.
    """
    calibrated = platt(val_labels, val_scores)
    val = calibrated(val_scores)
    return Calibrated(
        probabilities=calibrated(scores),
        threshold=best_f1_threshold(val_labels, val),
        strict=threshold_at_specificity(val_labels, val, specificity=SPECIFICITY),
    )


def operate(
    contenders: Mapping[str, Contender],
    data: ProbeData,
    *,
    resamples: int,
    seed: int,
    prevalence: float | None = None,
) -> tuple[Operating, ...]:
    """Calibrates every model on validation, chooses its thresholds there, and judges it on the test records.

    Args:
        contenders: Models by name.
        data: Labelled records of the task.
        resamples: Number of bootstrap resamples of the patients, the same for all models; at most `RESAMPLES` are
            drawn.
        seed: Seed of the resampling.
        prevalence: Prevalence for which PPV and NPV are reported as well as for that of the test records; None for the
            latter alone.
    """
    labels, chosen = data.test.labels, {}
    metrics: dict[str, Metric] = {}
    for name, contender in contenders.items():
        used = calibrate(data.val.labels, contender.val_scores, contender.scores)
        test = used.probabilities
        best, strict = (Decisions(labels, test, threshold=each) for each in (used.threshold, used.strict))
        logistic = LogisticCalibration(labels, test)
        own: dict[str, Metric] = {
            "F1": best.f1,
            "sensitivity": strict.sensitivity,
            "specificity": strict.specificity,
            "Brier": brier(labels, test),
            "slope": logistic.slope,
            "intercept": logistic.intercept,
            "ECE": expected_calibration_error(labels, test),
        }
        decisions = _decisions(best, prevalence)
        metrics |= {f"{name}\tmetrics\t{metric}": function for metric, function in own.items()}
        metrics |= {f"{name}\tdecisions\t{metric}": function for metric, function in decisions.items()}
        chosen[name] = (contender.title, used, {"metrics": tuple(own), "decisions": tuple(decisions)})
    found = bootstrap_metrics(
        metrics,
        patients=data.test.patients,
        resamples=min(resamples, RESAMPLES),
        seed=seed,
        needs="both classes, not wholly separated, and records on both sides of the threshold",
    )
    return tuple(
        Operating(
            name=name,
            title=title,
            threshold=used.threshold,
            probabilities=used.probabilities,
            **{
                part: {metric: found.interval(f"{name}\t{part}\t{metric}") for metric in names}
                for part, names in parts.items()
            },
        )
        for name, (title, used, parts) in chosen.items()
    )


def _decisions(made: Decisions, prevalence: float | None) -> dict[str, Metric]:
    metrics = {"sensitivity": made.sensitivity, "specificity": made.specificity, "PPV": made.ppv, "NPV": made.npv}
    if prevalence is not None:
        metrics[f"PPV at {prevalence:g}"] = made.ppv_at(prevalence)
        metrics[f"NPV at {prevalence:g}"] = made.npv_at(prevalence)
    return metrics


def by_group(
    model: Operating, data: ProbeData, *, groups: Mapping[str, np.ndarray], resamples: int, seed: int
) -> tuple[Subgroup, ...]:
    """Measures a model at its threshold in every group of patients.

    Args:
        model: Model from `operate`.
        data: Labelled records of the task.
        groups: Names of the groups of the test records, `[n]`, by column; see `groups.group_columns`.
        resamples: Number of bootstrap resamples of the patients, the same for all groups; at most `RESAMPLES` are
            drawn.
        seed: Seed of the resampling.
    """
    return subgroups(
        data.test.labels,
        model.probabilities,
        groups,
        patients=data.test.patients,
        threshold=model.threshold,
        resamples=min(resamples, RESAMPLES),
        seed=seed,
    )
