"""Both stores give what was built, and name all that is bad at opening."""

import collections
import json
import os
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.bad_shards import BadRecords, BadShard
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE
from data_pipelines.storage.store import open_store
from tests.support.fixtures import in_threads

KINDS = ("array_record", "packed")


def shards_of(directory, kind):
    """Paths of a store's shards, in order."""
    return open_dataset(directory).shards if kind == "array_record" else sorted((directory / PACKED_DIR).glob("*.npy"))


def bounds_of(directory, kind):
    """First record number of every shard, and the number of records."""
    card, packed = open_dataset(directory).card, json.loads((directory / PACKED_DIR / PACKED_FILE).read_text())
    of_packed = [shard["num_records"] for shard in packed["shards"]]
    return np.cumsum([0, *(card["shard_lengths"] if kind == "array_record" else of_packed)]).tolist()


def harm(shard, damage):
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1000])


# Reading


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_gives_what_was_built_in_the_order_asked_for(stored_dataset, kind):
    dataset, signals = stored_dataset
    store = open_store(dataset.directory, kind=kind)
    assert (store.kind, store.num_records) == (kind, len(signals))
    generator = np.random.default_rng(0)
    for numbers in (
        np.arange(len(signals)),
        generator.permutation(len(signals)),
        generator.integers(0, len(signals), 200),
        np.array([3, 3, 3], np.int32),
        np.array([len(signals) - 1]),
        np.empty(0, np.int64),
    ):
        read = store.read(numbers)
        assert read.dtype == np.int16
        assert np.array_equal(read, signals[numbers])
        read[...] = 0  # the caller's own
        out = np.full_like(read, 7)
        assert store.read(numbers, out) is out
        assert np.array_equal(out, signals[numbers])
    assert np.array_equal(store.read(np.arange(len(signals))), signals)


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_array_that_fits_is_read_into(stored_dataset, kind):
    dataset, _ = stored_dataset
    store = open_store(dataset.directory, kind=kind)
    good = np.empty((2, *store.shape), np.int16)
    for out in (good[:1], good.astype(np.int32), good.astype(np.uint16), np.empty((4, *store.shape), np.int16)[::2]):
        with pytest.raises(ValueError, match="out must be C-contiguous int16"):
            store.read(np.array([0, 1]), out)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_at_once(stored_dataset, kind):
    dataset, signals = stored_dataset
    store = open_store(dataset.directory, kind=kind)
    wrong = collections.deque()

    def work(seed):
        for _ in range(5):
            numbers = np.random.default_rng(seed).integers(0, len(signals), 100)
            if not np.array_equal(store.read(numbers), signals[numbers]):
                wrong.append(seed)

    in_threads(work, range(4))
    assert not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_outside_the_store_are_refused(stored_dataset, kind):
    dataset, signals = stored_dataset
    store = open_store(dataset.directory, kind=kind)
    for number in (-1, len(signals)):
        with pytest.raises(IndexError, match=f"the store holds 0 … {len(signals) - 1}"):
            store.read(np.array([0, number]))
    with pytest.raises(TypeError, match="vector of integers, got float64"):
        store.read(np.array([0.0]))


def test_auto_takes_the_packed_copy_where_there_is_one_and_never_makes_it(stored_copy):
    assert open_store(stored_copy).kind == "packed"
    shutil.rmtree(stored_copy / PACKED_DIR)
    assert open_store(stored_copy).kind == "array_record"
    assert not (stored_copy / PACKED_DIR).exists()
    with pytest.raises(DataError, match=r"no packed copy; make it with python -m data_pipelines.stage --dataset="):
        open_store(stored_copy, kind="packed")
    with pytest.raises(DataError, match="no store 'zarr'; choose one of auto, packed, array_record"):
        open_store(stored_copy, kind="zarr")


# Opening and damage


