"""ArrayRecord shards: the signal is found in what is serialised, and damage is named, never read for something else."""

import collections
import shutil

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from google.protobuf import empty_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.store import open_store
from data_pipelines.storage.stored_example import SignalDecoder
from tests.support.fixtures import flip_bit, in_threads, make_simulated_dataset

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


def test_the_decoder_finds_the_signal_wherever_it_stands_in_the_map(stored_dataset):
    dataset, signals = stored_dataset
    decoder = SignalDecoder(dataset.format.shape)
    for example, expected in zip(serialised_examples(dataset)[:3], signals, strict=False):
        entries = entries_of(example)
        assert example_of(entries) == example
        assert len(entries) > 10
        for shift in range(len(entries)):
            signal = np.empty(dataset.format.shape, np.int16)
            decoder.decode_into(example_of(entries[shift:] + entries[:shift]), signal)
            assert np.array_equal(signal, expected)


def test_the_decoder_is_not_fooled_by_a_text_that_holds_a_signal(stored_dataset):
    dataset, signals = stored_dataset
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


def test_the_decoder_refuses_what_is_no_example_of_its_shape(stored_dataset):
    dataset, _ = stored_dataset
    example = serialised_examples(dataset)[0]
    signal = np.empty(dataset.format.shape, np.int16)
    decoder = SignalDecoder(dataset.format.shape)
    for damaged in (b"", b"\x0a", example[:-1], example[1:], example + b"\x0a", b"\xff" * 100):
        with pytest.raises(ValueError, match="is no"):
            decoder.decode_into(damaged, signal)
    with pytest.raises(ValueError, match=r"holds no signal of shape \(999, 8\)"):
        SignalDecoder((999, 8)).decode_into(example, np.empty((999, 8), np.int16))


# Opening


def test_files_that_are_no_shards_of_the_data_set_are_refused(stored_copy):
    shard = open_dataset(stored_copy).shards[0]
    stranger = shard.with_name(shard.name[:-5] + "00099")
    shutil.copy(shard, stranger)
    with pytest.raises(DataError, match=r"of-00099: not a shard of this data set; remove it"):
        open_store(stored_copy, kind="array_record")


@pytest.mark.parametrize("contents", [b"", b"no ArrayRecord", "half"])
def test_what_is_no_whole_array_record_file_is_named_with_its_count(stored_copy, contents):
    shard = open_dataset(stored_copy).shards[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2] if contents == "half" else contents)
    with pytest.raises(DataError, match=rf"{shard.name}: this shard has 0 records where \d+ were written"):
        open_store(stored_copy, kind="array_record")


def test_a_shard_of_another_data_set_is_named_with_its_count(stored_copy, tmp_path):
    other = make_simulated_dataset(tmp_path, num_patients=3, seconds=2.0, name="other")
    shard = open_dataset(stored_copy).shards[1]
    shutil.copy(other.shards[0], shard)
    with pytest.raises(DataError, match=rf"{shard.name}: this shard has {other.index.num_records} records where"):
        open_store(stored_copy, kind="array_record")


# Damage


def bounds_of_second_shard(directory):
    first, second, *_ = open_dataset(directory).card["shard_lengths"]
    return first, first + second


def test_flipped_bits_of_array_record_shards_never_give_other_samples(stored_copy, stored_dataset):
    """Whichever bit it is, and whatever was read before: a record is right, or marked and zero."""
    _, signals = stored_dataset
    shard = open_dataset(stored_copy).shards[1]
    start, stop = bounds_of_second_shard(stored_copy)
    whole = shard.read_bytes()
    numbers = np.random.default_rng(1).permutation(len(signals))
    num_met = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 25).tolist():
        shard.write_bytes(whole)
        flip_bit(shard, position)
        try:
            stores = [open_store(stored_copy, kind="array_record", allow_bad_shards=True) for _ in range(2)]
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


def test_damage_met_while_reading_is_told_and_stays_with_its_record(stored_copy, stored_dataset):
    _, signals = stored_dataset
    shard = open_dataset(stored_copy).shards[1]
    start, stop = bounds_of_second_shard(stored_copy)
    store = open_store(stored_copy, kind="array_record")
    flip_bit(shard, shard.stat().st_size // 3)
    wrong = collections.deque()

    def work(seed):
        numbers = np.random.default_rng(seed).permutation(len(signals))
        valid = np.empty(len(numbers), bool)
        read = store.read(numbers, valid=valid)
        if (~valid).sum() != 1 or not np.array_equal(read[valid], signals[numbers[valid]]) or read[~valid].any():
            wrong.append(seed)

    in_threads(work, range(4))
    assert not wrong
    (bad,) = store.bad_shards
    assert bad.path == shard
    assert start <= bad.start == bad.stop - 1 < stop
    assert "damaged" in bad.reason
    with pytest.raises(DataError, match=rf"{shard.name}: cannot be read, it is damaged"):
        store.read(np.array([bad.start]))
    assert np.array_equal(store.read(np.array([bad.stop])), signals[[bad.stop]])


def test_a_shard_that_goes_away_while_it_is_in_use_is_told(stored_copy, stored_dataset):
    _, signals = stored_dataset
    start, stop = bounds_of_second_shard(stored_copy)
    store = open_store(stored_copy, kind="array_record")
    open_dataset(stored_copy).shards[1].unlink()
    valid = np.empty(len(signals), bool)
    read = store.read(np.arange(len(signals)), valid=valid)
    bad = (np.arange(len(signals)) >= start) & (np.arange(len(signals)) < stop)
    assert np.array_equal(valid, ~bad)
    assert np.array_equal(read, np.where(bad[:, None, None], 0, signals))
    assert len(store.bad_shards) == stop - start


def test_a_corrupted_shard_is_named_whatever_bit_is_flipped(stored_copy, stored_dataset):
    _, signals = stored_dataset
    shard = open_dataset(stored_copy).shards[1]
    whole = shard.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 12).tolist():
        shard.write_bytes(whole)
        flip_bit(shard, position)
        message = None
        try:
            read = open_store(stored_copy, kind="array_record").read(np.arange(len(signals)))
        except DataError as error:
            message = str(error)
        # A bit of padding damages nothing.
        assert np.array_equal(read, signals) if message is None else shard.name in message and "--overwrite" in message


def test_a_corrupted_record_is_an_error_that_names_its_shard(stored_copy):
    shard = open_dataset(stored_copy).shards[1]
    flip_bit(shard, shard.stat().st_size // 3)
    store = open_store(stored_copy, kind="array_record")
    with pytest.raises(DataError, match=r"array_record-00001-of-\d+: cannot be read, it is damaged.*--overwrite"):
        store.read(np.arange(store.num_records))


def test_a_record_of_another_layout_is_an_error_that_names_its_shard(stored_copy):
    shard = open_dataset(stored_copy).shards[0]
    length = open_dataset(stored_copy).card["shard_lengths"][0]
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for _ in range(length):
        writer.write(b"\x0a\x02\x0a\x00")
    writer.close()
    with pytest.raises(DataError, match=r"array_record-00000-of-\d+: its record 2 holds no signal of shape"):
        open_store(stored_copy, kind="array_record").read(np.array([2]))
