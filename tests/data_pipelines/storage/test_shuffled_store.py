"""A packed copy with shuffled patients is read by record number as any other; its places are its own."""

import json
import re
import shutil

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.packing.packed_copy import pack
from data_pipelines.packing.patient_order import shuffled_patients
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import LAYOUT_VERSION
from data_pipelines.storage import packed_store
from data_pipelines.storage.joint_store import JointStore
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE
from data_pipelines.storage.store import open_store
from data_pipelines.storage.stored_order import ORDER_FILE, StoredOrder
from data_pipelines.system import record_files
from data_pipelines.system.digests import DIGESTS_FILE, write_digests
from data_pipelines.system.record_files import RecordFiles
from tests.support.fixtures import RECORDS_A_PACKED_SHARD, flip_bit

SEED = 5


@pytest.fixture(scope="module")
def original(stored_dataset, tmp_path_factory):
    """The data set with a shuffled copy of four shards, its signals by number, and its order."""
    dataset, signals = stored_dataset
    out = tmp_path_factory.mktemp("shuffled") / "simulated"
    shutil.copytree(dataset.directory, out, ignore=shutil.ignore_patterns(PACKED_DIR))
    pack(open_dataset(out), seed=SEED, shard_bytes=RECORDS_A_PACKED_SHARD * 16_000)
    return out, signals, shuffled_patients(dataset.index.patient, seed=SEED)


@pytest.fixture
def copy(original, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(original[0], tmp_path / "copy")


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_record_is_read_by_its_number(original, monkeypatch, in_memory):
    directory, signals, _ = original
    monkeypatch.setattr(record_files, "_can_be_read_at_once", lambda handle, offset: in_memory)
    store, generator = open_store(directory), np.random.default_rng(0)
    for numbers in (np.arange(len(signals)), generator.integers(0, len(signals), 200), np.empty(0, np.int64)):
        np.testing.assert_array_equal(store.read(numbers), signals[numbers])
    with pytest.raises(IndexError, match="the store holds 0 …"):
        store.read(np.array([len(signals)]))


def test_stored_order_is_that_of_the_shards_and_neighbours_are_announced_together(original, monkeypatch):
    directory, signals, order = original
    store, announced = open_store(directory), []
    np.testing.assert_array_equal(store.in_stored_order(np.arange(len(signals))), order)
    some = np.random.default_rng(0).permutation(len(signals))[:50]
    np.testing.assert_array_equal(store.in_stored_order(some), order[np.isin(order, some)])
    monkeypatch.setattr(RecordFiles, "announce", lambda self, files, positions: announced.append((files, positions)))
    store.announce(store.in_stored_order(some))
    ((files, positions),) = announced
    np.testing.assert_array_equal(files * RECORDS_A_PACKED_SHARD + positions, np.flatnonzero(np.isin(order, some)))


def test_records_of_bad_shards_are_marked_by_number_and_all_others_right(copy, original):
    _, signals, order = original
    shards = sorted((copy / PACKED_DIR).glob("0*.npy"))
    shards[0].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-1000])
    bad = np.isin(np.arange(len(signals)), [*order[:32], *order[64:96]])
    with pytest.raises(DataError, match=r"2 of 4 shards .*stage --dataset=.* --shuffle_patients --seed=5$"):
        open_store(copy)
    store = open_store(copy, allow_bad_shards=True)
    assert [(shard.path, shard.start, shard.stop) for shard in store.bad_shards] == [
        (shards[0], 0, 32),
        (shards[2], 64, 96),
    ]
    lying = store.in_stored_order(np.arange(len(signals)))
    told = np.concatenate([lying[shard.start : shard.stop] for shard in store.bad_shards])
    np.testing.assert_array_equal(np.sort(told), np.flatnonzero(bad))
    numbers, valid = np.random.default_rng(0).permutation(len(signals)), np.zeros(len(signals), bool)
    read = store.read(numbers, valid=valid)
    np.testing.assert_array_equal(valid, ~bad[numbers])
    np.testing.assert_array_equal(read, np.where(valid[:, None, None], signals[numbers], 0))
    np.testing.assert_array_equal(store.read(np.flatnonzero(~bad)), signals[~bad])
    with pytest.raises(DataError, match=rf"^{re.escape(str(shards[2]))}: [^;]*$"):
        store.read(order[[40, 70]])


