"""A packed copy with shuffled patients: every record at its place, whole and checked, or something to go on with."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.packing import shuffled_shards
from data_pipelines.packing.packed_copy import pack, packed_staging
from data_pipelines.packing.patient_order import shuffled_patients
from data_pipelines.packing.shuffled_shards import note_path
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.array_record_store import ArrayRecordStore
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE, file_hash
from data_pipelines.storage.store import open_store
from data_pipelines.storage.stored_order import ORDER_FILE
from data_pipelines.system.digests import DIGESTS_FILE, read_digests
from tests.support.fixtures import RECORDS_A_PACKED_SHARD, flip_bit

SHARD_BYTES = RECORDS_A_PACKED_SHARD * 16_000
SEED = 5


@pytest.fixture
def copy(stored_copy):
    """A copy of the data set that has no packed one yet."""
    shutil.rmtree(stored_copy / PACKED_DIR)
    return stored_copy


def shuffled(directory, *, seed=SEED, **options):
    return pack(open_dataset(directory), seed=seed, shard_bytes=SHARD_BYTES, **options)


def test_records_lie_in_the_order_that_is_stated(copy, stored_dataset):
    dataset, signals = stored_dataset
    done, read_back = [], []
    assert shuffled(copy, progress=done.append, read_back=read_back.append) is True
    assert sum(done) == sum(read_back) == len(signals)
    folder, order = copy / PACKED_DIR, shuffled_patients(dataset.index.patient, seed=SEED)
    contents = json.loads((folder / PACKED_FILE).read_text())
    names = [shard["name"] for shard in contents["shards"]]
    assert len(names) == 4
    joined = np.concatenate([np.load(folder / name, allow_pickle=False) for name in names])
    np.testing.assert_array_equal(joined, signals[order])
    stored = np.load(folder / ORDER_FILE, allow_pickle=False)
    assert stored.dtype == np.int32
    np.testing.assert_array_equal(stored, order)
    assert contents["patients_shuffled"] == {"file": ORDER_FILE, "seed": SEED}
    assert all(file_hash(folder / shard["name"]) == shard["blake2b"] for shard in contents["shards"])
    assert set(read_digests(folder)) == {PACKED_FILE, ORDER_FILE}
    assert {path.name for path in folder.iterdir()} == {PACKED_FILE, ORDER_FILE, DIGESTS_FILE, *names}
    assert not packed_staging(copy).exists()


def test_a_plain_copy_knows_nothing_of_it(copy):
    pack(open_dataset(copy), shard_bytes=SHARD_BYTES)
    contents = json.loads((copy / PACKED_DIR / PACKED_FILE).read_text())
    assert list(contents) == ["layout_version", "fingerprint", "shards"]
    assert not (copy / PACKED_DIR / ORDER_FILE).exists()


@pytest.mark.parametrize(("held", "asked"), [(None, 0), (0, None), (1, 2)], ids=str)
def test_a_finished_copy_in_another_order_is_refused(copy, held, asked):
    keep = "leave out --shuffle_patients" if held is None else f"stage with --shuffle_patients --seed={held}"
    pack(open_dataset(copy), seed=held)
    with pytest.raises(DataError, match=rf"packed: is a copy .*{keep} to keep it, or remove .*packed and run this ag"):
        pack(open_dataset(copy), seed=asked)
    assert pack(open_dataset(copy), seed=held) is False


@pytest.fixture
def interrupted(copy, monkeypatch):
    """Begins a packing that ends at record 70, in the third stretch, and returns the folder of the data set."""

    def begin(seed):
        read = ArrayRecordStore.read

        def fail(self, numbers, *rest, **options):
            if numbers[-1] >= 70:
                raise DataError("the power failed")
            return read(self, numbers, *rest, **options)

        with monkeypatch.context() as patch:
            patch.setattr(ArrayRecordStore, "read", fail)
            with pytest.raises(DataError, match="the power failed"):
                shuffled(copy, seed=seed)
        assert not (copy / PACKED_DIR).exists()
        return copy

    return begin


@pytest.mark.parametrize("seed", [None, SEED], ids=["by number", "shuffled"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"fingerprint": 1, "shard": 2, "shard_lengths": 3}'], ids=repr
)
def test_a_damaged_note_of_an_interrupted_packing_is_named(interrupted, seed, content):
    directory = interrupted(seed)
    place = packed_staging(directory)
    for note in (place / PACKED_DIR).glob("*.json"):
        note.write_text(content)
    with pytest.raises(DataError, match=rf"json: note of an interrupted run, damaged \(.*remove {place} and run this"):
        shuffled(directory, seed=seed)
    shutil.rmtree(place)
    assert shuffled(directory, seed=seed) is True


@pytest.mark.parametrize("most_notes", [64, 2])
def test_an_interrupted_packing_goes_on_behind_what_lies_at_its_place(
    interrupted, stored_dataset, monkeypatch, most_notes
):
    monkeypatch.setattr(shuffled_shards, "_MOST_NOTES", most_notes)
    directory = interrupted(SEED)
    making = packed_staging(directory) / PACKED_DIR
    assert json.loads(note_path(making).read_text())["num_written"] == 64
    inodes = {path.name: path.stat().st_ino for path in making.glob("0*.npy")}
    read, asked = ArrayRecordStore.read, []
    monkeypatch.setattr(
        ArrayRecordStore, "read", lambda self, numbers, *rest: (asked.append(numbers[0]), read(self, numbers, *rest))[1]
    )
    done = []
    assert shuffled(directory, progress=done.append) is True
    assert asked[0] == done[0] == 64
    assert sum(done) == len(stored_dataset[1])
    assert {path.name: path.stat().st_ino for path in (directory / PACKED_DIR).glob("0*.npy")} == inodes
    np.testing.assert_array_equal(open_store(directory).read(np.arange(sum(done))), stored_dataset[1])
    assert not packed_staging(directory).exists()


@pytest.mark.parametrize(("begun", "asked"), [(None, 0), (0, None), (1, 2)], ids=str)
def test_a_packing_in_another_order_does_not_go_on_with_it(interrupted, begun, asked):
    directory = interrupted(begun)
    finish = "leave out --shuffle_patients" if begun is None else f"stage with --shuffle_patients --seed={begun}"
    with pytest.raises(
        DataError, match=rf"packed.building: an interrupted run .*{finish} to finish it, or remove .*bui"
    ):
        shuffled(directory, seed=asked)
    assert shuffled(directory, seed=begun) is True


@pytest.mark.parametrize("damage", ["bit", "header", "missing", "shorter"])
def test_what_was_damaged_meanwhile_is_found_and_made_again(interrupted, stored_dataset, damage):
    directory = interrupted(SEED)
    order = shuffled_patients(stored_dataset[0].index.patient, seed=SEED)
    place = int(np.flatnonzero(order[:RECORDS_A_PACKED_SHARD] < 64)[0])  # of a record that was written before
    shard = packed_staging(directory) / PACKED_DIR / "00000.npy"
    if damage == "missing":
        shard.unlink()
    elif damage == "shorter":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        flip_bit(shard, 20 if damage == "header" else 4096 + place * 16_000 + 5)
    if damage in ("bit", "header"):
        with pytest.raises(DataError, match=r"00000.npy: does not read back as it was written; check the disk, then"):
            shuffled(directory)
        assert not (directory / PACKED_DIR).exists()
    assert shuffled(directory) is True
    np.testing.assert_array_equal(open_store(directory).read(np.arange(len(order))), stored_dataset[1])
