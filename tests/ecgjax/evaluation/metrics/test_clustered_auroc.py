"""The interval of a rare label's AUROC: its variance by brute force, what it refuses, and that it covers."""

import math

import numpy as np
import pytest
from scipy import stats

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.clustered_auroc import (
    binormal_variance,
    clustered_auroc_interval,
    clustered_variance,
)
from ecgjax.evaluation.metrics.operating_points import Decisions
from ecgjax.evaluation.metrics.ranking import RankedScores, auroc
from tests.support import rare_label_intervals


def _plain(labels, scores, patients):
    """Obuchowski's variance by loops over pairs and patients, and Kish's number of patients of the rarer class."""
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    wins = {
        (p, q): float(scores[p] > scores[q]) + 0.5 * float(scores[p] == scores[q]) for p in positives for q in negatives
    }
    theta = sum(wins.values()) / len(wins)
    a, b = {}, {}
    for who in set(patients.tolist()):
        own = [sum(wins[p, q] for q in negatives) / len(negatives) - theta for p in positives if patients[p] == who]
        a[who] = (len(own), sum(own))
        own = [sum(wins[p, q] for p in positives) / len(positives) - theta for q in negatives if patients[q] == who]
        b[who] = (len(own), sum(own))
    variance = 0.0
    for sums, records in ((a, positives), (b, negatives)):
        having = sum(number > 0 for number, _ in sums.values())
        variance += having / (having - 1) * sum(value**2 for _, value in sums.values()) / len(records) ** 2
    everyone = len(a)
    together = sum(a[who][1] * b[who][1] for who in a) / len(positives) / len(negatives)
    variance += 2 * everyone / (everyone - 1) * together
    effective = [
        sum(number for number, _ in sums.values()) ** 2 / sum(number**2 for number, _ in sums.values())
        for sums in (a, b)
    ]
    return theta, variance, min(effective) - 1


