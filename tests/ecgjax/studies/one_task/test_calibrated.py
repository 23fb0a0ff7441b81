"""Calibration and thresholds: chosen on validation, by brute force over all thresholds."""

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import brier_score_loss, f1_score, recall_score

from ecgjax.evaluation.metrics.calibration import LogisticCalibration
from ecgjax.evaluation.metrics.weighting import estimate
from ecgjax.studies.one_task.calibrated import SPECIFICITY, calibrate, platt

RNG = np.random.default_rng(0)


def test_platt_gives_frequencies_and_never_turns_a_ranking_round():
    log_odds = RNG.normal(-1, 1.5, 4000)
    labels = (RNG.random(4000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    found = platt(labels, 0.01 * log_odds + 7)(0.01 * log_odds + 7)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-log_odds)), atol=0.06)
    np.testing.assert_allclose(platt(labels, -log_odds)(log_odds), labels.mean(), atol=1e-12)
    assert 0 < platt(labels, np.zeros(4000))(np.zeros(2))[0] < 1


def test_probabilities_are_never_without_log_odds():
    labels = np.tile([0, 1], 30)
    found = platt(labels, labels * 2.0)(np.array([-1e6, 1e6]))
    assert 0 < found[0] < 1e-8
    assert 1 - 1e-8 < found[1] < 1


@pytest.mark.parametrize("decimals", [1, 8])
def test_thresholds_are_the_best_of_all_on_validation(decimals):
    hidden = np.round(RNG.normal(-1, 1.5, 700), decimals)
    labels = (RNG.random(700) < special.expit(hidden)).astype(int)
    val, test = hidden[:300], hidden[300:]
    used = calibrate(labels[:300], val, test)
    best = max(np.unique(val), key=lambda t: (f1_score(labels[:300], val >= t), t))
    enough = [t for t in np.unique(val) if np.mean(val[labels[:300] == 0] < t) >= SPECIFICITY - 1e-12]
    expected = platt(labels[:300], val)
    np.testing.assert_array_equal(used.probabilities, expected(test))
    assert used.threshold == pytest.approx(expected(best), abs=1e-12)
    assert used.strict == pytest.approx(expected(min(enough)), abs=1e-12)
    called, strictly, truth = test >= best, test >= min(enough), labels[300:]
    found = {name: estimate(metric, 400) for name, metric in used.metrics(truth).items()}
    logistic = LogisticCalibration(truth, expected(test))
    assert found == pytest.approx(
        {
            "F1": f1_score(truth, called),
            "sensitivity": recall_score(truth, called),
            "specificity": recall_score(truth, called, pos_label=0),
            "sensitivity at 0.9": recall_score(truth, strictly),
            "specificity there": recall_score(truth, strictly, pos_label=0),
            "Brier": brier_score_loss(truth, expected(test)),
            "slope": estimate(logistic.slope, 400),
            "intercept": estimate(logistic.intercept, 400),
        },
        abs=1e-9,
    )


def test_without_a_strict_threshold_nobody_is_called_there():
    # The best score is that of as many negatives as positives: no threshold has a specificity of .9.
    labels, scores = np.tile([0, 1], 20), np.zeros(40)
    used = calibrate(labels, scores, scores)
    assert used.strict == np.inf
    found = {name: estimate(used.metrics(labels)[name], 40) for name in ("sensitivity at 0.9", "specificity there")}
    assert found == {"sensitivity at 0.9": 0, "specificity there": 1}
