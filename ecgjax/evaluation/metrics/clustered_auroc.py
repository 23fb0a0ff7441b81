"""An interval of an AUROC without resampling, for labels that few patients have.

A bootstrap of five patients draws from five values: its intervals are too short, and a resample may lack the label.
Here the variance is computed from the ranks, with patients as clusters (Obuchowski 1997; for one record a patient this
is DeLong et al. 1988). The interval inverts a score test, as Wilson's does for a share, and uses Student's t in place
of the normal distribution, since a variance of few patients is itself uncertain.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import special

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.weighting import check_binary

#: Fewest patients of each class for which an interval is given: nothing smaller was simulated.
MIN_PATIENTS = 5

#: Most patients of the rarer class for which the interval of this module replaces a bootstrap's interval of an AUROC.
FEW_PATIENTS = 25

#: Lowest and highest value of a bound; at 0 and 1 themselves the variance function is 0.
_ENDS = (1e-9, 1 - 1e-9)


def clustered_auroc_interval(
    labels: np.ndarray, scores: np.ndarray, *, patients: np.ndarray, confidence: float = 0.95
) -> Interval:
    """Returns the AUROC and its interval over patients, for labels that as few as five patients have.

    With V the clustered variance, h the variance of binormal scores (`binormal_variance`) and t Student's quantile, the
    interval holds every θ with (estimate − θ)² ≤ t² V h(θ) / h(estimate). The degrees of freedom are one less than the
    patients of the rarer class, each counted by its share of the records: (Σ m)² / Σ m² (Kish 1965).

    Nothing is drawn at random: equal records give equal intervals.

    The table gives the coverage of 95 % intervals that `python -m tests.support.rare_label_intervals` measures for 300
    and 2,000 patients with one to four records each, correlations within patients of 0, .3 and .7, and labels of
    patients and of records. It lists the lowest and the highest cell of 1,000 test sets, and the mean of the cells:

        patients with the label    AUROC .6            AUROC .75           AUROC .9
        5                          94.7–97.4 (96.1)    94.5–96.6 (95.5)    91.5–95.5 (93.4)
        10                         95.0–96.3 (95.6)    93.7–96.0 (94.9)    91.0–94.3 (92.6)
        15                         94.1–96.4 (95.3)    94.0–96.8 (95.1)    91.2–95.1 (93.6)
        25                         94.2–96.5 (95.5)    93.6–95.6 (94.7)    91.9–95.4 (93.8)

    Coverage is lowest, near 92 %, at an AUROC of .9 with records of 2,000 patients that correlate by .7 (with 3,000 to
    8,000 test sets a cell, 91.4 to 95.7 % at .9, standard error .3 to .5). The percentile interval of
    `bootstrap.bootstrap_metrics` covers 78 to 90 % with 5 such patients, and 89 to 95 % with 25.

    Args:
        labels: Labels, `[n]`, 0 or 1; a patient may have records of both.
        scores: Scores, `[n]`, larger for a more likely positive; ties count one half.
        patients: Patient (or group) code of each record, `int[n]`.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        The estimate of `ranking.auroc` and its bounds. The bounds are NaN, with a reason, where fewer than
        `MIN_PATIENTS` patients have a record of one of the classes, or where the scores of the classes do not overlap,
        which says nothing of the variance. `resamples` is 0.

    Raises:
        DataError: Lengths differ, a label is not 0 or 1, or a score is not finite.

    References:
        Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53 (1997) 567.
        DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
        characteristic curves, Biometrics 44 (1988) 837.
        Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2,
        Statistics in Medicine 25 (2006) 559, has score intervals of an AUROC, of independent records.
    """
    from scipy import optimize

    labels, scores = check_binary(labels, scores)
    patients = np.asarray(patients)
    if patients.shape != labels.shape:
        raise DataError(f"{len(patients)} patient codes for {len(labels)} labels")
    if reason := undefined_reason(labels):
        return Interval(estimate=math.nan, confidence=confidence, reason=reason)
    for label, words in ((1, "a positive"), (0, "a negative")):
        if (number := len(np.unique(patients[labels == label]))) < MIN_PATIENTS:
            estimate = clustered_variance(labels, scores, patients=patients)[0]
            reason = f"patients with {words} record: {number}, fewer than {MIN_PATIENTS}"
            return Interval(estimate=estimate, confidence=confidence, reason=reason)
    estimate, variance, freedom = clustered_variance(labels, scores, patients=patients)
    if not _ENDS[0] < estimate < _ENDS[1]:
        return Interval(estimate=estimate, confidence=confidence, reason="the scores separate the classes wholly")
    if variance <= 0:
        return Interval(estimate=estimate, confidence=confidence, reason="the ranks do not vary between patients")
    quantile = float(special.stdtrit(freedom, (1 + confidence) / 2))
    spread = quantile**2 * variance / binormal_variance(estimate)

    def outside(value: float) -> float:
        return (estimate - value) ** 2 - spread * binormal_variance(value)

    # h falls more slowly than (1 − θ)² as θ goes to 1, and more slowly than θ² as θ goes to 0: on each side there is
    # one root, or none before the end.
    low, high = (
        end if outside(end) <= 0 else float(optimize.brentq(outside, *sorted((end, estimate)), xtol=1e-12))
        for end in _ENDS
    )
    return Interval(estimate=estimate, confidence=confidence, low=low, high=high)


def interval_of_few(interval: Interval, labels: np.ndarray, scores: np.ndarray, *, patients: np.ndarray) -> Interval:
    """Returns an AUROC's bootstrap interval, or `clustered_auroc_interval`'s if at most `FEW_PATIENTS` have a label.

    Args:
        interval: Interval of the AUROC over resamples of the patients.
        labels: Labels, `[n]`, 0 or 1.
        scores: Scores, `[n]`, larger for a more likely positive.
        patients: Patient (or group) code of each record, `int[n]`.
    """
    fewest = min(len(np.unique(patients[labels == label])) for label in (0, 1))
    if fewest > FEW_PATIENTS:
        return interval
    of_few = clustered_auroc_interval(labels, scores, patients=patients, confidence=interval.confidence)
    # The same number, of which the two formulas may differ in the last bit.
    return dataclasses.replace(of_few, estimate=interval.estimate)


def clustered_variance(labels: np.ndarray, scores: np.ndarray, *, patients: np.ndarray) -> tuple[float, float, float]:
    """Returns the AUROC, its variance over patients, and the degrees of freedom of this variance.

    The variance is NaN where a class has one patient only.

    Args:
        labels: Labels, `int[n]`, 0 or 1, with both present.
        scores: Scores, `[n]`, finite.
        patients: Patient (or group) code of each record, `int[n]`.
    """
    codes, patient = np.unique(patients, return_inverse=True)
    positive = labels == 1
    # A positive record has the share of negatives that it outranks, a negative the share of positives that outrank it.
    placements = np.empty(len(labels))
    placements[positive] = _share_below(scores[positive], scores[~positive])
    placements[~positive] = 1 - _share_below(scores[~positive], scores[positive])
    estimate = float(placements[positive].mean())
    sums, variances, effective = [], [], []
    for member in (positive, ~positive):
        number = np.bincount(patient[member], minlength=len(codes))
        total, having = int(number.sum()), int(np.count_nonzero(number))
        sums.append(np.bincount(patient[member], placements[member] - estimate, minlength=len(codes)) / total)
        variances.append(having / (having - 1) * float(sums[-1] @ sums[-1]) if having > 1 else math.nan)
        effective.append(total**2 / float(number @ number))
    # The covariance is not 0, since a patient with records of both classes contributes to both sums.
    both = len(codes) / (len(codes) - 1) * float(sums[0] @ sums[1]) if len(codes) > 1 else math.nan
    return estimate, sum(variances) + 2 * both, min(effective) - 1


def binormal_variance(auroc: float) -> float:
    """Returns the variance of the share of negatives that a positive outranks, where scores of both classes are normal.

    For equal variances of the classes: Φ₂(d, d; 1/2) − θ² with d = Φ⁻¹(θ), which is θ (1 − θ) − 2 T(d, 1/√3) with
    Owen's T. It is symmetric, and 1/12 at θ = 1/2.

    Args:
        auroc: AUROC θ, in (0, 1).
    """
    return auroc * (1 - auroc) - 2 * float(special.owens_t(special.ndtri(auroc), 1 / math.sqrt(3)))


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the share of other scores below each score, `f64[n]`; equal scores count one half."""
    ranked = np.sort(others)
    return (np.searchsorted(ranked, scores, "left") + np.searchsorted(ranked, scores, "right")) / (2 * len(others))
