"""Both stores give what was built, and say which file is damaged, stale or unfinished and what to do."""

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from google.protobuf import empty_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

from data_pipelines import packed_store, shard_plan
from data_pipelines.dataset import open_dataset
from data_pipelines.errors import DataError
from data_pipelines.packed_store import PACKED_DIR, PACKED_FILE
from data_pipelines.packing import pack, packed_staging
from data_pipelines.store import open_store
from data_pipelines.stored_example import SignalDecoder
from tests.fixtures import make_simulated_dataset, stored_examples

REPOSITORY = Path(__file__).parents[1]
KINDS = ("array_record", "packed")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data set in three ArrayRecord shards and a packed copy in four, with the signals as TFDS reads them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_plan, "MAX_SHARD_BYTES", 2**19)
        dataset = make_simulated_dataset(tmp_path_factory.mktemp("store"), num_patients=35)
    assert len(dataset.shards) >= 3
    pack(dataset, shard_bytes=dataset.index.num_records * 16_000 // 4 + 16_000)
    signals = np.stack([stored["signal"] for stored in stored_examples(dataset.directory)])
    return dataset, signals


@pytest.fixture
def copy(original, tmp_path):
    """A copy of the data set that a test may damage."""
    dataset, _ = original
    return Path(shutil.copytree(dataset.directory, tmp_path / "copy"))


def flip_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


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
    with pytest.raises(DataError, match=r"no packed copy; make it with python -m data_pipelines.pack --dataset="):
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


# Packing


def test_a_packed_copy_is_plain_npy_files_checked_against_their_hash(original):
    dataset, signals = original
    folder = dataset.directory / PACKED_DIR
    contents = json.loads((folder / PACKED_FILE).read_text())
    assert contents["fingerprint"] == dataset.fingerprint
    assert len(contents["shards"]) == 4
    joined = np.concatenate([np.load(folder / shard["name"], allow_pickle=False) for shard in contents["shards"]])
    assert np.array_equal(joined, signals)
    for shard in contents["shards"]:
        assert packed_store.file_hash(folder / shard["name"]) == shard["blake2b"]
    assert not packed_staging(dataset.directory).exists()


def test_packing_again_leaves_a_good_copy_and_refuses_a_bad_one(copy):
    dataset = open_dataset(copy)
    before = {path.name: path.stat().st_mtime_ns for path in (copy / PACKED_DIR).iterdir()}
    assert pack(dataset) is False
    assert {path.name: path.stat().st_mtime_ns for path in (copy / PACKED_DIR).iterdir()} == before
    flip_bit(copy / PACKED_DIR / "00001.npy", 5000)
    with pytest.raises(DataError, match=r"00001.npy: its contents have changed.*remove .*packed and make it again"):
        pack(dataset)


def test_progress_counts_every_record(copy):
    shutil.rmtree(copy / PACKED_DIR)
    counts = []
    assert pack(open_dataset(copy), progress=counts.append) is True
    assert sum(counts) == open_dataset(copy).index.num_records


def test_a_full_disk_is_noticed_before_anything_is_written(copy, monkeypatch):
    shutil.rmtree(copy / PACKED_DIR)
    usage = shutil.disk_usage(copy)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"needs 0.27 GB and 0.00 GB are free; make room"):
        pack(open_dataset(copy))
    assert not (copy / PACKED_DIR).exists()
    assert not packed_staging(copy).exists()


def test_packing_a_damaged_data_set_leaves_nothing(copy):
    shutil.rmtree(copy / PACKED_DIR)
    shard = open_dataset(copy).shards[2]
    flip_bit(shard, shard.stat().st_size // 2)
    with pytest.raises(DataError, match=shard.name):
        pack(open_dataset(copy))
    assert not (copy / PACKED_DIR).exists()
    assert not packed_staging(copy).exists()


def test_records_that_are_not_those_of_the_index_are_not_packed(copy):
    shutil.rmtree(copy / PACKED_DIR)
    path = copy / "index" / "content_hash.npy"
    hashes = np.load(path)
    hashes[4, 0] ^= 1
    np.save(path, hashes)
    with pytest.raises(DataError, match=r"record 4 \('.*'\) is not what the index says; build the data set again"):
        pack(open_dataset(copy))
    assert not (copy / PACKED_DIR).exists()


def test_packing_that_is_killed_leaves_nothing_that_looks_finished_and_can_be_repeated(copy, original):
    _, signals = original
    shutil.rmtree(copy / PACKED_DIR)
    script = textwrap.dedent("""
        import sys, time
        from data_pipelines.dataset import open_dataset
        from data_pipelines.packing import pack

        def stall(num_records):
            print("written", flush=True)
            time.sleep(60)

        pack(open_dataset(sys.argv[1]), shard_bytes=160_000, progress=stall)
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(copy)], cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"written\n"
        with pytest.raises(DataError, match="another"):
            pack(open_dataset(copy))
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert packed_staging(copy).exists()
    assert open_store(copy).kind == "array_record"
    assert pack(open_dataset(copy)) is True
    assert np.array_equal(open_store(copy).read(np.arange(len(signals))), signals)
    assert not packed_staging(copy).exists()


def test_the_command_says_what_it_did(copy):
    shutil.rmtree(copy / PACKED_DIR)
    command = [sys.executable, "-m", "data_pipelines.pack", f"--dataset={copy}"]
    first = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert first.stdout.strip().endswith("GB, packed")
    missing = subprocess.run([*command[:-1], "--dataset=nowhere"], cwd=REPOSITORY, capture_output=True, text=True)
    assert missing.returncode == 1
    assert "error: nowhere: no such directory" in missing.stderr
    assert "Traceback" not in missing.stderr


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
    with pytest.raises(DataError, match=rf"packed: record {checked[1]} differs from the data set's; remove"):
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
