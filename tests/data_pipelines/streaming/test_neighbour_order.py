"""Every record of an epoch comes with one of its neighbours, each of them in turn: a pure function of the step."""

import collections

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.streaming.neighbour_order import NeighbourOrder
from data_pipelines.streaming.orders import MixtureOrder
from data_pipelines.streaming.sampler import Sampler

RECORDS = np.array([3, 7, 8, 20, 21, 40, 41])

#: Neighbours of each: 99 is not drawn from, −1 stands for none, and record 40 has none that counts.
NEIGHBOURS = np.array([[7, 8, 20], [3, -1, -1], [99, 20, 3], [21, 8, 7], [20, 41, 99], [99, -1, -1], [21, 20, 3]])

THAT_COUNT = {3: [7, 8, 20], 7: [3], 8: [20, 3], 20: [21, 8, 7], 21: [20, 41], 40: [40], 41: [21, 20, 3]}


def order(seed=0):
    return NeighbourOrder(RECORDS, neighbours=NEIGHBOURS, seed=seed)


def test_an_epoch_has_every_record_first_once_and_neighbours_take_turns():
    partners = collections.defaultdict(list)
    for epoch in range(12):
        units = order().units(np.arange(7) + 7 * epoch)
        assert sorted(units[:, 0]) == RECORDS.tolist()
        for first, second in units.tolist():
            partners[first].append(second)
    for first, drawn in partners.items():
        count = len(THAT_COUNT[first])
        for start in range(0, 12, count):  # In as many epochs as there are neighbours each comes once.
            assert sorted(drawn[start : start + count]) == sorted(THAT_COUNT[first])
    assert order().without_neighbour == 1


def test_turns_differ_between_records_cycles_and_seeds():
    many = NeighbourOrder(np.arange(500), neighbours=(np.arange(500)[:, None] + [1, 2, 3]) % 500, seed=0)
    epochs = np.stack([many.units(np.arange(500) + 500 * epoch) for epoch in range(6)])
    apart = np.empty((6, 500), int)
    for epoch, units in enumerate(epochs):
        apart[epoch, units[:, 0]] = (units[:, 1] - units[:, 0]) % 500
    for turns in (apart[0], apart[1], apart[3]):
        assert np.bincount(turns, minlength=4)[1:].min() > 120  # 167 expected, standard deviation 11
    assert 0.2 < (apart[0] == apart[3]).mean() < 0.5
    assert (order(0).units(np.arange(70)) != order(1).units(np.arange(70))).any()


def test_a_batch_is_a_pure_function_of_the_step_and_of_the_rows_of_a_process():
    sampler = Sampler(order(), batch_size=10)
    whole = [sampler.record_numbers(step) for step in range(30)]
    assert sampler.examples_per_epoch == 14
    stream = order().units(np.arange(150)).ravel()
    np.testing.assert_array_equal(np.concatenate(whole), stream)
    for rows in (np.arange(4), np.arange(4, 10), np.array([9, 0, 5])):
        later = sampler.record_numbers_of(17, 5, rows)
        np.testing.assert_array_equal(later, np.stack(whole[17:22])[:, rows])
    assert Sampler(order(), batch_size=10).fingerprint() == sampler.fingerprint()
    assert Sampler(order(1), batch_size=10).fingerprint() != sampler.fingerprint()
    turned = NeighbourOrder(RECORDS, neighbours=NEIGHBOURS[:, ::-1], seed=0)
    assert turned.fingerprint() != order().fingerprint()


def test_golden_pairs():
    # Part of every run's result: a change breaks resuming and needs a new SAMPLING_VERSION.
    assert order(5).units(np.arange(21, 24)).tolist() == [[40, 40], [3, 7], [41, 21]]


def test_pairs_are_mixed_with_others_and_batches_do_not_divide_them():
    mixed = MixtureOrder([order(), NeighbourOrder(np.arange(100, 104), neighbours=np.full((4, 1), 103), seed=1)],
                         block=4, seed=0)  # fmt: skip
    units = Sampler(mixed, batch_size=8).record_numbers(3).reshape(4, 2)
    assert ((units < 99).all(axis=1) | (units > 99).all(axis=1)).all()
    with pytest.raises(
        DataError, match="batch_size=9 is not a multiple of 2, the number of records that are drawn tog"
    ):
        Sampler(order(), batch_size=9)


def test_neighbours_are_those_of_each_record():
    with pytest.raises(DataError, match=r"neighbours are \(3, 2\) for 7 records"):
        NeighbourOrder(RECORDS, neighbours=np.zeros((3, 2), int), seed=0)
    alone = NeighbourOrder(np.array([5]), neighbours=np.full((1, 3), -1), seed=0)
    assert alone.units(np.arange(3)).tolist() == [[5, 5]] * 3
