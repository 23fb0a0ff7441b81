"""The challenge's score against loops written from its definition, and its table of weights."""

import hashlib

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.metadata.snomed import SCORED_CLASSES
from ecgjax.evaluation.metrics.cinc2021 import NORMAL, challenge_score, challenge_weights, unscored
from ecgjax.evaluation.metrics.weighting import estimate

CLASSES = ("AF", "Brady", "NSR", "QAb", "PAC|SVPB")


def by_loops(labels, answers, weights, normal):
    def total(given):
        out = 0.0
        for truth, answer in zip(labels, given, strict=True):
            number = max(1, sum(1 for t, a in zip(truth, answer, strict=True) if t or a))
            for i, t in enumerate(truth):
                for j, a in enumerate(answer):
                    if t and a:
                        out += weights[i, j] / number
        return out

    inactive = np.zeros_like(labels)
    inactive[:, normal] = 1
    worst, best = total(inactive), total(labels)
    return 0.0 if best == worst else (total(answers) - worst) / (best - worst)


def test_weights_are_the_published_table():
    weights = challenge_weights()
    assert weights.shape == (26, 26)
    np.testing.assert_array_equal(weights, weights.T)
    at = {name: i for i, name in enumerate(SCORED_CLASSES)}
    # Read off weights_abbreviations.csv.
    for row, column, value in (
        ("AF", "AFL", 0.5),
        ("AF", "BBB", 0.475),
        ("BBB", "QAb", 0.375),
        ("BBB", "CLBBB|LBBB", 0.475),
        ("LQRSV", "PRWP", 0.475),
        ("CLBBB|LBBB", "PRWP", 0.45),
        ("NSR", "QAb", 0.15),
        ("NSR", "TInv", 0.25),
        ("PAC|SVPB", "QAb", 0.2375),
        ("PVC|VPB", "STach", 0.5),
        ("SB", "SB", 1.0),
    ):
        assert weights[at[row], at[column]] == value
    # All 676 of the file's entries, times 10,000.
    digest = hashlib.blake2b(np.round(weights * 1e4).astype("<i4").tobytes(), digest_size=16).hexdigest()
    assert digest == "1b8dc38dce2575acfd1149455687e0b3"
    with pytest.raises(DataError, match="did not score X"):
        challenge_weights(("X",))


@pytest.mark.parametrize("seed", range(4))
def test_score_equals_loops_under_weights(seed):
    rng = np.random.default_rng(seed)
    labels, answers = (rng.random((2, 40, 5)) < 0.3).astype(int)
    metric = challenge_score(labels, answers, classes=CLASSES)
    table = challenge_weights(CLASSES)
    assert estimate(metric, 40) == pytest.approx(by_loops(labels, answers, table, 2), abs=1e-12)
    weights = rng.integers(0, 3, (5, 40))
    for row, value in zip(weights, metric(weights), strict=True):
        rows = np.repeat(np.arange(40), row)
        assert value == pytest.approx(by_loops(labels[rows], answers[rows], table, 2), abs=1e-12)


def test_right_answers_are_one_and_sinus_rhythm_is_nought():
    rng = np.random.default_rng(0)
    labels = (rng.random((30, 26)) < 0.1).astype(int)
    normal = np.zeros_like(labels)
    normal[:, SCORED_CLASSES.index(NORMAL)] = 1
    assert estimate(challenge_score(labels, labels), 30) == 1.0
    assert estimate(challenge_score(labels, normal), 30) == 0.0
    assert estimate(challenge_score(normal, labels), 30) == 0.0, "as published, where both models are equal"
    assert estimate(challenge_score(labels, np.zeros_like(labels)), 30) < 0, "no answer is worse than sinus rhythm"


def test_a_record_by_hand():
    # AF answered as Brady: of two classes labelled or answered, .3 / 2. Sinus rhythm would have had .25 / 2, AF 1.
    score = challenge_score(np.array([[1, 0, 0]]), np.array([[0, 1, 0]]), classes=("AF", "Brady", "NSR"))
    assert estimate(score, 1) == pytest.approx((0.15 - 0.125) / (1 - 0.125))


def test_what_a_task_needs_for_a_score():
    assert unscored((*SCORED_CLASSES[::-1], "another")) == ()
    assert unscored(SCORED_CLASSES[2:]) == SCORED_CLASSES[:2]
    assert unscored(("NORM", "MI")) == SCORED_CLASSES


def test_what_does_not_fit_is_refused():
    labels = np.zeros((2, 3), int)
    with pytest.raises(DataError, match="'NSR' among them"):
        challenge_score(labels, labels, classes=("AF", "AFL", "Brady"))
    with pytest.raises(DataError, match="answers of the challenge's score must be 0 or 1"):
        challenge_score(labels, labels + 0.5, classes=("AF", "Brady", "NSR"))
    with pytest.raises(DataError, match="of 2 classes"):
        challenge_score(labels, labels, classes=("AF", "NSR"))
