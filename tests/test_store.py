"""Both stores give what was built, and say which file is damaged, stale or unfinished and what to do."""

import collections
import json
import mmap
import os
import re
import resource
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from google.protobuf import empty_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

from data_pipelines import packed_store, shard_plan
from data_pipelines.dataset import open_dataset
from data_pipelines.errors import DataError
from data_pipelines.joined_map import Piece, can_join, join_pieces
from data_pipelines.packed_format import PACKED_DIR, PACKED_FILE, file_hash
from data_pipelines.packing import pack
from data_pipelines.page_cache import ReadAhead
from data_pipelines.store import open_store
from data_pipelines.stored_example import SignalDecoder
from tests.fixtures import flip_bit, make_simulated_dataset, stored_examples

KINDS = ("array_record", "packed")

#: What 16 kB take to fill whole memory pages.
RECORDS_A_SHARD = 32


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data set in three ArrayRecord shards and a packed copy in four, with the signals as TFDS reads them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_plan, "MAX_SHARD_BYTES", 2**19)
        dataset = make_simulated_dataset(tmp_path_factory.mktemp("store"), num_patients=45)
    assert len(dataset.shards) >= 3
    pack(dataset, shard_bytes=RECORDS_A_SHARD * 16_000)
    assert len(list((dataset.directory / PACKED_DIR).glob("*.npy"))) == 4
    signals = np.stack([stored["signal"] for stored in stored_examples(dataset.directory)])
    return dataset, signals


