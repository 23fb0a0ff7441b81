"""The patient bootstrap: what it resamples, that it is paired, and that its intervals cover."""

import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics import calibration, regression
from ecgjax.evaluation.metrics.bootstrap import Interval, bootstrap_metrics, resample_patients
from ecgjax.evaluation.metrics.calibration import LogisticCalibration
from ecgjax.evaluation.metrics.needs import needed_for
from ecgjax.evaluation.metrics.operating_points import Decisions
from ecgjax.evaluation.metrics.ranking import RankedScores, auroc
from tests.support.resampled import bounds


def _cohort(rng, *, patients, visits, shared):
    """Labels and scores where a share of both is the patient's own: records of a patient are correlated.

    The true AUROC is Φ(1/√2), whatever `shared`.
    """
    patient = np.repeat(np.arange(patients), visits)
    labels = np.repeat(rng.integers(0, 2, patients), visits)
    own = np.repeat(rng.normal(size=patients), visits)
    noise = math.sqrt(shared) * own + math.sqrt(1 - shared) * rng.normal(size=patients * visits)
    return patient, labels, labels + noise


def _bootstrap(labels, scores, *, metric="auroc", **draws):
    """The bootstrap of a metric of several models' scores."""
    metrics = {name: getattr(RankedScores(labels, values), metric) for name, values in scores.items()}
    return bootstrap_metrics(metrics, needs="positive and negative records", **draws)


TRUE_AUROC = float(stats.norm.cdf(1 / math.sqrt(2)))


def covers(rng, *, patients, visits, shared, resamples, seed):
    """Whether the interval of a new cohort's AUROC holds the true one, by what is resampled."""
    patient, labels, scores = _cohort(rng, patients=patients, visits=visits, shared=shared)
    found = {}
    for unit, codes in (("patient", patient), ("record", np.arange(len(patient)))):
        result = _bootstrap(labels, {"a": scores}, patients=codes, resamples=resamples, seed=seed)
        found[unit] = result.interval("a").low <= TRUE_AUROC <= result.interval("a").high
    return found


def test_resamples_whole_patients():
    patients = np.array([7, 7, 3, 9, 9, 9])
    weights = np.concatenate(list(resample_patients(patients, resamples=500, seed=0)))
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    np.testing.assert_array_equal(weights[:, [0, 2, 3]].sum(axis=1), 3)
    # Each patient is drawn once on average: binomial(3, 1/3) over 500 resamples.
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=4 * math.sqrt(2 / 3 / 500))


def test_does_not_depend_on_the_size_of_the_blocks(monkeypatch):
    patients = np.random.default_rng(0).integers(0, 40, 100)
    whole = np.concatenate(list(resample_patients(patients, resamples=300, seed=5)))
    monkeypatch.setattr("ecgjax.evaluation.metrics.bootstrap._WEIGHTS_AT_ONCE", 1700)
    blocks = list(resample_patients(patients, resamples=300, seed=5))
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_equals_the_plain_form():
    rng = np.random.default_rng(2)
    patient, labels, scores = _cohort(rng, patients=30, visits=3, shared=0.5)
    result = _bootstrap(labels, {"a": scores}, patients=patient, resamples=100, seed=11)
    weights = np.concatenate(list(resample_patients(patient, resamples=100, seed=11)))
    plain = [auroc(labels[rows], scores[rows]) for rows in (np.repeat(np.arange(90), w) for w in weights)]
    np.testing.assert_allclose(result.resampled["a"], plain, atol=1e-12)
    interval = result.interval("a")
    assert interval.estimate == auroc(labels, scores)
    np.testing.assert_allclose((interval.low, interval.high), np.quantile(plain, (0.025, 0.975)), atol=1e-12)
    by_hand = bounds(patient, lambda rows: auroc(labels[rows], scores[rows]), resamples=100, seed=11)
    np.testing.assert_allclose((interval.low, interval.high), by_hand, atol=1e-12)