def test_more_shards_than_files_may_be_open_are_read(stored_dataset, monkeypatch):
    dataset, signals = stored_dataset
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4, 4))
    for kind in KINDS:
        before = len(os.listdir("/proc/self/fd"))
        store = open_store(dataset.directory, kind=kind)
        numbers = np.random.default_rng(0).permutation(len(signals))
        assert np.array_equal(store.read(numbers), signals[numbers])
        assert len(os.listdir("/proc/self/fd")) - before <= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_all_bad_shards_are_named_at_opening(stored_copy, kind, damage):
    shards = shards_of(stored_copy, kind)
    for shard in (shards[0], shards[2]):
        harm(shard, damage)
    with pytest.raises(DataError) as caught:
        open_store(stored_copy, kind=kind)
    message = str(caught.value)
    assert message.startswith(f"2 of {len(shards)} shards cannot be read: {shards[0]}: ")
    assert f"; {shards[2]}: " in message
    assert str(shards[1]) not in message
    open_dataset(stored_copy)  # looks at card and index alone


def test_a_data_set_without_its_array_record_shards_is_read_from_its_packed_copy(stored_copy, stored_dataset):
    _, signals = stored_dataset
    for shard in open_dataset(stored_copy).shards:
        shard.unlink()
    assert np.array_equal(open_store(stored_copy).read(np.arange(len(signals))), signals)
    with pytest.raises(DataError, match=r"none of its \d+ ArrayRecord shards can be read .*store 'packed'"):
        open_store(stored_copy, kind="array_record")


def test_a_url_is_no_place_to_open():
    with pytest.raises(DataError, match=r"gs://bucket/ecgs: .*mount the bucket, or make a local copy .*stage --dat"):
        open_store("gs://bucket/ecgs")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_records_of_bad_shards_are_marked_and_zero_and_all_others_right(stored_copy, stored_dataset, kind, damage):
    _, signals = stored_dataset
    shards = shards_of(stored_copy, kind)
    bounds = bounds_of(stored_copy, kind)
    bad = np.zeros(len(signals), bool)
    for number in (0, 2):
        harm(shards[number], damage)
        bad[bounds[number] : bounds[number + 1]] = True
    store = open_store(stored_copy, kind=kind, allow_bad_shards=True)
    found = [(shard.path, shard.start, shard.stop) for shard in store.bad_shards]
    assert found == [(shards[number], bounds[number], bounds[number + 1]) for number in (0, 2)]
    for numbers in (np.random.default_rng(0).permutation(len(signals)), np.flatnonzero(bad), np.flatnonzero(~bad)):
        out = np.full((len(numbers), *store.shape), 7, np.int16)
        valid = np.zeros(len(numbers), bool)
        assert store.read(numbers, out, valid=valid) is out
        assert np.array_equal(valid, ~bad[numbers])
        assert np.array_equal(out, np.where(bad[numbers, None, None], 0, signals[numbers]))
    good = np.flatnonzero(~bad)
    assert np.array_equal(store.read(good), signals[good])
    with pytest.raises(DataError, match=rf"^{re.escape(str(shards[2]))}: [^;]*$"):
        store.read(np.array([good[0], bounds[2]]))


def test_damage_behind_an_empty_shard_is_listed():
    empty = BadShard(path=Path("a"), start=5, stop=5, reason="this shard is missing")
    bad = BadRecords([empty])
    assert not bad.among(np.arange(10)).any()
    for _ in range(2):
        bad.add(BadShard(path=Path("b"), start=5, stop=6, reason="damaged"))
    assert np.flatnonzero(bad.among(np.arange(10))).tolist() == [5]
    assert list(map(str, bad.shards)) == ["a: this shard is missing", "b: damaged"]
    with pytest.raises(DataError, match=r"^b: damaged$"):
        bad.check(np.arange(10))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_valid_where_nothing_is_bad(stored_dataset, kind):
    dataset, signals = stored_dataset
    store = open_store(dataset.directory, kind=kind, allow_bad_shards=True)
    valid = np.zeros(len(signals), bool)
    assert np.array_equal(store.read(np.arange(len(signals)), valid=valid), signals)
    assert valid.all()
    assert not len(store.bad_shards)
    for wrong in (np.empty(3, bool), np.empty(len(signals), np.uint8)):
        with pytest.raises(ValueError, match="valid must be bool"):
            store.read(np.arange(len(signals)), valid=wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_without_one_good_shard_is_refused_all_the_same(stored_copy, kind):
    for shard in shards_of(stored_copy, kind):
        harm(shard, "truncated")
    with pytest.raises(DataError, match=r"none of its \d+ .* can be read|cannot be read: "):
        open_store(stored_copy, kind=kind, allow_bad_shards=True)
