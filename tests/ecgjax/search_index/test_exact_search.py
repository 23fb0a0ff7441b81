"""Neighbours equal brute force in float64, ties included, whatever the blocks and the devices are."""

import jax
import numpy as np
import pytest

from data_pipelines.errors import DataError
from ecgjax.search_index import exact_search
from ecgjax.search_index.exact_search import Apart, nearest
from tests.ecgjax.search_index import brute_force


def unit(number, dim, seed=0):
    values = np.random.default_rng(seed).standard_normal((number, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def equal(found, expected):
    np.testing.assert_array_equal(found.rows, expected[0])
    np.testing.assert_array_equal(found.similarity, expected[1])


@pytest.fixture(scope="module")
def with_ties():
    """A thousand embeddings, of which many are copies of others, far from and near to each other."""
    stored = unit(1001, 20)
    stored[100:150] = stored[100]
    stored[700:800] = stored[100]
    stored[5] = stored[6]
    stored[990] = stored[6]
    return stored


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("block_rows", [7, 128, 65_536])
def test_neighbours_equal_brute_force_with_ties_for_any_blocks_and_devices(with_ties, block_rows, devices):
    queries = np.concatenate([with_ties[[5, 100, 990]], unit(14, 20, seed=1)])
    found = nearest(with_ties, queries, k=10, block_rows=block_rows, devices=jax.devices()[:devices])
    equal(found, brute_force.neighbours(queries, with_ties, k=10))
    assert found.rows[0, :3].tolist() == [5, 6, 990]
    assert found.rows[1].tolist() == list(range(100, 110))
    assert found.passes_in_float64 == 1, "only the 150 copies are more than the candidates that are kept"


def test_a_copy_has_a_cosine_of_exactly_one_and_none_has_more():
    stored = unit(2000, 64)
    stored[1000:] = (stored[:1000].astype(np.float64) * (1 + 1e-3)).astype(np.float16)
    found = nearest(stored, stored[:300], k=2)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(300))
    assert (found.similarity[:, 0] == 1).all()
    assert (found.similarity <= 1).all()


def test_many_queries_are_answered_in_passes_as_they_are_one_by_one(monkeypatch):
    stored, queries = unit(300, 8), unit(21, 8, seed=1)
    monkeypatch.setattr(exact_search, "QUERIES_AT_ONCE", 5)
    monkeypatch.setattr(exact_search, "_EXACT_BYTES", 1)
    searched = []
    equal(nearest(stored, queries, k=4, tell=searched.append), brute_force.neighbours(queries, stored, k=4))
    assert sum(searched) == 5 * 300


def test_the_greatest_of_groups_are_the_greatest_of_all():
    stored, queries = unit(9000, 8), unit(5, 8, seed=1)
    # More groups than candidates: the device chooses among maxima first.
    assert 8192 // exact_search._GROUP > 3 + exact_search._SLACK
    found = nearest(stored, queries, k=3, block_rows=8192, devices=jax.devices()[:1])
    equal(found, brute_force.neighbours(queries, stored, k=3))
    assert found.passes_in_float64 == 0


@pytest.mark.parametrize("devices", [1, 8])
def test_rows_that_share_a_code_or_are_not_allowed_are_no_neighbours(with_ties, devices):
    queries = with_ties[[100, 120, 3, 6, 800]]
    rows = np.stack([np.arange(1001) // 10, np.arange(1001)], axis=1).astype(np.int32)
    rows[:5, 0] = -1
    codes = np.array([[10, -1], [-1, 120], [-1, 3], [0, 6], [-1, -1]], np.int32)
    shared = ((rows[None] == codes[:, None]) & (codes[:, None] >= 0)).any(axis=2)
    allowed = np.flatnonzero(np.arange(1001) % 3 != 1)
    never = shared | ~np.isin(np.arange(1001), allowed)[None]
    found = nearest(
        with_ties,
        queries,
        k=12,
        rows=allowed,
        apart=Apart(rows=rows, queries=codes),
        block_rows=64,
        devices=jax.devices()[:devices],
    )
    equal(found, brute_force.neighbours(queries, with_ties, k=12, never=never))
    assert found.passes_in_float64 > 0
    assert 6 not in found.rows[3]


def test_where_there_are_fewer_rows_than_neighbours_the_rest_is_missing():
    stored = unit(5, 8)
    apart = Apart(rows=np.array([[0, -1]] * 4 + [[1, -1]], np.int32), queries=np.array([[0, -1], [1, -1]], np.int32))
    found = nearest(stored, stored[[0, 4]], k=3, apart=apart)
    assert found.rows[0].tolist() == [4, -1, -1]
    assert sorted(found.rows[1].tolist()) != [-1, -1, -1]
    assert found.similarity[0, 1:].tolist() == [-np.inf, -np.inf]
    assert nearest(stored, stored[:1], k=1000).rows[0, 5:].tolist() == [-1] * 995


def test_equal_embeddings_of_a_collapsed_encoder_come_in_the_order_of_rows():
    stored = np.broadcast_to(unit(1, 16), (500, 16)).copy()
    found = nearest(stored, stored[:3], k=7, block_rows=64)
    assert found.rows.tolist() == [list(range(7))] * 3
    assert found.passes_in_float64 == 3


def test_near_ties_below_the_precision_of_float32_are_ordered_by_float64():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(256)
    base /= np.linalg.norm(base)
    stored = np.broadcast_to(base.astype(np.float16), (400, 256)).copy()
    # The last bit of one number changes the cosine by about 1e-9.
    for row in range(400):
        place = rng.integers(256)
        stored[row, place] = np.nextafter(stored[row, place], np.float16(2))
    queries = base.astype(np.float16)[None]
    cosine = brute_force.cosines(queries, stored)
    assert len(np.unique(cosine)) > 30
    assert np.ptp(cosine) < 1e-6
    equal(nearest(stored, queries, k=20, block_rows=100), brute_force.neighbours(queries, stored, k=20))


def test_numbers_of_neighbours_that_cannot_be_are_refused():
    for k in (0, -1, 1001):
        with pytest.raises(DataError, match=f"--k={k}"):
            nearest(unit(5, 8), unit(1, 8), k=k)
