"""How often neighbours agree in a label, against pairs of other patients counted one by one."""

import math

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.likeness.label_agreement import agreement, answers, chance
from tests.support.fixtures import make_simulated_dataset


def by_counting(classes, groups):
    pairs = [
        classes[i] == classes[j] for i in range(len(classes)) for j in range(len(classes)) if groups[i] != groups[j]
    ]
    return np.mean(pairs) if pairs else math.nan


def test_chance_is_the_share_of_all_pairs_of_two_patients():
    generator = np.random.default_rng(0)
    for number, patients in ((40, 12), (7, 7), (9, 2)):
        classes, groups = generator.integers(0, 3, number).astype(float), generator.integers(0, patients, number)
        assert chance(classes, groups) == pytest.approx(by_counting(classes, groups), abs=1e-12)
    assert math.isnan(chance(np.ones(4), np.zeros(4)))


def test_agreement_counts_pairs_that_both_have_an_answer():
    classes = np.array([1, 1, 0, math.nan, 0, 1])
    neighbours = np.array([[1, 2], [0, 3], [4, -1], [0, 1], [-1, -1], [2, 0]])
    found = agreement("q", classes, np.arange(6), neighbours)
    # 0: 1 agrees, 2 not. 1: 0 agrees, 3 unknown. 2: 4 agrees. 3 unknown. 4 has none. 5: 2 not, 0 agrees.
    assert (found.pairs, found.share) == (6, pytest.approx(4 / 6))
    assert found.chance == pytest.approx(by_counting(classes[[0, 1, 2, 5]], np.arange(4)))
    assert found.half_width > 0


def test_nothing_to_compare_is_nan():
    found = agreement("q", np.full(3, math.nan), np.arange(3), np.array([[1], [2], [0]]))
    assert found.pairs == 0
    assert all(map(math.isnan, (found.share, found.half_width, found.chance)))


def test_random_neighbours_agree_by_chance_within_the_interval():
    generator = np.random.default_rng(1)
    groups, classes = np.arange(400) // 2, generator.integers(0, 2, 400).astype(float)
    neighbours = np.stack([generator.choice(np.flatnonzero(groups != group), 5, replace=False) for group in groups])
    found = agreement("q", classes, groups, neighbours)
    assert abs(found.share - found.chance) < 1.5 * found.half_width
    assert found.half_width < 0.05


def test_questions(tmp_path):
    index = make_simulated_dataset(tmp_path, num_patients=6, rate=50, seconds=4).index
    age = index.label("age_years")
    np.testing.assert_array_equal(answers("age_years > 50", index), np.where(np.isnan(age), np.nan, age > 50))
    np.testing.assert_array_equal(answers("age_years<50.5", index), np.where(np.isnan(age), np.nan, age < 50.5))
    np.testing.assert_array_equal(answers("sex", index), index.label("sex"))
    np.testing.assert_array_equal(answers("sex=1", index), index.label("sex"))
    for question in ("age_years<<5", "age_years<e", "sex=2", "rhythm:*", "<5"):
        with pytest.raises(DataError, match="--agreement"):
            answers(question, index)
    with pytest.raises(DataError, match="no label 'agee_years'"):
        answers("agee_years>5", index)


def test_a_quantity_is_refused_where_it_has_no_classes(tmp_path):
    index = make_simulated_dataset(tmp_path, num_patients=90, rate=50, seconds=2).index
    with pytest.raises(DataError, match=r"has \d+ values, of which hardly two are equal: ask below or above"):
        answers("age_years", index)