def test_shuffled_and_plain_copies_are_joined(copy, original, stored_dataset):
    _, signals, order = original
    (copy / PACKED_DIR / "00001.npy").unlink()
    plain = open_store(stored_dataset[0].directory)
    joint = JointStore([plain, open_store(copy, allow_bad_shards=True)])
    count = len(signals)
    lying = joint.in_stored_order(np.arange(2 * count))
    np.testing.assert_array_equal(lying, [*range(count), *(count + order)])
    (bad,) = joint.bad_shards
    np.testing.assert_array_equal(lying[bad.start : bad.stop], count + order[32:64])
    valid = np.zeros(2 * count, bool)
    read = joint.read(np.arange(2 * count), valid=valid)
    np.testing.assert_array_equal(np.flatnonzero(~valid), np.sort(count + order[32:64]))
    np.testing.assert_array_equal(read[valid], np.concatenate([signals, signals])[valid])


def test_a_spot_check_names_the_record_that_differs(copy, original, monkeypatch):
    _, signals, order = original
    monkeypatch.setattr(packed_store, "FULL_CHECK_BYTES", 0)
    monkeypatch.setattr(packed_store, "_NUM_SPOT_CHECKS", len(signals))
    open_store(copy)
    flip_bit(copy / PACKED_DIR / "00001.npy", 4096 + 3 * 16_000 + 5)
    with pytest.raises(DataError, match=rf"00001.npy: its record 3 \(record {order[35]} of the data set\) differs"):
        open_store(copy)


@pytest.mark.parametrize("damage", ["swapped", "missing", "no table", "shorter", "twice", "beyond", "text"])
def test_an_order_that_is_not_whole_is_refused(copy, damage):
    folder = copy / PACKED_DIR
    path, order = folder / ORDER_FILE, np.load(folder / ORDER_FILE)
    if damage in ("missing", "no table"):
        (path if damage == "missing" else folder / DIGESTS_FILE).unlink()
    elif damage == "swapped":  # It is an order still, of which only the digest tells that it is another one.
        order[[0, 1]] = order[[1, 0]]
        np.save(path, order)
    else:
        if damage == "text":
            path.write_text("record numbers")
        else:
            order[0] = {"twice": order[1], "beyond": len(order)}.get(damage, order[0])
            np.save(path, order[: -1 if damage == "shorter" else None])
        write_digests(folder, [PACKED_FILE, ORDER_FILE])
    message = rf"{ORDER_FILE}: missing or damaged \(.*; remove .*packed and make it again .*--shuffle_patients --seed=5"
    with pytest.raises(DataError, match=message):
        open_store(copy, allow_bad_shards=True)


def test_numbers_beyond_32_bits_keep_their_type():
    order = StoredOrder(np.array([2, 0, 1], np.int64))
    assert order.places(np.array([0, 1, 2])).tolist() == [1, 2, 0]
    assert order.sorted(np.array([0, 2])).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout_version": 9}, r"packed: this packed copy has layout version 9, this ecgjax reads 2 and 3; remove"),
        ({"layout_version": LAYOUT_VERSION}, r"packed.json: missing or damaged \(layout version 2 has no shuffled"),
        ({"patients_shuffled": {"file": "../x", "seed": 1}}, r"packed.json: names the file '../x'"),
        ({"patients_shuffled": {"file": ORDER_FILE, "seed": "1"}}, r"packed.json: damaged \(sizes of shards or a seed"),
        ({"patients_shuffled": {"file": ORDER_FILE}}, r"packed.json: missing or damaged"),
    ],
    ids=str,
)
def test_a_table_of_contents_of_another_kind_is_refused(copy, change, message):
    """An ecgjax that knows no shuffled copies reads the layout version of a data set alone, and so refuses them."""
    path = copy / PACKED_DIR / PACKED_FILE
    contents = json.loads(path.read_text())
    assert contents["layout_version"] != LAYOUT_VERSION
    path.write_text(json.dumps(contents | change))
    with pytest.raises(DataError, match=message):
        open_store(copy)
