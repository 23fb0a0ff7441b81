"""The random orders: exact, uniform, independent of each other, and the same for ever."""

import collections
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from data_pipelines.streaming.permutation import MAX_SIZE, derive_key, permute


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 1000, 4095, 4097, 65_537, 100_003])
def test_every_element_comes_exactly_once(size):
    order = permute(np.arange(size), size=size, key=derive_key(3, size))
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(size))


def test_golden_values():
    # These orders are part of every run's result: a change breaks resuming and needs a new SAMPLING_VERSION.
    key = derive_key(7, 3)
    assert key.dtype == np.uint64
    assert key.tolist() == [6480866302467822589]
    assert permute(np.arange(10), size=10, key=key).tolist() == [6, 7, 4, 3, 1, 5, 9, 2, 0, 8]
    positions = np.array([0, 1, 999_999, 123_456_789])
    assert permute(positions, size=10**9 + 7, key=key).tolist() == [237154428, 502552666, 94185444, 612980837]


def test_each_position_may_have_a_domain_and_a_key_of_its_own():
    sizes = np.repeat([1, 2, 3, 7, 100], [1, 2, 3, 7, 100])
    positions = np.concatenate([np.arange(size) for size in (1, 2, 3, 7, 100)])
    keys = derive_key(5, sizes)
    together = permute(positions, size=sizes, key=keys)
    one_by_one = [
        int(permute(np.array([position]), size=size, key=key)[0])
        for position, size, key in zip(positions.tolist(), sizes.tolist(), keys, strict=True)
    ]
    assert together.tolist() == one_by_one
    for size in (1, 2, 3, 7, 100):
        assert np.array_equal(np.sort(together[sizes == size]), np.arange(size))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_all_orders_of_few_elements_are_equally_likely(size):
    num_orders = math.factorial(size)
    keys = derive_key(1, np.arange(40 * num_orders + 5000))
    orders = np.stack([permute(np.full(len(keys), at), size=size, key=keys) for at in range(size)], axis=1)
    counts = collections.Counter(map(tuple, orders.tolist()))
    observed = [counts[order] for order in itertools.permutations(range(size))]
    assert stats.chisquare(observed).pvalue > 1e-3


@pytest.mark.parametrize("size", [30, 1000])
def test_an_element_is_equally_likely_at_every_position(size):
    keys = derive_key(2, np.arange(40 * size))
    for position in (0, size // 2, size - 1):
        elements = permute(np.full(len(keys), position), size=size, key=keys)
        assert stats.chisquare(np.bincount(elements, minlength=size)).pvalue > 1e-3


def test_an_order_is_not_like_itself_nor_like_another_epochs():
    size = 20_000
    here, there = (permute(np.arange(size), size=size, key=derive_key(0, epoch)) for epoch in (0, 1))
    # Standard deviation of a correlation of independent orders: 1 / sqrt(size) = .007.
    for other in (np.arange(size), there, np.roll(here, 1)):
        assert abs(np.corrcoef(here, other)[0, 1]) < 0.035
    assert np.mean(here == there) < 10 / size


def test_keys_of_neighbouring_seeds_and_words_differ():
    seeds, words = np.meshgrid(np.arange(200), np.arange(200))
    assert len(np.unique(derive_key(seeds.ravel(), words.ravel()))) == 200 * 200
    assert derive_key(-1, 0) == derive_key(2**64 - 1, 0)


def test_the_largest_size_works():
    positions = np.arange(1000) * (MAX_SIZE // 1000)
    elements = permute(positions, size=MAX_SIZE, key=derive_key(0, 0))
    assert len(np.unique(elements)) == 1000
    assert elements.min() >= 0
    assert elements.max() < MAX_SIZE


def test_no_positions_no_elements():
    assert permute(np.empty(0, np.int64), size=5, key=derive_key(0, 0)).shape == (0,)


@pytest.mark.parametrize(("position", "size"), [(5, 5), (-1, 5), (0, 0), (0, MAX_SIZE + 1)])
def test_positions_and_sizes_out_of_range_are_refused(position, size):
    with pytest.raises(ValueError, match=r"must lie|lie in"):
        permute(np.array([position]), size=size, key=derive_key(0, 0))