@pytest.fixture
def copy(original, tmp_path):
    """A copy of the data set that a test may damage."""
    dataset, _ = original
    return Path(shutil.copytree(dataset.directory, tmp_path / "copy"))


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
def test_a_store_gives_what_was_built_in_the_order_asked_for(original, kind):
    dataset, signals = original
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
def test_only_an_array_that_fits_is_read_into(original, kind):
    dataset, _ = original
    store = open_store(dataset.directory, kind=kind)
    good = np.empty((2, *store.shape), np.int16)
    for out in (good[:1], good.astype(np.int32), good.astype(np.uint16), np.empty((4, *store.shape), np.int16)[::2]):
        with pytest.raises(ValueError, match="out must be C-contiguous int16"):
            store.read(np.array([0, 1]), out)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_at_once(original, kind):
    dataset, signals = original
    store = open_store(dataset.directory, kind=kind)
    wrong = collections.deque()

    def work(seed):
        for _ in range(5):
            numbers = np.random.default_rng(seed).integers(0, len(signals), 100)
            if not np.array_equal(store.read(numbers), signals[numbers]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_outside_the_store_are_refused(original, kind):
    dataset, signals = original
    store = open_store(dataset.directory, kind=kind)
    for number in (-1, len(signals)):
        with pytest.raises(IndexError, match=f"the store holds 0 … {len(signals) - 1}"):
            store.read(np.array([0, number]))
    with pytest.raises(TypeError, match="vector of integers, got float64"):
        store.read(np.array([0.0]))


def test_auto_takes_the_packed_copy_where_there_is_one_and_never_makes_it(copy):
    assert open_store(copy).kind == "packed"
    shutil.rmtree(copy / PACKED_DIR)
    assert open_store(copy).kind == "array_record"
    assert not (copy / PACKED_DIR).exists()
    with pytest.raises(DataError, match=r"no packed copy; make it with python -m data_pipelines.stage --dataset="):
        open_store(copy, kind="packed")
    with pytest.raises(DataError, match="no store 'zarr'; choose one of auto, packed, array_record"):
        open_store(copy, kind="zarr")


# Serialised examples


def serialised_examples(dataset):
    reader = ArrayRecordReader(str(dataset.shards[0]), options="readahead_buffer_size:0")
    examples = reader.read(list(range(reader.num_records())))
    reader.close()
    return examples


def entries_of(example):
    """Splits a serialised Example into the entries of its map, by protobuf's own parser of unknown fields."""
    features = UnknownFieldSet(empty_pb2.Empty.FromString(example))[0].data
    return [field.data for field in UnknownFieldSet(empty_pb2.Empty.FromString(features))]


def example_of(entries):
    features = b"".join(b"\x0a" + _varint(len(entry)) + entry for entry in entries)
    return b"\x0a" + _varint(len(features)) + features


def test_the_decoder_finds_the_signal_wherever_it_stands_in_the_map(original):
    dataset, signals = original
    decoder = SignalDecoder(dataset.format.shape)
    for example, expected in zip(serialised_examples(dataset)[:3], signals, strict=False):
        entries = entries_of(example)
        assert example_of(entries) == example
        assert len(entries) > 10
        for shift in range(len(entries)):
            signal = np.empty(dataset.format.shape, np.int16)
            decoder.decode_into(example_of(entries[shift:] + entries[:shift]), signal)
            assert np.array_equal(signal, expected)


def test_the_decoder_is_not_fooled_by_a_text_that_holds_a_signal(original):
    dataset, signals = original
    first, second = serialised_examples(dataset)[:2]
    (of_another,) = (entry for entry in entries_of(second) if entry.startswith(b"\x0a\x06signal"))
    # The whole entry of another record's signal inside a text of this record, in front of its own.
    text = b"\x0a\x04note" + b"\x12" + _varint(len(of_another) + 5) + b"\x0a" + _varint(len(of_another)) + of_another
    signal = np.empty(dataset.format.shape, np.int16)
    SignalDecoder(dataset.format.shape).decode_into(example_of([text, *entries_of(first)]), signal)
    assert np.array_equal(signal, signals[0])


def _varint(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def test_the_decoder_refuses_what_is_no_example_of_its_shape(original):
    dataset, _ = original
    example = serialised_examples(dataset)[0]
    signal = np.empty(dataset.format.shape, np.int16)
    decoder = SignalDecoder(dataset.format.shape)
    for damaged in (b"", b"\x0a", example[:-1], example[1:], example + b"\x0a", b"\xff" * 100):
        with pytest.raises(ValueError, match="is no"):
            decoder.decode_into(damaged, signal)
    with pytest.raises(ValueError, match=r"holds no signal of shape \(999, 8\)"):
        SignalDecoder((999, 8)).decode_into(example, np.empty((999, 8), np.int16))


# Opening


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_all_bad_shards_are_named_at_opening(copy, kind, damage):
    shards = shards_of(copy, kind)
    for shard in (shards[0], shards[2]):
        harm(shard, damage)
    with pytest.raises(DataError) as caught:
        open_store(copy, kind=kind)
    message = str(caught.value)
    assert message.startswith(f"2 of {len(shards)} shards cannot be read: {shards[0]}: ")
    assert f"; {shards[2]}: " in message
    assert str(shards[1]) not in message
    open_dataset(copy)  # looks at card and index alone


def test_files_that_are_no_shards_of_the_data_set_are_refused(copy):
    shard = open_dataset(copy).shards[0]
    stranger = shard.with_name(shard.name[:-5] + "00099")
    shutil.copy(shard, stranger)
    with pytest.raises(DataError, match=r"of-00099: not a shard of this data set; remove it"):
        open_store(copy, kind="array_record")


@pytest.mark.parametrize("contents", [b"", b"no ArrayRecord", "half"])
def test_what_is_no_whole_array_record_file_is_named_with_its_count(copy, contents):
    shard = open_dataset(copy).shards[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2] if contents == "half" else contents)
    with pytest.raises(DataError, match=rf"{shard.name}: this shard has 0 records where \d+ were written"):
        open_store(copy, kind="array_record")


def test_a_shard_of_another_data_set_is_named_with_its_count(copy, tmp_path):
    other = make_simulated_dataset(tmp_path, num_patients=3, seconds=2.0, name="other")
    shard = open_dataset(copy).shards[1]
    shutil.copy(other.shards[0], shard)
    with pytest.raises(DataError, match=rf"{shard.name}: this shard has {other.index.num_records} records where"):
        open_store(copy, kind="array_record")


def test_a_data_set_without_its_array_record_shards_is_read_from_its_packed_copy(copy, original):
    _, signals = original
    for shard in open_dataset(copy).shards:
        shard.unlink()
    assert np.array_equal(open_store(copy).read(np.arange(len(signals))), signals)
    with pytest.raises(DataError, match=r"none of its \d+ ArrayRecord shards can be read .*store 'packed'"):
        open_store(copy, kind="array_record")


def test_a_url_is_no_place_to_open():
    with pytest.raises(DataError, match=r"gs://bucket/ecgs: .*mount the bucket, or make a local copy .*stage --dat"):
        open_store("gs://bucket/ecgs")


def test_more_shards_than_files_may_be_open_are_read(original, monkeypatch):
    dataset, signals = original
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4, 4))
    for kind in KINDS:
        before = len(os.listdir("/proc/self/fd"))
        store = open_store(dataset.directory, kind=kind)
        numbers = np.random.default_rng(0).permutation(len(signals))
        assert np.array_equal(store.read(numbers), signals[numbers])
        assert len(os.listdir("/proc/self/fd")) - before <= 2


