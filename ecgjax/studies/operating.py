"""Every model as it would be used: calibrated and given a threshold on validation, then judged on the test records."""

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

#: Specificity on validation at which sensitivity is given.
SPECIFICITY = 0.9

#: Resamples at most: slopes of thousands would take longer than the models.
RESAMPLES = 500

#: Probabilities of 0 and 1 have no log odds.
_CLOSEST = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operating:
    """A model with a threshold.

    Attributes:
        name: of the model.
        title: likewise.
        threshold: probability with the best F1 on validation.
        metrics: name → on the test records, with intervals over patients.
        decisions: likewise, of deciding at the threshold.
        probabilities: `f64[test records]`, calibrated on validation.
    """

    name: str
    title: str
    threshold: float
    metrics: Mapping[str, Interval]
    decisions: Mapping[str, Interval]
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A model's scores of the test records made probabilities, with thresholds; all of it chosen on validation.

    Attributes:
        probabilities: `f64[test records]`.
        threshold: probability with the best F1.
        strict: lowest probability with a specificity of at least `SPECIFICITY`; infinite where none has.
    """

    probabilities: np.ndarray
    threshold: float
    strict: float


def platt(val_labels: np.ndarray, val_scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fits slope and intercept of the log odds on validation.

    Scores that rank no better than chance are worth the prevalence and nothing else: the slope is never below 0.

    Args:
        val_labels: `[n]` of 0 and 1, both.
        val_scores: `[n]`.

    Returns:
        Scores → probabilities, above 0 and below 1.

    References:
        Platt, Probabilistic outputs for support vector machines, Advances in Large Margin Classifiers (1999) 61.
    """
    middle, spread = float(np.mean(val_scores)), float(np.std(val_scores)) or 1.0
    # Next to no penalty: enough that scores which separate the classes have a solution.
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
        val_labels: `[m]` of 0 and 1, both.
        val_scores: `[m]`.
        scores: `[n]`, of the test records.

    Raises:
        DataError: validation lacks a label.
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
        contenders: name → model.
        data: the labelled records.
        resamples: of the bootstrap over patients, `RESAMPLES` at most, the same for all.
        seed: of the resampling.
        prevalence: at which PPV and NPV are told beside those at the test records' own; None for these alone.
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
    """Measures a model in every group at its threshold.

    Args:
        model: from `operate`.
        data: the labelled records.
        groups: column → names of groups of the test records, `[n]`, see `grouping`.
        resamples: as of `operate`.
        seed: likewise.
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
