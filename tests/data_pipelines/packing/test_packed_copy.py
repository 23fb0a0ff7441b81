"""A packed copy is made of plain .npy files, whole and checked, or not at all."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.packing.packed_copy import pack, packed_staging
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE, PAGE_BYTES, file_hash, shard_spans
from data_pipelines.storage.store import open_store
from data_pipelines.system.digests import DIGESTS_FILE
from tests.support.fixtures import RECORDS_A_PACKED_SHARD, flip_bit

SHARD_BYTES = RECORDS_A_PACKED_SHARD * 16_000


@pytest.fixture
def copy(stored_copy):
    """A copy of the data set that has no packed one yet."""
    shutil.rmtree(stored_copy / PACKED_DIR)
    return stored_copy


def assert_read(directory, signals):
    store = open_store(directory)
    assert store.kind == "packed"
    assert np.array_equal(store.read(np.arange(len(signals))), signals)


def test_a_packed_copy_is_plain_npy_files_checked_against_their_hash(copy, stored_dataset):
    dataset, signals = stored_dataset
    assert pack(open_dataset(copy), shard_bytes=SHARD_BYTES) is True
    folder = copy / PACKED_DIR
    contents = json.loads((folder / PACKED_FILE).read_text())
    assert contents["fingerprint"] == dataset.fingerprint
    assert [shard["num_records"] for shard in contents["shards"][:-1]] == [32] * (len(signals) // 32)
    joined = np.concatenate([np.load(folder / shard["name"], allow_pickle=False) for shard in contents["shards"]])
    assert joined.dtype == np.int16
    assert np.array_equal(joined, signals)
    for shard in contents["shards"]:
        assert file_hash(folder / shard["name"]) == shard["blake2b"]
    assert {path.name for path in folder.iterdir()} == {
        *(PACKED_FILE, DIGESTS_FILE),
        *(shard["name"] for shard in contents["shards"]),
    }
    assert not packed_staging(copy).exists()


@pytest.mark.parametrize("size", [16 * 100, 16 * 1000, 16 * 2500, 16 * 5000, 16 * 4097])
def test_shards_are_whole_memory_pages_and_hold_every_record_once(size):
    spans = shard_spans(10_000, bytes_per_record=size, shard_bytes=2**24)
    assert [number for span in spans for number in span] == list(range(10_000))
    for span in spans[:-1]:
        assert len(span) * size % PAGE_BYTES == 0
        assert len(span) * size <= max(2**24, 256 * size)


def test_packing_again_leaves_a_good_copy_and_refuses_a_bad_one(copy):
    dataset = open_dataset(copy)
    pack(dataset, shard_bytes=SHARD_BYTES)
    before = {path.name: path.stat().st_mtime_ns for path in (copy / PACKED_DIR).iterdir()}
    assert pack(dataset) is False
    assert {path.name: path.stat().st_mtime_ns for path in (copy / PACKED_DIR).iterdir()} == before
    flip_bit(copy / PACKED_DIR / "00001.npy", 5000)
    with pytest.raises(DataError, match=r"00001.npy: its contents have changed.*remove .*packed and make it again"):
        pack(dataset)


def test_progress_counts_every_record(copy):
    counts = []
    assert pack(open_dataset(copy), progress=counts.append) is True
    assert sum(counts) == open_dataset(copy).index.num_records


@pytest.mark.parametrize("seed", [None, 5], ids=["by number", "shuffled"])
def test_a_full_disk_is_noticed_before_anything_is_written(copy, monkeypatch, seed):
    usage = shutil.disk_usage(copy)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"needs 0.27 GB more and 0.00 GB are free; make room"):
        pack(open_dataset(copy), seed=seed)
    assert not (copy / PACKED_DIR).exists()
    assert not packed_staging(copy).exists()


def test_a_damaged_shard_ends_packing_and_what_was_finished_is_kept(copy, stored_dataset):
    _, signals = stored_dataset
    shard = open_dataset(copy).shards[2]
    whole = shard.read_bytes()
    flip_bit(shard, len(whole) // 2)
    with pytest.raises(DataError, match=rf"{shard.name}: cannot be read, it is damaged"):
        pack(open_dataset(copy), shard_bytes=SHARD_BYTES)
    assert not (copy / PACKED_DIR).exists()
    kept = {path.name: path.stat().st_ino for path in (packed_staging(copy) / PACKED_DIR).glob("*.npy")}
    assert "00000.npy" in kept
    shard.write_bytes(whole)
    assert pack(open_dataset(copy), shard_bytes=SHARD_BYTES) is True
    assert (copy / PACKED_DIR / "00000.npy").stat().st_ino == kept["00000.npy"]
    assert_read(copy, signals)


@pytest.mark.parametrize("seed", [None, 5], ids=["by number", "shuffled"])
def test_records_that_are_not_those_of_the_index_are_not_packed(copy, seed):
    path = copy / "index" / "content_hash.npy"
    hashes = np.load(path)
    hashes[4, 0] ^= 1
    np.save(path, hashes)
    with pytest.raises(DataError, match=r"array_record-00000-of-\d+: record 4 \('.*'\) is not what the index says"):
        pack(open_dataset(copy), seed=seed)
    assert not (copy / PACKED_DIR).exists()
    assert not packed_staging(copy).exists()