def test_seeded():
    patient, labels, scores = _cohort(np.random.default_rng(0), patients=50, visits=2, shared=0.5)
    first, again, other = (
        _bootstrap(labels, {"a": scores}, patients=patient, resamples=200, seed=seed).interval("a")
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.low != other.low


def test_differences_are_paired():
    rng = np.random.default_rng(4)
    patient, labels, scores = _cohort(rng, patients=200, visits=2, shared=0.5)
    better = scores + 0.3 * labels
    result = _bootstrap(labels, {"better": better, "plain": scores}, patients=patient, resamples=1000, seed=0)
    same = _bootstrap(labels, {"a": scores, "b": scores}, patients=patient, resamples=1000, seed=0)
    assert same.difference("a", "b").low == same.difference("a", "b").high == 0.0
    paired = result.difference("better", "plain")
    assert paired.estimate == pytest.approx(auroc(labels, better) - auroc(labels, scores), abs=1e-12)
    assert 0 < paired.low < paired.estimate < paired.high
    apart = [result.interval(name) for name in ("better", "plain")]
    # Unpaired intervals overlap although the paired difference is clear of zero.
    assert apart[0].low < apart[1].high
    assert paired.high - paired.low < 0.5 * min(interval.high - interval.low for interval in apart)


@pytest.mark.slow
def test_coverage_by_patient_holds_and_by_record_falls_short():
    runs = 300
    covered = {"patient": 0, "record": 0}
    for run in range(runs):
        rng = np.random.default_rng(1000 + run)
        for unit, holds in covers(rng, patients=80, visits=4, shared=0.9, resamples=300, seed=run).items():
            covered[unit] += holds
    # Binomial bounds at nominal coverage .95: five standard deviations of the 300 runs, less the 2 points by which
    # a percentile interval of 80 patients is known to fall short.
    sd = math.sqrt(0.95 * 0.05 / runs)
    assert 0.93 - 3 * sd < covered["patient"] / runs < 0.95 + 4 * sd
    assert covered["record"] / runs < 0.80


def test_auprc_is_bootstrapped_too():
    patient, labels, scores = _cohort(np.random.default_rng(0), patients=100, visits=2, shared=0.5)
    result = _bootstrap(labels, {"a": scores}, patients=patient, metric="auprc", resamples=500, seed=0)
    interval = result.interval("a")
    assert labels.mean() < interval.low < interval.estimate < interval.high <= 1


def test_one_class_is_undefined_with_its_reason():
    result = _bootstrap(np.zeros(10, int), {"a": np.arange(10.0)}, patients=np.arange(10), resamples=100)
    interval = result.interval("a")
    assert math.isnan(interval.estimate)
    assert math.isnan(interval.low)
    assert interval.reason == "it needs positive and negative records"
    assert "n/a" in str(interval)


def test_one_positive_patient_gives_an_estimate_without_an_interval():
    labels = np.r_[1, np.zeros(20, int)]
    interval = _bootstrap(labels, {"a": np.arange(21.0)[::-1]}, patients=np.arange(21), resamples=500).interval("a")
    assert interval.estimate == 1.0
    assert math.isnan(interval.low)
    assert "of 500 resamples have positive and negative records" in interval.reason


def test_refuses_too_few_resamples():
    with pytest.raises(DataError, match="at least 100"):
        _bootstrap(np.array([0, 1]), {"a": np.zeros(2)}, patients=np.arange(2), resamples=10)


def test_any_metric_is_bootstrapped_on_the_same_resamples():
    patient, labels, scores = _cohort(np.random.default_rng(0), patients=40, visits=2, shared=0.5)
    metrics = {
        "auroc": RankedScores(labels, scores).auroc,
        "f1": Decisions(labels, scores, threshold=0.5).f1,
        "again": Decisions(labels, scores, threshold=0.5).f1,
        "rmse": regression.rmse(labels, scores),
    }
    found = bootstrap_metrics(metrics, patients=patient, resamples=100, seed=3)
    weights = np.concatenate(list(resample_patients(patient, resamples=100, seed=3)))
    for name, metric in metrics.items():
        np.testing.assert_array_equal(found.resampled[name], metric(weights))
    alone = _bootstrap(labels, {"a": scores}, patients=patient, resamples=100, seed=3)
    np.testing.assert_array_equal(found.resampled["auroc"], alone.resampled["a"])
    same = found.difference("f1", "again")
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_a_metric_that_the_records_do_not_allow_says_so():
    patient = np.arange(30)
    nobody = Decisions(np.zeros(30, int), np.zeros(30), threshold=1.0)
    rare = Decisions(np.r_[1, np.zeros(29, int)], np.zeros(30), threshold=1.0)
    metrics = {"never": nobody.sensitivity, "seldom": rare.sensitivity}
    found = bootstrap_metrics(metrics, patients=patient, resamples=200, needs="a positive record")
    assert str(found.interval("never")) == "n/a (it needs a positive record)"
    seldom = found.interval("seldom")
    assert (seldom.estimate, math.isnan(seldom.low)) == (0, True)
    assert seldom.reason == f"only {seldom.resamples} of 200 resamples have a positive record"


def test_each_metric_says_what_it_needs_itself():
    patient, labels = np.arange(30), np.r_[np.ones(10, int), np.zeros(20, int)]
    everybody = Decisions(labels, np.ones(30), threshold=0.5)
    separated = LogisticCalibration(labels, np.where(labels == 1, 0.9, 0.1))
    metrics = {"F1": everybody.f1, "NPV": everybody.npv, "NPV at 0.1": everybody.npv_at(0.1), "slope": separated.slope}
    found = bootstrap_metrics(metrics, patients=patient, resamples=100, needs=needed_for)
    assert [str(found.interval(name)) for name in metrics if name != "F1"] == [
        "n/a (it needs a record below the threshold)",
        "n/a (it needs positive and negative records, and a record below the threshold)",
        "n/a (it needs positive and negative records with probabilities that overlap)",
    ]
    assert found.interval("F1").reason == ""
    # Of a difference, the metric that is missing says why.
    assert found.difference("F1", "slope").reason == found.interval("slope").reason
    assert found.difference("slope", "F1").reason == found.interval("slope").reason


def test_many_metrics_of_3000_records_take_seconds():
    rng = np.random.default_rng(0)
    patient, labels, scores = _cohort(rng, patients=1500, visits=2, shared=0.5)
    p = 1 / (1 + np.exp(-scores))
    made, ranked = Decisions(labels, p, threshold=0.5), RankedScores(labels, p)
    metrics = {
        "auroc": ranked.auroc,
        "auprc": ranked.auprc,
        "f1": made.f1,
        "brier": calibration.brier(labels, p),
        "ece": calibration.expected_calibration_error(labels, p),
        "slope": calibration.LogisticCalibration(labels, p).slope,
    }
    start = time.process_time()
    bootstrap_metrics(metrics, patients=patient, resamples=1000)
    assert time.process_time() - start < 10


def test_names_may_be_whatever_can_be_a_key():
    patient, labels, scores = _cohort(np.random.default_rng(0), patients=40, visits=2, shared=0.5)
    named = _bootstrap(labels, {"a": scores, "b": -scores}, patients=patient, resamples=100, seed=3)
    metrics = {("model", None): RankedScores(labels, scores).auroc, 7: RankedScores(labels, -scores).auroc}
    found = bootstrap_metrics(metrics, patients=patient, resamples=100, seed=3)
    assert found.interval(("model", None)) == named.interval("a")
    assert found.difference(("model", None), 7) == named.difference("a", "b")


def test_the_mean_of_signed_sums_is_that_of_every_resample():
    patient, labels, scores = _cohort(np.random.default_rng(0), patients=60, visits=2, shared=0.5)
    noise = np.random.default_rng(1).normal(size=(4, len(labels)))
    result = _bootstrap(labels, {name: scores + each for name, each in zip("abcd", noise, strict=True)},
                        patients=patient, resamples=200, seed=5)  # fmt: skip
    mean = result.mean_of([[(1, "a"), (-1, "b")], [(1, "c"), (-1, "d")]])

    def by_hand(rows):
        a, b, c, d = (auroc(labels[rows], (scores + each)[rows]) for each in noise)
        return (a - b + c - d) / 2

    assert mean.estimate == pytest.approx(by_hand(np.arange(len(labels))), abs=1e-12)
    np.testing.assert_allclose((mean.low, mean.high), bounds(patient, by_hand, seed=5), atol=1e-12)


def test_an_estimate_that_does_not_exist_says_why():
    missing = Interval.missing("no label is positive")
    assert str(missing) == missing.signed() == "n/a (no label is positive)"
    assert all(map(math.isnan, (missing.estimate, missing.low, missing.high)))
    assert (missing.resamples, missing.confidence) == (0, 0.95)


def test_texts_of_intervals():
    interval = Interval(estimate=0.0876, low=-0.01, high=0.107, confidence=0.95, resamples=2000)
    assert str(interval) == "0.088 [-0.010, 0.107]"
    assert interval.signed() == "+0.088 [-0.010, +0.107]"


def test_one_patient_gives_no_interval_instead_of_one_without_width():
    labels, scores = np.array([0, 1, 0, 1]), {"model": np.array([0.1, 0.4, 0.5, 0.9])}
    interval = _bootstrap(labels, scores, patients=np.zeros(4, int), resamples=100).interval("model")
    assert interval.estimate == 0.75
    assert str(interval) == "0.750 [n/a: all records are of one patient]"


def test_the_example_of_the_docs_runs_as_it_stands(capsys):
    text = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "bootstrap_metrics" in code]
    exec(example, {})
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\n", capsys.readouterr().out)
