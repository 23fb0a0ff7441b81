"""AUROC and AUPRC against scikit-learn, under ties, weights and missing classes."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.ranking import RankedScores, auprc, auroc, undefined_reason


def _labels_scores(seed, *, n, levels):
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    scores = rng.normal(size=n) + labels
    return labels, np.round(scores * levels) / levels if levels else scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [2, 7, 1000])
@pytest.mark.parametrize("levels", [0, 1, 5])
def test_equals_scikit_learn(seed, n, levels):
    labels, scores = _labels_scores(seed, n=n, levels=levels)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert auprc(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


def test_constant_scores_give_a_half_and_the_prevalence():
    labels = np.array([1, 0, 0, 0])
    assert auroc(labels, np.full(4, 2.5)) == 0.5
    assert auprc(labels, np.full(4, 2.5)) == 0.25


def test_perfect_and_reversed_ranking():
    labels, scores = np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0])
    assert auroc(labels, scores) == 1.0
    assert auroc(labels, -scores) == 0.0
    assert auprc(labels, scores) == 1.0


def test_float32_scores_keep_their_own_ties():
    labels = np.array([0, 1, 0, 1])
    scores = np.array([0.1, 0.1, 0.3, 0.2], np.float32)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("levels", [0, 2])
def test_weights_equal_repeated_records(levels):
    labels, scores = _labels_scores(3, n=60, levels=levels)
    weights = np.random.default_rng(1).integers(0, 4, size=(25, 60))
    ranked = RankedScores(labels, scores)
    rocs, prcs = ranked.auroc(weights), ranked.auprc(weights)
    for row, roc, prc in zip(weights, rocs, prcs, strict=True):
        repeated = np.repeat(np.arange(60), row)
        assert roc == pytest.approx(roc_auc_score(labels[repeated], scores[repeated]), abs=1e-9)
        assert prc == pytest.approx(average_precision_score(labels[repeated], scores[repeated]), abs=1e-9)


def test_weight_on_one_class_only_is_nan():
    ranked = RankedScores(np.array([0, 0, 1]), np.array([0.0, 1.0, 2.0]))
    weights = np.array([[1, 1, 0], [0, 0, 2], [1, 0, 1]])
    np.testing.assert_array_equal(ranked.auroc(weights), [math.nan, math.nan, 1.0])
    np.testing.assert_array_equal(ranked.auprc(weights), [math.nan, math.nan, 1.0])


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([], "no records"), ([0, 0], "none of 2 records is positive"), ([1, 1, 1], "all 3 records are positive")],
)
def test_one_class_gives_nan_and_a_reason(labels, reason):
    labels = np.array(labels, int)
    assert math.isnan(auroc(labels, np.zeros(len(labels))))
    assert math.isnan(auprc(labels, np.zeros(len(labels))))
    assert undefined_reason(labels) == reason


def test_both_classes_give_no_reason():
    assert undefined_reason(np.array([0, 1])) == ""


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.0, math.nan], "1 of 2 scores are not finite"),
        ([0, 2], [0.0, 1.0], "0 or 1"),
        ([0, math.nan], [0.0, 1.0], "0 or 1"),
        ([0, 1], [0.0], "equal length"),
    ],
)
def test_refuses_what_it_cannot_score(labels, scores, message):
    with pytest.raises(DataError, match=message):
        auroc(np.array(labels), np.array(scores))