# Reading around bad shards


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_records_of_bad_shards_are_marked_and_zero_and_all_others_right(copy, original, kind, damage):
    _, signals = original
    shards = shards_of(copy, kind)
    bounds = bounds_of(copy, kind)
    bad = np.zeros(len(signals), bool)
    for number in (0, 2):
        harm(shards[number], damage)
        bad[bounds[number] : bounds[number + 1]] = True
    store = open_store(copy, kind=kind, allow_bad_shards=True)
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


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_valid_where_nothing_is_bad(original, kind):
    dataset, signals = original
    store = open_store(dataset.directory, kind=kind, allow_bad_shards=True)
    valid = np.zeros(len(signals), bool)
    assert np.array_equal(store.read(np.arange(len(signals)), valid=valid), signals)
    assert valid.all()
    assert not len(store.bad_shards)
    for wrong in (np.empty(3, bool), np.empty(len(signals), np.uint8)):
        with pytest.raises(ValueError, match="valid must be bool"):
            store.read(np.arange(len(signals)), valid=wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_without_one_good_shard_is_refused_all_the_same(copy, kind):
    for shard in shards_of(copy, kind):
        harm(shard, "truncated")
    with pytest.raises(DataError, match=r"none of its \d+ .* can be read|cannot be read: "):
        open_store(copy, kind=kind, allow_bad_shards=True)


def test_flipped_bits_of_array_record_shards_never_give_other_samples(copy, original):
    """Whichever bit it is, and whatever was read before: a record is right, or marked and zero."""
    _, signals = original
    shard = shards_of(copy, "array_record")[1]
    start, stop = bounds_of(copy, "array_record")[1:3]
    whole = shard.read_bytes()
    numbers = np.random.default_rng(1).permutation(len(signals))
    num_met = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 25).tolist():
        shard.write_bytes(whole)
        flip_bit(shard, position)
        try:
            stores = [open_store(copy, kind="array_record", allow_bad_shards=True) for _ in range(2)]
        except DataError:
            pytest.fail("one bad shard of several is to be read around")
        valid = [np.empty(len(signals), bool) for _ in stores]
        read = stores[0].read(numbers, valid=valid[0])
        stores[1].read(numbers[::-1][:40], valid=np.empty(40, bool))  # Another past ...
        assert np.array_equal(stores[1].read(numbers, valid=valid[1]), read)
        assert np.array_equal(*valid)  # ... makes no difference.
        assert np.array_equal(read, np.where(valid[0][:, None, None], signals[numbers], 0))
        bad = np.sort(numbers[~valid[0]])
        assert ((bad >= start) & (bad < stop)).all()
        told = [np.arange(entry.start, entry.stop) for entry in stores[0].bad_shards]
        assert np.array_equal(np.concatenate([np.empty(0, np.int64), *told]), bad)
        assert {entry.path for entry in stores[0].bad_shards} <= {shard}
        num_met += len(bad) > 0
    assert num_met > 10


