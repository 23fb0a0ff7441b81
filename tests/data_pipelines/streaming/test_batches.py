"""The stream: same rows for any number of processes, exact from any step, errors as they are, threads that end."""

import threading
import time

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.streaming.batches import batches
from data_pipelines.streaming.block_order import BlockOrder
from data_pipelines.streaming.orders import PatientOrder, RecordOrder
from data_pipelines.streaming.sampler import Sampler
from data_pipelines.system import reader_threads
from tests.support.fixtures import MadeUpStore

NUM_RECORDS, BATCH_SIZE = 300, 64
STORE = {"num_records": NUM_RECORDS, "shape": (5, 8), "num_threads": 2}


class DamagedStore(MadeUpStore):
    """A store of which one record cannot be read."""

    def __init__(self, damaged):
        super().__init__(**STORE)
        self._damaged = damaged

    def read(self, record_numbers, out, *, valid=None):
        bad = record_numbers == self._damaged
        if valid is None and bad.any():
            raise DataError("shard-3: cannot be read; restore it")
        super().read(record_numbers, out)
        if valid is not None:
            valid[...] = ~bad
            out[bad] = 0
        return out


PATIENT = (np.arange(NUM_RECORDS) // 3).astype(np.int32)


@pytest.fixture(params=["records", "patients"])
def sampler(request):
    records = np.arange(10, NUM_RECORDS)
    if request.param == "records":
        return Sampler(RecordOrder(records, seed=4), batch_size=BATCH_SIZE)
    order = PatientOrder(records, patients=PATIENT[records], records_per_patient=2, seed=4)
    return Sampler(order, batch_size=BATCH_SIZE)


def take(num_batches, sampler, *, store=None, rows=None, **options):
    rows = np.arange(BATCH_SIZE) if rows is None else rows
    stream = batches(store or MadeUpStore(**STORE), sampler, rows=rows, columns={"patient": PATIENT}, **options)
    taken = [next(stream) for _ in range(num_batches)]
    stream.close()
    return taken


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def stream_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(reader_threads.NAME)]


def test_a_batch_holds_signals_rows_records_and_columns(sampler):
    for step, batch in enumerate(take(12, sampler)):
        assert set(batch) == {"signal", "valid", "row", "record", "patient"}
        assert {name: value.dtype.name for name, value in batch.items()} == {
            "signal": "int16",
            "valid": "bool",
            "row": "int32",
            "record": "int32",
            "patient": "int32",
        }
        assert batch["valid"].all()
        assert np.array_equal(batch["row"], np.arange(BATCH_SIZE))
        assert np.array_equal(batch["record"], sampler.record_numbers(step))
        assert np.array_equal(batch["patient"], PATIENT[batch["record"]])
        assert batch["signal"].shape == (BATCH_SIZE, 5, 8)
        assert (batch["signal"] == batch["record"][:, None, None]).all()


def test_what_is_chosen_follows_from_step_and_rows(sampler):
    rows = np.array([7, 3, 40])
    chosen = {"choice": lambda step, rows: 1000 * step + rows}
    for step, batch in enumerate(take(4, sampler, rows=rows, start_step=6, chosen=chosen), start=6):
        np.testing.assert_array_equal(batch["choice"], 1000 * step + rows)


@pytest.mark.parametrize("num_processes", [1, 2, 8, 64])
@pytest.mark.parametrize("permuted", [False, True])
def test_global_batches_are_the_same_for_any_number_of_processes(sampler, num_processes, permuted):
    rows = np.random.default_rng(1).permutation(BATCH_SIZE) if permuted else np.arange(BATCH_SIZE)
    parts = [take(3, sampler, rows=share, start_step=5) for share in np.split(rows, num_processes)]
    for expected, *shares in zip(take(3, sampler, start_step=5), *parts, strict=True):
        joined = {name: np.concatenate([share[name] for share in shares]) for name in expected}
        order = np.argsort(joined["row"])
        assert same({name: values[order] for name, values in joined.items()}, expected)


def test_processes_may_share_rows(sampler):
    (batch,), (other,) = take(1, sampler, rows=np.array([3, 4])), take(1, sampler, rows=np.array([4, 3]))
    assert same({name: values[::-1] for name, values in batch.items()}, other)


@pytest.mark.parametrize("start_step", [1, 4, 5])
def test_a_stream_resumed_goes_on_exactly(sampler, start_step):
    resumed = take(9 - start_step, sampler, start_step=start_step)
    for expected, batch in zip(take(9, sampler)[start_step:], resumed, strict=True):
        assert same(batch, expected)


