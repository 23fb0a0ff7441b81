"""The block-shuffle: whole epochs, records that lie near each other, as documented, and announced before they come."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.packing.patient_order import shuffled_patients
from data_pipelines.streaming.batches import batches
from data_pipelines.streaming.block_order import BlockOrder
from data_pipelines.streaming.orders import RecordOrder
from data_pipelines.streaming.permutation import derive_key, permute
from data_pipelines.streaming.sampler import Sampler
from tests.support.fixtures import MadeUpStore

SIZES = [(1000, 16, 4), (1000, 1000, 1), (7, 16, 4), (1001, 10, 3), (100, 1, 1), (64, 8, 8), (1, 1, 1)]


def order_of(num_records, block, window, *, seed=3):
    return BlockOrder(np.arange(num_records) * 2 + 5, block=block, window=window, seed=seed)


def one(position, *, size, key):
    return int(permute(np.array([position]), size=size, key=key)[0])


def by_hand(position, num_records, block, window, *, seed=3):
    """The place in stored order of a position, as the class's description says, without vectors."""
    epoch, p = divmod(position, num_records)
    key = derive_key(seed, epoch)
    first = one(0, size=num_records, key=derive_key(key, 0))
    w = p // (block * window)
    in_window = min(block * window, num_records - w * block * window)
    q = w * block * window + one(p % (block * window), size=in_window, key=derive_key(derive_key(key, 2), w))
    number, whole = q // block, num_records // block
    if number < whole:
        number = one(number, size=whole, key=derive_key(key, 1))
    return (first + number * block + q % block) % num_records


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_order_is_the_documented_one_at_any_position_alone(sizes):
    order, num_records = order_of(*sizes), sizes[0]
    for position in range(0, 3 * num_records, max(1, num_records // 40)):
        expected = by_hand(position, *sizes) * 2 + 5
        assert order.units(np.array([position])).tolist() == [[expected]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_record_comes_once_an_epoch_and_in_another_order_in_the_next(sizes):
    order, num_records = order_of(*sizes), sizes[0]
    drawn = order.units(np.arange(3 * num_records))[:, 0].reshape(3, num_records)
    assert (np.sort(drawn, axis=1) == np.arange(num_records) * 2 + 5).all()
    if num_records > 50:
        assert not np.array_equal(drawn[0], drawn[1])


def test_a_window_holds_whole_blocks_of_neighbours_that_begin_elsewhere_in_every_epoch():
    num_records, block, window = 1000, 20, 5
    order = BlockOrder(np.arange(num_records), block=block, window=window, seed=0)
    starts = []
    for epoch in range(4):
        drawn = order.units(epoch * num_records + np.arange(num_records))[:, 0].reshape(-1, block * window)
        for records in drawn:
            assert not np.array_equal(records, np.sort(records)), "a window is shuffled"
            follows = (np.sort(records) + 1) % num_records
            ends = np.setdiff1d(follows, records)
            assert len(ends) <= window, "records of a window lie in as many stretches as it has blocks, or fewer"
        starts.append(int(ends.min()) % block)
    assert len(set(starts)) > 1


def test_windows_follow_each_other_and_end_with_the_epoch():
    order = order_of(1000, 16, 4)
    bounds, position = [], 0
    while position < 2000:
        start, stop = order.window_at(position)
        assert start == position
        assert order.window_at(stop - 1) == (start, stop)
        bounds.append(stop)
        position = stop
    assert 1000 in bounds
    assert max(np.diff(bounds)) == 64


def test_fingerprints_tell_settings_apart():
    found = {order_of(*sizes).fingerprint() for sizes in ((100, 5, 2), (100, 5, 3), (100, 6, 2), (101, 5, 2))}
    found |= {order_of(100, 5, 2, seed=4).fingerprint(), RecordOrder(np.arange(100) * 2 + 5, seed=3).fingerprint()}
    assert len(found) == 6


def test_windows_of_a_shuffled_copy_hold_all_sites_and_their_order_is_another_one():
    patient = np.repeat(np.arange(4000), 2)
    site = patient // 1000  # Four sites lie one after another.
    fingerprints, fewest, dispersed = set(), {}, {}
    for name, stored in (("plain", np.arange(8000)), ("shuffled", shuffled_patients(patient, seed=0))):
        order = BlockOrder(stored, block=50, window=8, seed=1)
        fingerprints.add(order.fingerprint())
        drawn = order.units(np.arange(8000))[:, 0]
        assert np.array_equal(np.sort(drawn), np.arange(8000))
        shares = np.array([np.bincount(site[window], minlength=4) / 400 for window in drawn.reshape(-1, 400)])
        fewest[name], dispersed[name] = shares.min(), shares.std()
        window = drawn[:400]
        pairs = len(window) - len(np.unique(patient[window]))
        assert pairs > 180, "a patient's records stay beside each other"
    assert len(fingerprints) == 2
    assert fewest["plain"] == 0
    assert fewest["shuffled"] > 0.1
    # Blocks of one site each would give sqrt(.25 · .75 / 8) = .15, patients one by one sqrt(.25 · .75 / 200).
    assert dispersed["plain"] > 0.12
    assert dispersed["shuffled"] < 1.3 * np.sqrt(0.25 * 0.75 / 200)


@pytest.mark.parametrize(("records", "block", "window"), [([], 1, 1), ([1], 0, 1), ([1], 1, 0)])
def test_what_is_empty_is_refused(records, block, window):
    with pytest.raises(DataError, match=r"no records to draw from|each must have at least 1"):
        BlockOrder(np.array(records, int), block=block, window=window, seed=0)


class Announced(MadeUpStore):
    """A store that keeps a list of what was announced and read, in the order of the calls."""

    def __init__(self, num_records):
        super().__init__(num_records=num_records, shape=(2, 8), num_threads=1)
        self.calls = []

    def read(self, record_numbers, out, **marks):
        self.calls.append(("read", record_numbers.tolist()))
        return super().read(record_numbers, out, **marks)

    def announce(self, record_numbers):
        self.calls.append(("announce", record_numbers.tolist()))


@pytest.mark.parametrize("batch_size", [8, 50, 150])
@pytest.mark.parametrize(("processes", "start_step"), [(1, 0), (2, 3)])
def test_all_that_a_process_reads_is_announced_once_before_and_as_it_lies(batch_size, processes, start_step):
    order = BlockOrder(np.arange(300), block=10, window=4, seed=1)
    sampler = Sampler(order, batch_size=batch_size)
    rows = np.arange(batch_size)[::processes]
    store = Announced(300)
    stream = batches(store, sampler, rows=rows, start_step=start_step)
    num_steps = 300 // batch_size + 2
    for step, batch in zip(range(start_step, start_step + num_steps), stream, strict=False):
        assert np.array_equal(batch["record"], sampler.record_numbers(step, rows))
    stream.close()
    known, waiting = [], 0
    for kind, numbers in store.calls:
        if kind == "announce":
            known += numbers
            assert len(numbers) <= max(2 * 40, 3 * batch_size), "windows are announced bit by bit"
        else:
            for number in numbers:
                assert number in known, "read without being announced"
                known.remove(number)
            waiting = max(waiting, len(known))
    assert waiting <= 2 * 40, "no more is announced than this window and the next"


def test_an_order_without_windows_announces_nothing():
    store = Announced(300)
    stream = batches(store, Sampler(RecordOrder(np.arange(300), seed=0), batch_size=16), rows=np.arange(16))
    next(stream)
    stream.close()
    assert {kind for kind, _ in store.calls} == {"read"}