def _records(seed, *, patients=14, positive=6, ties=True):
    """Records of patients with one to four each; the positive patients have records of both labels."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    labels = ((patient < positive) & (rng.random(len(patient)) < 0.6)).astype(int)
    labels[[int(np.flatnonzero(patient == who)[0]) for who in range(positive)]] = 1
    scores = labels + rng.normal(size=patients)[patient] + rng.normal(size=len(patient))
    order = rng.permutation(len(patient))
    return labels[order], (np.round(scores) if ties else scores)[order], patient[order] * 7 - 20


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_plain_form(seed, ties):
    labels, scores, patients = _records(seed, ties=ties)
    theta, variance, freedom = _plain(labels, scores, patients)
    np.testing.assert_allclose(
        clustered_variance(labels, scores, patients=patients), (theta, variance, freedom), rtol=1e-12, atol=1e-14
    )
    interval = clustered_auroc_interval(labels, scores, patients=patients)
    assert interval.estimate == pytest.approx(auroc(labels, scores), abs=1e-12)
    # The bounds by a search over a grid, with Φ₂ for the variance function.
    grid = np.linspace(1e-4, 1 - 1e-4, 2000)
    both = stats.multivariate_normal(cov=[[1, 0.5], [0.5, 1]])
    h = np.array([both.cdf([d, d]) for d in stats.norm.ppf(grid)]) - grid**2
    at = both.cdf([stats.norm.ppf(theta)] * 2) - theta**2
    held = grid[(grid - theta) ** 2 <= stats.t.ppf(0.975, freedom) ** 2 * variance * h / at]
    np.testing.assert_allclose((interval.low, interval.high), (held[0], held[-1]), atol=1e-3)


def test_one_record_a_patient_is_delong():
    rng = np.random.default_rng(0)
    labels = np.r_[np.ones(8, int), np.zeros(40, int)]
    scores = labels + rng.normal(size=48)
    wins = scores[:8, None] > scores[None, 8:]
    delong = wins.mean(axis=1).var(ddof=1) / 8 + wins.mean(axis=0).var(ddof=1) / 40
    theta, variance, freedom = clustered_variance(labels, scores, patients=np.arange(48))
    assert (theta, freedom) == (pytest.approx(wins.mean()), pytest.approx(7))
    assert variance == pytest.approx(delong, rel=1e-12)


def test_binormal_variance_is_that_of_normal_scores():
    assert binormal_variance(0.5) == pytest.approx(1 / 12, abs=1e-12)
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    for theta in (0.6, 0.75, 0.9, 0.99):
        shares = stats.norm.cdf(nodes + math.sqrt(2) * stats.norm.ppf(theta))
        mean = weights @ shares / weights.sum()
        assert mean == pytest.approx(theta, abs=1e-9)
        assert binormal_variance(theta) == pytest.approx(weights @ (shares - mean) ** 2 / weights.sum(), rel=1e-7)
        assert binormal_variance(1 - theta) == pytest.approx(binormal_variance(theta), rel=1e-9)


def test_there_is_one_root_on_each_side():
    values = np.linspace(1e-6, 1 - 1e-6, 4001)
    h = np.array([binormal_variance(value) for value in values])
    assert (h > 0).all()
    for theta in (0.05, 0.3, 0.5, 0.8, 0.97, 0.999):
        test = (values - theta) ** 2 / h
        change = np.diff(test)
        assert (change[values[1:] < theta] <= 0).all()
        assert (change[values[:-1] > theta] >= 0).all()


def test_nothing_is_drawn_and_the_order_of_records_says_nothing():
    labels, scores, patients = _records(1)
    first = clustered_auroc_interval(labels, scores, patients=patients)
    assert clustered_auroc_interval(labels, scores, patients=patients) == first
    order = np.random.default_rng(0).permutation(len(labels))
    again = clustered_auroc_interval(labels[order], scores[order], patients=patients[order])
    assert (again.low, again.high) == (pytest.approx(first.low, abs=1e-9), pytest.approx(first.high, abs=1e-9))
    assert 0 < first.low < first.estimate < first.high < 1
    wider = clustered_auroc_interval(labels, scores, patients=patients, confidence=0.99)
    assert wider.low < first.low < first.high < wider.high


def test_swapped_labels_and_negated_scores_give_the_same():
    labels, scores, patients = _records(2)
    one = clustered_auroc_interval(labels, scores, patients=patients)
    other = clustered_auroc_interval(1 - labels, -scores, patients=patients)
    assert (other.low, other.high) == (pytest.approx(one.low, abs=1e-9), pytest.approx(one.high, abs=1e-9))


def test_a_repeated_record_of_a_patient_adds_nothing():
    labels, scores, patients = _records(3, ties=False)
    one = clustered_auroc_interval(labels, scores, patients=patients)
    two = clustered_auroc_interval(np.tile(labels, 3), np.tile(scores, 3), patients=np.tile(patients, 3))
    assert (two.low, two.high) == (pytest.approx(one.low, abs=1e-9), pytest.approx(one.high, abs=1e-9))


def test_fewer_than_five_patients_of_a_class_have_an_estimate_only():
    labels, scores, patients = _records(0, positive=4)
    interval = clustered_auroc_interval(labels, scores, patients=patients)
    assert interval.estimate == pytest.approx(auroc(labels, scores))
    assert interval.reason == "patients with a positive record: 4, fewer than 5"
    assert math.isnan(interval.low)
    swapped = clustered_auroc_interval(1 - labels, scores, patients=patients)
    assert swapped.reason == "patients with a negative record: 4, fewer than 5"


def test_one_patient_only():
    interval = clustered_auroc_interval(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.5, 0.9]), patients=np.zeros(4))
    assert interval.estimate == 0.75
    assert str(interval) == "0.750 [n/a: patients with a positive record: 1, fewer than 5]"


def test_one_class_is_undefined_with_its_reason():
    interval = clustered_auroc_interval(np.zeros(10, int), np.arange(10.0), patients=np.arange(10))
    assert str(interval) == "n/a (none of 10 records is positive)"


def test_separated_classes_say_nothing_of_the_variance():
    labels = np.r_[np.ones(6, int), np.zeros(20, int)]
    interval = clustered_auroc_interval(labels, labels * 1.0 + np.arange(26) / 100, patients=np.arange(26))
    assert str(interval) == "1.000 [n/a: the scores separate the classes wholly]"


def test_a_constant_says_so():
    labels = np.r_[np.ones(6, int), np.zeros(20, int)]
    interval = clustered_auroc_interval(labels, np.zeros(26), patients=np.arange(26))
    assert str(interval) == "0.500 [n/a: the ranks do not vary between patients]"


def test_a_patient_with_nearly_all_positives_gives_the_widest_interval():
    rng = np.random.default_rng(0)
    labels = np.r_[np.ones(2004, int), np.zeros(50, int)]
    patients = np.r_[np.zeros(2000, int), np.arange(1, 55)]
    interval = clustered_auroc_interval(labels, labels + rng.normal(size=2054), patients=patients)
    assert interval.low < 0.01
    assert interval.high > 0.99


def test_wrong_lengths_are_told():
    with pytest.raises(DataError, match="3 patient codes for 4 labels"):
        clustered_auroc_interval(np.array([0, 1, 0, 1]), np.zeros(4), patients=np.zeros(3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["p", "r"])
@pytest.mark.parametrize("auroc", [0.6, 0.75, 0.9])
def test_five_patients_are_covered_at_the_rate_that_is_stated(kind, auroc):
    rng, runs, hold = np.random.default_rng(0), 1000, 0
    of = {"patients": 300, "positives": 5, "correlation": 0.7}
    for _ in range(runs):
        there, label, score = rare_label_intervals.draw(rng, kind, auroc, **of)
        patient = np.nonzero(there)[0]
        interval = clustered_auroc_interval(label[there].astype(int), score[there], patients=patient)
        hold += interval.low <= auroc <= interval.high
    # From .92 to .97, and three standard deviations of the runs.
    assert 0.895 < hold / runs < 0.99


@pytest.mark.parametrize("kind", ["p", "r"])
def test_the_study_of_coverage_measures_the_house_s_metrics(kind):
    """`tests/support/rare_label_intervals.py` has its own form of them, which thousands of test sets need."""
    rng = np.random.default_rng(0)
    of = {"patients": 40, "positives": 6}
    there, label, score = rare_label_intervals.draw(rng, kind, 0.75, **of, correlation=0.3)
    made = rare_label_intervals.Resampled(there, label, score, positives=6, threshold=1.3)
    weights = rare_label_intervals.weights_of(rng, (6, 34), 50)
    np.testing.assert_array_equal(weights[:, :6].sum(axis=1), 6)
    np.testing.assert_array_equal(weights[:, 6:].sum(axis=1), 34)
    labels, scores, patient = label[there].astype(int), score[there], np.nonzero(there)[0]
    ranked = RankedScores(labels, scores)
    plain = {
        "AUROC": ranked.auroc,
        "AUPRC": ranked.auprc,
        "sensitivity": Decisions(labels, scores, threshold=1.3).sensitivity,
    }
    leaving = 1.0 - np.eye(40)
    for name, metric in plain.items():
        np.testing.assert_allclose(made.all_of(weights)[name], metric(weights[:, patient]), atol=1e-5)
        np.testing.assert_allclose(made.without_each()[name], metric(leaving[:, patient]), atol=1e-5)
    true = rare_label_intervals.truths(kind, 0.75, **of)
    assert true["AUROC"] == 0.75
    many = {"patients": 400_000, "positives": 60_000}
    there, label, score = rare_label_intervals.draw(rng, kind, 0.75, **many, correlation=0.3)
    labels, scores = label[there].astype(int), score[there]
    true = rare_label_intervals.truths(kind, 0.75, **many)
    found = RankedScores(labels, scores)
    ones = np.ones((1, len(labels)))
    assert found.auroc(ones)[0] == pytest.approx(true["AUROC"], abs=0.005)
    assert found.auprc(ones)[0] == pytest.approx(true["AUPRC"], abs=0.01)
    assert (scores[labels == 1] >= stats.norm.ppf(0.9)).mean() == pytest.approx(true["sensitivity"], abs=0.01)
