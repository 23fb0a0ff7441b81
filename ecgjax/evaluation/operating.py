"""Every model as it would be used: calibrated and given a threshold on validation, then judged on the test records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy import special
from sklearn.linear_model import LogisticRegression

from ecgjax.evaluation.bootstrap import Interval, bootstrap_metrics
from ecgjax.evaluation.calibration import LogisticCalibration, brier, expected_calibration_error
from ecgjax.evaluation.comparison import Contender
from ecgjax.evaluation.labels import ProbeData
from ecgjax.evaluation.operating_points import Decisions, best_f1_threshold, threshold_at_specificity
from ecgjax.evaluation.subgroups import MISSING, Subgroup, bands, subgroups
from ecgjax.evaluation.weighting import Metric

#: Specificity on validation at which sensitivity is given.
SPECIFICITY = 0.9

#: Edges of the age bands, years.
AGE_BANDS = (40.0, 60.0, 75.0)

#: Resamples at most: slopes of thousands would take longer than the models.
_RESAMPLES = 500

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
        probabilities: `f64[test records]`, calibrated on validation.
    """

    name: str
    title: str
    threshold: float
    metrics: Mapping[str, Interval]
    probabilities: np.ndarray


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


def operate(
    contenders: Mapping[str, Contender], data: ProbeData, *, resamples: int, seed: int
) -> tuple[Operating, ...]:
    """Calibrates every model on validation, chooses its thresholds there, and judges it on the test records.

    Args:
        contenders: name → model.
        data: the labelled records.
        resamples: of the bootstrap over patients, 500 at most, the same for all.
        seed: of the resampling.
    """
    labels, metrics, chosen = data.test.labels, {}, {}
    for name, contender in contenders.items():
        calibrated = platt(data.val.labels, contender.val_scores)
        val, test = calibrated(contender.val_scores), calibrated(contender.scores)
        threshold = best_f1_threshold(data.val.labels, val)
        strict = Decisions(
            labels, test, threshold=threshold_at_specificity(data.val.labels, val, specificity=SPECIFICITY)
        )
        logistic = LogisticCalibration(labels, test)
        own: dict[str, Metric] = {
            "F1": Decisions(labels, test, threshold=threshold).f1,
            "sensitivity": strict.sensitivity,
            "specificity": strict.specificity,
            "Brier": brier(labels, test),
            "slope": logistic.slope,
            "intercept": logistic.intercept,
            "ECE": expected_calibration_error(labels, test),
        }
        metrics |= {f"{name}\t{metric}": function for metric, function in own.items()}
        chosen[name] = (contender.title, threshold, test, tuple(own))
    found = bootstrap_metrics(
        metrics,
        patients=data.test.patients,
        resamples=min(resamples, _RESAMPLES),
        seed=seed,
        needs="both classes, or probabilities that differ",
    )
    return tuple(
        Operating(
            name=name,
            title=title,
            threshold=threshold,
            metrics={metric: found.interval(f"{name}\t{metric}") for metric in names},
            probabilities=probabilities,
        )
        for name, (title, threshold, probabilities, names) in chosen.items()
    )


def by_group(
    model: Operating, data: ProbeData, *, demographics: np.ndarray, resamples: int, seed: int
) -> tuple[Subgroup, ...]:
    """Measures a model by sex and age band at its threshold.

    Args:
        model: from `operate`.
        data: the labelled records.
        demographics: age in years and sex (1 female, 0 male) of the test records, `f32[n, 2]`, NaN where unknown.
        resamples: as of `operate`.
        seed: likewise.
    """
    return subgroups(
        data.test.labels,
        model.probabilities,
        demographic_groups(demographics),
        patients=data.test.patients,
        threshold=model.threshold,
        resamples=min(resamples, _RESAMPLES),
        seed=seed,
    )


def demographic_groups(demographics: np.ndarray) -> dict[str, np.ndarray]:
    """Returns names of groups by sex and by age band, `[n]` each, as `subgroups` takes them.

    Args:
        demographics: age in years and sex (1 female, 0 male), `f32[n, 2]`, NaN where unknown.
    """
    age, sex = demographics.T
    named = np.where(np.isnan(sex), MISSING, np.where(sex == 1, "female", "male")).astype(object)
    return {"sex": named, "age": bands(age, AGE_BANDS, unit="years")}
