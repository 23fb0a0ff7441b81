"""Mixtures and balanced batches: shares exact over every block, every component's epochs whole, any position alone."""

import itertools

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.streaming.orders import (
    MAX_TICKS,
    MixtureOrder,
    PatientOrder,
    RecordOrder,
    component_seed,
    smallest_block,
)


def record_orders(sizes, *, seed=0, start=0):
    """Orders of records that follow each other: component d holds those from the sum of the sizes before it."""
    bounds = start + np.concatenate([[0], np.cumsum(sizes)])
    return [
        RecordOrder(np.arange(first, last), seed=component_seed(seed, number))
        for number, (first, last) in enumerate(itertools.pairwise(bounds))
    ]


def component_of(records, sizes):
    return np.searchsorted(np.cumsum(sizes), records, side="right")


WEIGHTS = [(1, 1), (0.7, 0.3), (3, 2, 5), (1 / 3, 2 / 3), (0.1, 0.2, 0.7), (100, 1), (np.pi, 1, np.sqrt(2)), (1, 1, 1)]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("multiple_of", [1, 16])
def test_shares_are_exact_to_one_unit_over_any_number_of_blocks(weights, multiple_of):
    sizes = [37, 5, 11][: len(weights)]
    block = smallest_block(weights, multiple_of=multiple_of)
    assert block % multiple_of == 0
    order = MixtureOrder(record_orders(sizes), weights=weights, block=block, seed=3)
    num_blocks = max(40, 2000 // block)
    drawn = component_of(order.units(np.arange(num_blocks * block))[:, 0], sizes).reshape(num_blocks, block)
    of_block = np.stack([(drawn == number).sum(axis=1) for number in range(len(sizes))], axis=1)
    share = np.array(weights) / sum(weights)
    wanted = np.arange(1, num_blocks + 1)[:, None] * block * share
    assert (np.abs(np.cumsum(of_block, axis=0) - wanted) < 1 + 1e-6).all()
    assert (np.abs(of_block - block * share) < 2).all()


@pytest.mark.parametrize(("classes", "block"), [(2, 8), (2, 7), (3, 8), (5, 3), (40, 119), (7, 64), (1, 6)])
def test_equal_shares_are_rounded_down_or_up_in_every_block_and_go_round(classes, block):
    sizes = list(range(1, classes + 1))
    order = MixtureOrder(record_orders(sizes), block=block, seed=1)
    drawn = component_of(order.units(np.arange(3 * classes * block))[:, 0], sizes).reshape(-1, block)
    of_block = np.stack([np.bincount(row, minlength=classes) for row in drawn])
    assert of_block.min() >= block // classes
    assert of_block.max() <= -(-block // classes)
    so_far = np.cumsum(of_block, axis=0)
    assert (so_far.max(axis=1) - so_far.min(axis=1) <= 1).all()
    assert (so_far[classes - 1] == block).all(), "after as many blocks as classes all have had as much"


def test_a_components_units_are_its_own_stream_so_that_its_epochs_stay_whole():
    generator = np.random.default_rng(0)
    sizes = [9, 4, 30]
    orders = record_orders(sizes)
    order = MixtureOrder(orders, weights=(2, 1, 4), block=smallest_block((2, 1, 4), multiple_of=10), seed=5)
    positions = np.arange(40 * 20)
    component, position = order.components(positions)
    units = order.units(positions)
    for number, own in enumerate(orders):
        of_own = np.sort(position[component == number])
        np.testing.assert_array_equal(of_own, np.arange(len(of_own)))
        drawn = units[component == number][np.argsort(position[component == number])]
        np.testing.assert_array_equal(drawn, own.units(of_own))
        whole = len(drawn) // sizes[number] * sizes[number]
        assert whole
        epochs = np.sort(drawn[:whole].reshape(-1, sizes[number]), axis=1)
        assert (epochs == epochs[0]).all()
        assert len(np.unique(epochs[0])) == sizes[number]
    asked = generator.integers(0, len(positions), 50)
    np.testing.assert_array_equal(order.units(asked), units[asked])


def test_components_stand_in_random_order_within_blocks():
    order = MixtureOrder(record_orders([50, 50]), block=20, seed=0)
    first_half = component_of(order.units(np.arange(20 * 2000))[:, 0], [50, 50]).reshape(2000, 20)[:, :10].sum(axis=1)
    # Hypergeometric: mean 5, variance 10·½·½·10/19 = 1.316; the mean of 2,000 has a standard deviation of .026.
    assert abs(first_half.mean() - 5) < 0.1
    assert 1.1 < first_half.var() < 1.55


def test_components_of_one_size_have_orders_of_their_own():
    first, second = record_orders([200, 200])
    same = first.units(np.arange(200)) == second.units(np.arange(200)) - 200
    assert same.mean() < 0.05


def test_patients_are_mixed_as_units():
    patients = np.array([0, 0, 0, 1, 1, 2])
    orders = [
        PatientOrder(start + np.arange(6), patients=patients, records_per_patient=2, seed=component_seed(0, number))
        for number, start in enumerate((0, 100))
    ]
    order = MixtureOrder(orders, weights=(3, 1), block=8, seed=0)
    assert (order.unit_size, order.units_per_epoch) == (2, 8)
    units = order.units(np.arange(64))
    assert (patients[units % 100][:, 0] == patients[units % 100][:, 1]).all()
    assert ((units < 100).all(axis=1) | (units >= 100).all(axis=1)).all()
    assert (units >= 100).all(axis=1).sum() == 16


def test_mixtures_may_be_mixed():
    inner = MixtureOrder(record_orders([5, 7]), block=4, seed=component_seed(9, 0))
    outer = MixtureOrder([inner, *record_orders([20], seed=9, start=100)], weights=(1, 3), block=8, seed=9)
    drawn = outer.units(np.arange(800))[:, 0]
    assert [(drawn < 5).sum(), ((drawn >= 5) & (drawn < 12)).sum(), (drawn >= 100).sum()] == [100, 100, 600]


def test_positions_far_ahead_are_as_good_as_the_first():
    # Beyond 2⁵³, and the products of the shares beyond 2⁶³.
    weights = (0.123456789, 0.876543211)
    sizes = [11, 13]
    block = smallest_block(weights, multiple_of=1)
    order = MixtureOrder(record_orders(sizes), weights=weights, block=block, seed=0)
    start = 2**56 // block * block
    component, position = order.components(np.arange(start, start + 40 * block))
    assert np.sort(position[component == 0])[0] == start * 123456789 // 10**9
    np.testing.assert_array_equal(np.diff(np.sort(position[component == 0])), 1)
    np.testing.assert_array_equal(np.diff(np.sort(position[component == 1])), 1)


def test_golden_mixture():
    # Part of every run's result: a change breaks resuming and needs a new SAMPLING_VERSION.
    weighted = MixtureOrder(record_orders([50, 50]), weights=(0.7, 0.3), block=10, seed=5)
    equal = MixtureOrder(record_orders([50, 50, 50]), block=8, seed=5)
    assert weighted.units(np.arange(35, 45))[:, 0].tolist() == [38, 5, 73, 89, 37, 99, 14, 8, 27, 22]
    assert equal.units(np.arange(35, 45))[:, 0].tolist() == [125, 4, 89, 19, 149, 88, 106, 84, 18, 121]


def test_random_mixtures_hold_what_is_promised():
    generator = np.random.default_rng(12)
    for _ in range(60):
        sizes = generator.integers(1, 12, generator.integers(1, 6)).tolist()
        weights = generator.uniform(0.2, 3, len(sizes)).round(int(generator.integers(1, 8))).tolist()
        block = smallest_block(weights, multiple_of=int(generator.integers(1, 9)))
        orders = record_orders(sizes, seed=int(generator.integers(100)))
        order = MixtureOrder(orders, weights=weights, block=block, seed=int(generator.integers(100)))
        first = int(generator.integers(10**6)) * block
        positions = generator.permutation(np.arange(first, first + 3 * block))
        component, position = order.components(positions)
        drawn = order.units(positions)
        for number, own in enumerate(orders):
            of_own = np.sort(position[component == number])
            np.testing.assert_array_equal(np.diff(of_own), 1)
            expected = first * weights[number] / sum(weights)
            assert abs(of_own[0] - expected) < 1 + 1e-6 * (1 + expected)
            np.testing.assert_array_equal(drawn[component == number], own.units(position[component == number]))


def test_what_cannot_be_mixed_is_refused():
    orders = record_orders([3, 4])
    pairs = PatientOrder(np.arange(4), patients=np.zeros(4, int), records_per_patient=2, seed=0)
    with pytest.raises(DataError, match="at least one component"):
        MixtureOrder([], block=4, seed=0)
    with pytest.raises(DataError, match="units of 1, 2 records cannot be mixed"):
        MixtureOrder([orders[0], pairs], block=4, seed=0)
    with pytest.raises(DataError, match="3 weights given for 2 components"):
        MixtureOrder(orders, weights=(1, 1, 1), block=4, seed=0)
    with pytest.raises(DataError, match=r"block of 19 units holds less than 2 .* at least 20"):
        MixtureOrder(orders, weights=(9, 1), block=19, seed=0)
    with pytest.raises(DataError, match="block of 0 units"):
        MixtureOrder(orders, block=0, seed=0)
    with pytest.raises(DataError, match=f"1e-12; the smallest is less than a part in {MAX_TICKS}"):
        MixtureOrder(orders, weights=(1, 1e-12), block=2**40, seed=0)
    for weights in ((1, 0), (1, -1), (1, float("nan")), (float("inf"), 1)):
        with pytest.raises(DataError, match="each must be a number above 0"):
            smallest_block(weights, multiple_of=1)
    with pytest.raises(DataError, match="weights are none"):
        smallest_block((), multiple_of=1)
    with pytest.raises(DataError, match="records_per_patient=0"):
        PatientOrder(np.arange(4), patients=np.zeros(4, int), records_per_patient=0, seed=0)


def test_fingerprints_tell_apart_everything_that_changes_the_order_and_nothing_else():
    def mixture(*, sizes=(30, 40), orders_seed=0, weights=(3, 1), block=8, seed=0):
        return MixtureOrder(record_orders(sizes, seed=orders_seed), weights=weights, block=block, seed=seed)

    changed = [
        mixture(),
        mixture(sizes=(40, 30)),
        mixture(orders_seed=1),
        mixture(weights=(1, 3)),
        mixture(weights=None),
        mixture(block=16),
        mixture(seed=1),
        MixtureOrder(record_orders([30, 40, 1]), weights=(3, 1, 1), block=10, seed=0),
        RecordOrder(np.arange(70), seed=0),
        PatientOrder(np.arange(70), patients=np.arange(70), records_per_patient=1, seed=0),
        PatientOrder(np.arange(70), patients=np.arange(70) // 2, records_per_patient=1, seed=0),
    ]
    assert len({order.fingerprint() for order in changed}) == len(changed)
    assert mixture(weights=(0.75, 0.25)).fingerprint() == mixture().fingerprint()
    assert mixture(weights=(2, 2)).fingerprint() == mixture(weights=None).fingerprint()
    numbered = [RecordOrder(np.arange(9, dtype=kind), seed=0).fingerprint() for kind in (np.int32, np.int64, np.uint8)]
    assert len(set(numbered)) == 1