def test_damage_met_while_reading_is_told_and_stays_with_its_record(copy, original):
    _, signals = original
    shard = shards_of(copy, "array_record")[1]
    start, stop = bounds_of(copy, "array_record")[1:3]
    store = open_store(copy, kind="array_record")
    flip_bit(shard, shard.stat().st_size // 3)
    wrong = collections.deque()

    def work(seed):
        numbers = np.random.default_rng(seed).permutation(len(signals))
        valid = np.empty(len(numbers), bool)
        read = store.read(numbers, valid=valid)
        if (~valid).sum() != 1 or not np.array_equal(read[valid], signals[numbers[valid]]) or read[~valid].any():
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    (bad,) = store.bad_shards
    assert bad.path == shard
    assert start <= bad.start == bad.stop - 1 < stop
    assert "damaged" in bad.reason
    with pytest.raises(DataError, match=rf"{shard.name}: cannot be read, it is damaged"):
        store.read(np.array([bad.start]))
    assert np.array_equal(store.read(np.array([bad.stop])), signals[[bad.stop]])


def test_a_shard_that_goes_away_while_it_is_in_use_is_told(copy, original):
    _, signals = original
    start, stop = bounds_of(copy, "array_record")[1:3]
    store = open_store(copy, kind="array_record")
    shards_of(copy, "array_record")[1].unlink()
    valid = np.empty(len(signals), bool)
    read = store.read(np.arange(len(signals)), valid=valid)
    bad = (np.arange(len(signals)) >= start) & (np.arange(len(signals)) < stop)
    assert np.array_equal(valid, ~bad)
    assert np.array_equal(read, np.where(bad[:, None, None], 0, signals))
    assert len(store.bad_shards) == stop - start


def test_a_packed_shard_with_a_flipped_bit_is_read_around(copy, original, monkeypatch):
    _, signals = original
    flip_bit(copy / PACKED_DIR / "00001.npy", 5000)
    bad = np.arange(len(signals)) // RECORDS_A_SHARD == 1
    for full_check_bytes in (packed_store.FULL_CHECK_BYTES, 0):  # All are hashed, or 64 records looked at.
        monkeypatch.setattr(packed_store, "FULL_CHECK_BYTES", full_check_bytes)
        monkeypatch.setattr(packed_store, "_NUM_SPOT_CHECKS", len(signals))
        store = open_store(copy, allow_bad_shards=True)
        valid = np.empty(len(signals), bool)
        read = store.read(np.arange(len(signals)), valid=valid)
        assert np.array_equal(valid, ~bad)
        assert np.array_equal(read, np.where(bad[:, None, None], 0, signals))


# Ways of mapping


def test_shards_that_cannot_be_joined_are_read_one_by_one(copy, original, monkeypatch):
    """On systems with larger memory pages."""
    _, signals = original
    monkeypatch.setattr(mmap, "ALLOCATIONGRANULARITY", 2**16)
    numbers = np.random.default_rng(0).integers(0, len(signals), 200)
    store = open_store(copy)
    assert np.array_equal(store.read(numbers), signals[numbers])
    assert store.read(numbers[:0]).shape == (0, *store.shape)
    (copy / PACKED_DIR / "00002.npy").unlink()
    valid = np.empty(200, bool)
    read = open_store(copy, allow_bad_shards=True).read(numbers, valid=valid)
    assert np.array_equal(valid, numbers // RECORDS_A_SHARD != 2)
    assert np.array_equal(read, np.where(valid[:, None, None], signals[numbers], 0))


def test_copies_of_earlier_versions_with_short_headers_are_read(copy, original):
    _, signals = original
    path = copy / PACKED_DIR / PACKED_FILE
    contents = json.loads(path.read_text())
    for shard in contents["shards"]:
        file = copy / PACKED_DIR / shard["name"]
        np.save(file, np.load(file))
        shard |= {"num_bytes": file.stat().st_size, "blake2b": file_hash(file)}
    path.write_text(json.dumps(contents))
    numbers = np.random.default_rng(0).integers(0, len(signals), 200)
    assert np.array_equal(open_store(copy).read(numbers), signals[numbers])


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


def test_records_that_are_not_in_memory_are_read_ahead(original):
    dataset, _ = original
    path = dataset.directory / PACKED_DIR / "00001.npy"
    read_ahead = ReadAhead([None, path], first_byte=[0, 4096], record_bytes=16_000)
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def in_memory(record):
        try:
            return os.preadv(handle, [bytearray(16_000)], 4096 + record * 16_000, os.RWF_NOWAIT) == 16_000
        except BlockingIOError:
            return False

    if in_memory(30):
        os.close(handle)
        pytest.skip("this file system keeps its files in memory")
    read_ahead(np.array([1, 0, 1]), np.array([30, 0, 2]))
    deadline = time.monotonic() + 10
    while not (in_memory(30) and in_memory(2)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert in_memory(30)
    assert in_memory(2)
    assert not in_memory(16)  # what was not asked for
    os.close(handle)


# Damaged ArrayRecord shards


def test_a_corrupted_shard_is_named_whatever_bit_is_flipped(copy, original):
    _, signals = original
    shard = open_dataset(copy).shards[1]
    whole = shard.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 12).tolist():
        shard.write_bytes(whole)
        flip_bit(shard, position)
        message = None
        try:
            read = open_store(copy, kind="array_record").read(np.arange(len(signals)))
        except DataError as error:
            message = str(error)
        # A bit of padding damages nothing.
        assert np.array_equal(read, signals) if message is None else shard.name in message and "--overwrite" in message


def test_a_corrupted_record_is_an_error_that_names_its_shard(copy):
    shard = open_dataset(copy).shards[1]
    flip_bit(shard, shard.stat().st_size // 3)
    store = open_store(copy, kind="array_record")
    with pytest.raises(DataError, match=r"array_record-00001-of-\d+: cannot be read, it is damaged.*--overwrite"):
        store.read(np.arange(store.num_records))


def test_a_record_of_another_layout_is_an_error_that_names_its_shard(copy):
    shard = open_dataset(copy).shards[0]
    length = open_dataset(copy).card["shard_lengths"][0]
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for _ in range(length):
        writer.write(b"\x0a\x02\x0a\x00")
    writer.close()
    with pytest.raises(DataError, match=r"array_record-00000-of-\d+: its record 2 holds no signal of shape"):
        open_store(copy, kind="array_record").read(np.array([2]))


# Damaged and stale packed copies


def test_a_corrupted_packed_shard_is_named(copy):
    flip_bit(copy / PACKED_DIR / "00002.npy", 40_000)
    for kind in ("auto", "packed"):
        with pytest.raises(DataError, match=r"00002.npy: its contents have changed since it was made.*remove .*packed"):
            open_store(copy, kind=kind)
    assert open_store(copy, kind="array_record").read(np.array([0])).shape[0] == 1


def test_large_copies_are_spot_checked_unless_asked_otherwise(copy, original, monkeypatch):
    _, signals = original
    monkeypatch.setattr(packed_store, "FULL_CHECK_BYTES", 0)
    assert np.array_equal(open_store(copy).read(np.arange(len(signals))), signals)
    checked = np.unique(np.linspace(0, len(signals) - 1, 64).astype(int))
    unchecked = np.setdiff1d(np.arange(len(signals)), checked)
    assert len(unchecked)
    # Shards are numbered in order, so find the file and place of a record by the table of contents.
    lengths = [shard["num_records"] for shard in json.loads((copy / PACKED_DIR / PACKED_FILE).read_text())["shards"]]
    bounds = np.concatenate([[0], np.cumsum(lengths)])

    def damage(number):
        shard = int(np.searchsorted(bounds, number, side="right")) - 1
        path = copy / PACKED_DIR / f"{shard:05d}.npy"
        header = path.stat().st_size - lengths[shard] * signals[0].nbytes
        flip_bit(path, header + (number - int(bounds[shard])) * signals[0].nbytes + 100)

    damage(int(unchecked[0]))
    open_store(copy)
    with pytest.raises(DataError, match="its contents have changed"):
        open_store(copy, verify=True)
    damage(int(checked[1]))
    with pytest.raises(
        DataError,
        match=rf"npy: its record \d+ \(record {checked[1]} of the data set\) differs from the data set's; remove",
    ):
        open_store(copy)


def test_a_copy_of_another_data_set_is_stale(copy, tmp_path):
    other = make_simulated_dataset(tmp_path, num_patients=35, seed=1)
    shutil.copytree(copy / PACKED_DIR, other.directory / PACKED_DIR)
    with pytest.raises(DataError, match=r"was made of another data set \(fingerprint .*remove .*packed and make it"):
        open_store(other.directory)


@pytest.mark.parametrize("damage", ["truncated", "missing", "header", "longer"])
def test_a_packed_shard_of_another_size_or_shape_is_named(copy, damage, monkeypatch):
    monkeypatch.setattr(packed_store, "FULL_CHECK_BYTES", 0)  # without the hash
    path = copy / PACKED_DIR / "00003.npy"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "header":
        path.write_bytes(whole.replace(b"'<i2'", b"'<u2'", 1))
    else:
        path.write_bytes(whole[:-1000] if damage == "truncated" else whole + b"0")
    with pytest.raises(DataError, match=r"00003.npy: (missing or damaged|is .* as it was made).*remove .*packed"):
        open_store(copy)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"layout_version": 1, "fingerprint": "", "shards": [{}]}'])
def test_a_damaged_table_of_contents_is_named(copy, text):
    (copy / PACKED_DIR / PACKED_FILE).write_text(text)
    with pytest.raises(DataError, match=r"packed.json: missing or damaged.*remove .*packed and make it again"):
        open_store(copy)


def test_a_copy_of_fewer_records_is_refused(copy):
    path = copy / PACKED_DIR / PACKED_FILE
    contents = json.loads(path.read_text())
    contents["shards"].pop()
    path.write_text(json.dumps(contents))
    with pytest.raises(DataError, match=r"packed: holds \d+ records, the data set \d+; remove"):
        open_store(copy)
