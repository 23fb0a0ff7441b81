"""Packed shards are mapped as one array, and what is wrong with a copy is found at opening and named."""

import ctypes
import json
import mmap
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.storage import packed_store
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE, file_hash
from data_pipelines.storage.store import open_store
from data_pipelines.system import record_files
from data_pipelines.system.joined_map import Piece, can_join, join_pieces
from data_pipelines.system.record_files import RecordFiles
from tests.support.fixtures import RECORDS_A_PACKED_SHARD, flip_bit, make_simulated_dataset

# Ways of mapping


def test_shards_that_cannot_be_joined_are_read_one_by_one(stored_copy, stored_dataset, monkeypatch):
    """On systems with larger memory pages."""
    _, signals = stored_dataset
    monkeypatch.setattr(mmap, "ALLOCATIONGRANULARITY", 2**16)
    numbers = np.random.default_rng(0).integers(0, len(signals), 200)
    store = open_store(stored_copy)
    assert np.array_equal(store.read(numbers), signals[numbers])
    assert store.read(numbers[:0]).shape == (0, *store.shape)
    (stored_copy / PACKED_DIR / "00002.npy").unlink()
    valid = np.empty(200, bool)
    read = open_store(stored_copy, allow_bad_shards=True).read(numbers, valid=valid)
    assert np.array_equal(valid, numbers // RECORDS_A_PACKED_SHARD != 2)
    assert np.array_equal(read, np.where(valid[:, None, None], signals[numbers], 0))


def test_copies_of_earlier_versions_with_short_headers_are_read(stored_copy, stored_dataset):
    _, signals = stored_dataset
    path = stored_copy / PACKED_DIR / PACKED_FILE
    contents = json.loads(path.read_text())
    for shard in contents["shards"]:
        file = stored_copy / PACKED_DIR / shard["name"]
        np.save(file, np.load(file))
        shard |= {"num_bytes": file.stat().st_size, "blake2b": file_hash(file)}
    path.write_text(json.dumps(contents))
    numbers = np.random.default_rng(0).integers(0, len(signals), 200)
    assert np.array_equal(open_store(stored_copy).read(numbers), signals[numbers])


def test_joined_files_are_one_array_and_are_let_go_with_it(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    contents = [np.random.default_rng(seed).bytes(3 * 4096) for seed in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    pieces = [
        Piece(path=paths[0], offset=4096, num_bytes=8192),
        Piece(path=None, offset=0, num_bytes=4096),
        Piece(path=paths[1], offset=0, num_bytes=12288),
        Piece(path=paths[2], offset=8192, num_bytes=100),
    ]
    assert can_join(pieces)
    joined = join_pieces(pieces)
    assert joined.tobytes() == contents[0][4096:] + bytes(4096) + contents[1] + contents[2][8192:8292]
    assert not joined.flags.writeable
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    view = joined[5:]
    del joined
    assert view[0] == contents[0][4101]
    del view
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert not can_join(pieces[::-1])
    assert not can_join([Piece(path=paths[0], offset=128, num_bytes=4096)])
    with pytest.raises(FileNotFoundError):
        join_pieces([Piece(path=tmp_path / "none", offset=0, num_bytes=4096)])


def test_records_that_are_announced_come_into_memory(stored_copy):
    path = stored_copy / PACKED_DIR / "00001.npy"  # What some store has mapped could not be let go.
    files = RecordFiles([None, path], first_byte=[0, 4096], record_bytes=16_000)
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)

    mapped = np.memmap(path, np.uint8, mode="r")
    page = mmap.PAGESIZE

    def in_memory(record, which=all):
        # Asks the kernel and reads nothing: a read, even one that must not wait, would start reading ahead itself.
        start = (4096 + record * 16_000) // page * page
        pages = (ctypes.c_ubyte * (-(-(4096 + (record + 1) * 16_000 - start) // page)))()
        assert not ctypes.CDLL(None).mincore(
            ctypes.c_void_p(mapped.ctypes.data + start), ctypes.c_size_t(page * len(pages)), pages
        )
        return which(each & 1 for each in pages)

    # A page that was written just now may be held by the kernel for a moment, and not be let go by the first call.
    for _ in range(50):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        if not any(in_memory(record, any) for record in (2, 16, 30)):
            break
        time.sleep(0.02)
    else:
        os.close(handle)
        pytest.skip("this file system keeps its files in memory")
    files.announce(np.array([1, 0, 1]), np.array([30, 0, 2]))
    deadline = time.monotonic() + 10
    while not (in_memory(30) and in_memory(2)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert in_memory(30)
    assert in_memory(2)
    assert not in_memory(16, any)  # what was not asked for
    os.close(handle)


def test_neighbours_are_announced_in_one_stretch(tmp_path, monkeypatch):
    paths = [tmp_path / "a", None, tmp_path / "b"]
    for path in paths[::2]:
        path.write_bytes(bytes(10_000_000))
    announced = []
    monkeypatch.setattr(record_files.os, "posix_fadvise", lambda handle, *arguments: announced.append(arguments[:2]))
    files = RecordFiles(paths, first_byte=[100, 0, 200], record_bytes=1000)
    files.announce(np.array([0, 0, 0, 1, 2, 2]), np.array([3, 4, 6, 0, 7, 8]))
    assert announced == [(3100, 2000), (6100, 1000), (7200, 2000)]
    announced.clear()
    files.announce(np.zeros(5000, np.int64), np.arange(5000))
    assert announced == [(100, 2**22), (100 + 2**22, 5_000_000 - 2**22)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_records_are_the_same_from_memory_and_from_the_disk(stored_copy, stored_dataset, monkeypatch, in_memory):
    _, signals = stored_dataset
    probed, read = [], []
    original = RecordFiles.read

    def answer(handle, offset):
        probed.append(offset)
        return in_memory

    monkeypatch.setattr(record_files, "_can_be_read_at_once", answer)
    monkeypatch.setattr(RecordFiles, "read", lambda self, *rest: (read.append(len(rest[0])), original(self, *rest))[1])
    store = open_store(stored_copy)
    probed.clear()
    numbers = np.random.default_rng(0).integers(0, len(signals), 100)
    assert np.array_equal(store.read(numbers), signals[numbers])
    assert len(probed) == (7 if in_memory else 1), "a probe of every sixteenth, up to the first that is missing"
    assert read == ([] if in_memory else [100])


def test_a_file_that_has_become_shorter_is_an_error_that_names_it(stored_copy, stored_dataset, monkeypatch):
    _, signals = stored_dataset
    store = open_store(stored_copy)
    monkeypatch.setattr(record_files, "_can_be_read_at_once", lambda handle, offset: False)
    path = stored_copy / PACKED_DIR / "00001.npy"
    os.truncate(path, path.stat().st_size - 100)
    bad = RECORDS_A_PACKED_SHARD * 2 - 1
    with pytest.raises(
        DataError, match=r"00001\.npy: ends at byte .* make it again with python -m data_pipelines.stage"
    ):
        store.read(np.array([0, bad]))
    assert np.array_equal(store.read(np.array([bad - 1])), signals[[bad - 1]])


# Damaged and stale copies


def test_a_packed_shard_with_a_flipped_bit_is_read_around(stored_copy, stored_dataset, monkeypatch):
    _, signals = stored_dataset
    flip_bit(stored_copy / PACKED_DIR / "00001.npy", 5000)
    bad = np.arange(len(signals)) // RECORDS_A_PACKED_SHARD == 1
    for full_check_bytes in (packed_store.FULL_CHECK_BYTES, 0):  # All are hashed, or 64 records looked at.
        monkeypatch.setattr(packed_store, "FULL_CHECK_BYTES", full_check_bytes)
        monkeypatch.setattr(packed_store, "_NUM_SPOT_CHECKS", len(signals))
        store = open_store(stored_copy, allow_bad_shards=True)
        valid = np.empty(len(signals), bool)
        read = store.read(np.arange(len(signals)), valid=valid)
        assert np.array_equal(valid, ~bad)
        assert np.array_equal(read, np.where(bad[:, None, None], 0, signals))


def test_a_corrupted_packed_shard_is_named(stored_copy):
    flip_bit(stored_copy / PACKED_DIR / "00002.npy", 40_000)
    for kind in ("auto", "packed"):
        with pytest.raises(DataError, match=r"00002.npy: its contents have changed since it was made.*remove .*packed"):
            open_store(stored_copy, kind=kind)
    assert open_store(stored_copy, kind="array_record").read(np.array([0])).shape[0] == 1


def test_large_copies_are_spot_checked_unless_asked_otherwise(stored_copy, stored_dataset, monkeypatch):
    _, signals = stored_dataset
    monkeypatch.setattr(packed_store, "FULL_CHECK_BYTES", 0)
    assert np.array_equal(open_store(stored_copy).read(np.arange(len(signals))), signals)
    checked = np.unique(np.linspace(0, len(signals) - 1, 64).astype(int))
    unchecked = np.setdiff1d(np.arange(len(signals)), checked)
    assert len(unchecked)
    # Shards are numbered in order, so find the file and place of a record by the table of contents.
    lengths = [
        shard["num_records"] for shard in json.loads((stored_copy / PACKED_DIR / PACKED_FILE).read_text())["shards"]
    ]
    bounds = np.concatenate([[0], np.cumsum(lengths)])

    def damage(number):
        shard = int(np.searchsorted(bounds, number, side="right")) - 1
        path = stored_copy / PACKED_DIR / f"{shard:05d}.npy"
        header = path.stat().st_size - lengths[shard] * signals[0].nbytes
        flip_bit(path, header + (number - int(bounds[shard])) * signals[0].nbytes + 100)

    damage(int(unchecked[0]))
    open_store(stored_copy)
    with pytest.raises(DataError, match="its contents have changed"):
        open_store(stored_copy, verify=True)
    damage(int(checked[1]))
    with pytest.raises(
        DataError,
        match=rf"npy: its record \d+ \(record {checked[1]} of the data set\) differs from the data set's; remove",
    ):
        open_store(stored_copy)


def test_a_copy_of_another_data_set_is_stale(stored_copy, tmp_path):
    other = make_simulated_dataset(tmp_path, num_patients=35, seed=1)
    shutil.copytree(stored_copy / PACKED_DIR, other.directory / PACKED_DIR)
    with pytest.raises(DataError, match=r"was made of another data set \(fingerprint .*remove .*packed and make it"):
        open_store(other.directory)


@pytest.mark.parametrize("damage", ["truncated", "missing", "header", "longer"])
def test_a_packed_shard_of_another_size_or_shape_is_named(stored_copy, damage, monkeypatch):
    monkeypatch.setattr(packed_store, "FULL_CHECK_BYTES", 0)  # without the hash
    path = stored_copy / PACKED_DIR / "00003.npy"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "header":
        path.write_bytes(whole.replace(b"'<i2'", b"'<u2'", 1))
    else:
        path.write_bytes(whole[:-1000] if damage == "truncated" else whole + b"0")
    with pytest.raises(DataError, match=r"00003.npy: (missing or damaged|is .* as it was made).*remove .*packed"):
        open_store(stored_copy)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"layout_version": 1, "fingerprint": "", "shards": [{}]}'])
def test_a_damaged_table_of_contents_is_named(stored_copy, text):
    (stored_copy / PACKED_DIR / PACKED_FILE).write_text(text)
    with pytest.raises(DataError, match=r"packed.json: missing or damaged.*remove .*packed and make it again"):
        open_store(stored_copy)


def test_a_copy_of_fewer_records_is_refused(stored_copy):
    path = stored_copy / PACKED_DIR / PACKED_FILE
    contents = json.loads(path.read_text())
    contents["shards"].pop()
    path.write_text(json.dumps(contents))
    with pytest.raises(DataError, match=r"packed: holds \d+ records, the data set \d+; remove"):
        open_store(stored_copy)
