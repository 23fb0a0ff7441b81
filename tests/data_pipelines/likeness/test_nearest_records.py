"""Nearest neighbours are those of brute force in float64, ties and lonely records included."""

import numpy as np
import pytest

from data_pipelines.likeness import nearest_records
from data_pipelines.likeness.nearest_records import nearest


def by_brute_force(points, groups, queries, k):
    """Places and distances, `[m, k]`: of equal distances the lower place first."""
    places, distances = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf)
    for row, query in enumerate(queries):
        apart = points.astype(np.float64) - points[query].astype(np.float64)
        squares = (apart**2).sum(axis=1)
        others = [place for place in np.argsort(squares, kind="stable") if groups[place] != groups[query]][:k]
        places[row, : len(others)], distances[row, : len(others)] = others, np.sqrt(squares[others])
    return places, distances


def check(points, groups, *, k=5, tile=64):
    points, queries = np.asarray(points, np.float32), np.arange(len(points))
    found = nearest(points, np.asarray(groups), queries, k=k, tile=tile)
    places, distances = by_brute_force(points, np.asarray(groups), queries, k)
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)
    return found


@pytest.mark.parametrize("tile", [1, 7, 64, 1000])
def test_random_points_of_random_patients(tile):
    generator = np.random.default_rng(0)
    check(generator.normal(size=(300, 9)), generator.integers(0, 90, 300), tile=tile)


def test_ties_go_to_the_lower_record():
    # Whole numbers in two dimensions: many distances are equal, and exact in any order of summing.
    generator = np.random.default_rng(1)
    points = generator.integers(0, 4, (260, 2))
    found = check(points, generator.integers(0, 60, 260), k=7, tile=32)
    assert (np.diff(found.distances, axis=1) == 0).mean() > 0.5


def test_more_equal_records_than_are_kept(monkeypatch):
    in_float64, calls = nearest_records._in_float64, []
    monkeypatch.setattr(nearest_records, "_in_float64", lambda *a, **k: calls.append(a[2]) or in_float64(*a, **k))
    points = np.concatenate([np.zeros((100, 3)), np.ones((20, 3))])
    check(points, np.arange(120), k=3, tile=16)
    assert len(calls) >= 100, "equal records beyond those that were kept need float64"


def test_points_that_float32_cannot_tell_apart():
    generator = np.random.default_rng(2)
    points = np.float32(1000) + generator.normal(scale=1e-3, size=(200, 5)).astype(np.float32)
    check(points, np.arange(200) // 2, tile=50)
    far = generator.normal(size=(200, 5)) * np.where(np.arange(200) % 17 == 0, 1e4, 1)[:, None]
    check(far, np.arange(200), tile=50)


def test_one_patient_alone_has_no_neighbour():
    found = check(np.random.default_rng(3).normal(size=(20, 4)), np.zeros(20, int))
    assert (found.places == -1).all()
    assert np.isinf(found.distances).all()


def test_a_record_of_its_own_patient_is_no_neighbour_however_near():
    points = np.repeat(np.random.default_rng(4).normal(size=(30, 4)), 2, axis=0)
    groups = np.repeat(np.arange(30), 2)
    found = check(points, groups)
    assert (groups[found.places] != groups[:, None]).all()


def test_fewer_others_than_neighbours_and_single_records():
    # Two patients with one record each, and one with twenty.
    groups = np.concatenate([[0], np.full(20, 1), [2]])
    found = check(np.random.default_rng(5).normal(size=(22, 4)), groups, k=5)
    assert (found.places[1:21, 2:] == -1).all()
    assert (found.places[[0, 21]] >= 0).all()


def test_some_queries_alone():
    generator = np.random.default_rng(6)
    points, groups = generator.normal(size=(600, 4)).astype(np.float32), np.arange(600) // 3
    every = nearest(points, groups, np.arange(600), k=4)
    some = nearest(points, groups, np.array([599, 3, 3, 0]), k=4)
    np.testing.assert_array_equal(some.places, every.places[[599, 3, 3, 0]])