def test_a_stream_starts_at_a_late_step_at_once(sampler):
    (batch,) = take(1, sampler, start_step=10**10)
    assert np.array_equal(batch["record"], sampler.record_numbers(10**10))


@pytest.mark.parametrize("num_threads", [1, 2, 6])
def test_the_number_of_threads_changes_nothing(sampler, num_threads):
    for expected, batch in zip(take(20, sampler), take(20, sampler, num_threads=num_threads), strict=True):
        assert same(batch, expected)


def test_an_error_of_a_reading_thread_arrives_as_it_is_at_its_step(sampler):
    damaged = int(sampler.record_numbers(3)[7])
    first = next(step for step in range(4) if damaged in sampler.record_numbers(step))
    stream = batches(DamagedStore(damaged), sampler, rows=np.arange(BATCH_SIZE))
    for _ in range(first):
        next(stream)
    with pytest.raises(DataError, match="shard-3: cannot be read; restore it"):
        next(stream)
    assert ended()


def test_rows_of_a_damaged_shard_are_marked_where_that_is_allowed_and_all_others_stay(sampler):
    damaged = int(sampler.record_numbers(3)[7])
    found = take(5, sampler, store=DamagedStore(damaged), allow_bad_shards=True)
    for expected, batch in zip(take(5, sampler), found, strict=True):
        assert np.array_equal(batch["valid"], expected["record"] != damaged)
        assert (batch["signal"][~batch["valid"]] == 0).all()
        for name in ("row", "record", "patient"):
            assert np.array_equal(batch[name], expected[name])
        assert np.array_equal(batch["signal"][batch["valid"]], expected["signal"][batch["valid"]])
    assert not all(batch["valid"].all() for batch in found)


def test_closing_or_dropping_a_stream_ends_its_threads(sampler):
    for end in ("close", "drop", "unstarted"):
        stream = batches(MadeUpStore(**STORE), sampler, rows=np.arange(BATCH_SIZE))
        if end != "unstarted":
            next(stream)
            assert stream_threads()
        if end == "close":
            stream.close()
            assert next(stream, None) is None
        del stream
        assert ended(), end


def test_a_stream_closed_while_a_batch_is_begun_ends_its_threads():
    """The batch is held before it hands parts to other threads, which are gone when it goes on."""
    armed, held, go_on = threading.Event(), threading.Event(), threading.Event()

    class Slow(MadeUpStore):
        def announce(self, record_numbers):
            if armed.is_set() and not held.is_set():
                held.set()
                go_on.wait(10)

    store = Slow(num_records=256, shape=(2**14, 8), num_threads=2)  # Batches of 8 MB are read in two parts.
    blocks = BlockOrder(np.arange(256), block=8, window=2, seed=0)
    stream = batches(store, Sampler(blocks, batch_size=32), rows=np.arange(32))
    next(stream)
    time.sleep(0.3)  # Now batches are ready that are given while the one after them is held.
    armed.set()
    next(stream)
    assert held.wait(10)
    closing = threading.Thread(target=stream.close)
    closing.start()
    time.sleep(0.1)
    go_on.set()
    closing.join(10)
    assert ended()
    prefetching = [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]
    for thread in prefetching:
        thread.join(5)
    assert not any(thread.is_alive() for thread in prefetching)


def ended(seconds=5.0):
    deadline = time.monotonic() + seconds
    while stream_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not stream_threads()


@pytest.mark.parametrize("rows", [[], [-1], [BATCH_SIZE], [[0]]])
def test_rows_outside_the_global_batch_are_refused(sampler, rows):
    with pytest.raises(ValueError, match="rows of a global batch of 64"):
        batches(MadeUpStore(**STORE), sampler, rows=np.array(rows, int))


def test_what_cannot_be_streamed_is_refused(sampler):
    with pytest.raises(TypeError, match="rows are integers, got float64"):
        batches(MadeUpStore(**STORE), sampler, rows=np.array([0.5]))
    with pytest.raises(ValueError, match="column 'short' must be over all 300 records"):
        batches(MadeUpStore(**STORE), sampler, rows=np.array([0]), columns={"short": np.zeros(3)})
    with pytest.raises(ValueError, match="column 'signal'"):
        batches(MadeUpStore(**STORE), sampler, rows=np.array([0]), columns={"signal": np.zeros(NUM_RECORDS)})
    with pytest.raises(ValueError, match="steps count from 0"):
        batches(MadeUpStore(**STORE), sampler, rows=np.array([0]), start_step=-1)
