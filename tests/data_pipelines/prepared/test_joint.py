"""Several data sets as one: record numbers that run on, copies and patients joined across them, one split for all."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.duplicates.search import link
from data_pipelines.errors import DataError
from data_pipelines.prepared.joint import JointColumn, join
from data_pipelines.storage.bad_shards import BadShard
from data_pipelines.storage.joint_store import JointStore
from data_pipelines.storage.store import open_store
from tests.support.fixtures import make_simulated_dataset

FOLDS = {"train_folds": range(1, 7), "val_folds": (7, 8), "test_folds": (9, 10)}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Two cohorts of which one is the beginning of the other, and a third with other people of the same ids."""
    folder = tmp_path_factory.mktemp("data")
    few = make_simulated_dataset(folder, num_patients=60, rate=50, seconds=4, name="few")
    many = make_simulated_dataset(folder, num_patients=90, rate=50, seconds=4, name="many")
    other = make_simulated_dataset(folder, num_patients=50, rate=50, seconds=4, seed=1, name="other")
    renamed = np.char.replace(other.index.patient_id, "simulated-1", "simulated-0")
    return few, many, dataclasses.replace(other, index=dataclasses.replace(other.index, patient_id=renamed))


@pytest.fixture(scope="module")
def joint(datasets):
    return join(datasets)


def same_partition(first, second):
    pairs = len(np.unique(np.stack([first, second]), axis=1).T)
    return pairs == len(np.unique(first)) == len(np.unique(second))


def test_groups_join_equal_contents_and_their_patients_across_data_sets_and_nobody_else(datasets, joint):
    few, many, other = datasets
    assert joint.index.num_records == sum(dataset.index.num_records for dataset in datasets)
    of_few, of_many, of_other = np.split(joint.index.group, joint.starts[1:-1])
    for dataset, own in zip(datasets, (of_few, of_many, of_other), strict=True):
        assert same_partition(own, dataset.index.group)
    in_both = np.isin(many.index.patient_id, few.index.patient_id)
    assert 0 < in_both.sum() < len(in_both)
    np.testing.assert_array_equal(np.isin(of_many, of_few), in_both)
    assert np.isin(other.index.patient_id, few.index.patient_id).all()
    assert not np.isin(of_other, [*of_few, *of_many]).any()


def test_links_give_the_same_groups_where_all_copies_are_equal(datasets, joint):
    linked = join(datasets, links=link(datasets))
    assert same_partition(linked.index.group, joint.index.group)
    split, without = linked.split(**FOLDS), joint.split(**FOLDS)
    for side in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(split, side), getattr(without, side))


def test_a_patient_can_be_joined_through_another_data_set(datasets):
    # Two patients of the first set, of whom the second has recordings under one id.
    few, many, _ = datasets
    patients = few.index.patient_id[np.unique(few.index.patient, return_index=True)[1]][:2]
    index = many.index
    both = np.isin(index.patient_id, patients)
    renamed = dataclasses.replace(index, group=np.where(both, index.group[both][0], index.group))
    group = join([few, dataclasses.replace(many, index=renamed)]).index.group
    assert len(np.unique(group[: few.index.num_records][np.isin(few.index.patient_id, patients)])) == 1


def test_one_copy_is_kept_and_no_group_is_on_two_sides(datasets, joint):
    split = joint.split(**FOLDS)
    content = np.concatenate([dataset.index.content_hash for dataset in datasets])
    fold = np.concatenate([dataset.index.fold for dataset in datasets])
    sides = {name: getattr(split, name) for name in ("train", "val", "test")}
    for name, records in sides.items():
        assert (np.diff(records) > 0).all()
        in_side = np.isin(fold, list(FOLDS[f"{name}_folds"]))
        wanted = {row.tobytes() for row in content[in_side]}
        kept = [row.tobytes() for row in content[records]]
        assert len(kept) == len(set(kept))
        assert set(kept) == wanted, "the cohorts deal a patient to the same fold, so nobody has to yield"
        assert in_side[records].all()
    groups = [set(joint.index.group[records].tolist()) for records in sides.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert split.excluded["duplicate"] == len(content) - len(np.unique(content, axis=0))
    assert sum(map(len, sides.values())) + sum(split.excluded.values()) == len(content)


def test_train_yields_to_a_copy_in_another_data_sets_test(datasets):
    few, many, _ = datasets
    moved = dataclasses.replace(few, index=dataclasses.replace(few.index, fold=np.full_like(few.index.fold, 10)))
    with pytest.raises(DataError, match=r"few: no record is in folds 1, "):
        join([moved, many]).split(**FOLDS)
    # One record keeps each fold, so that every fold is there.
    fold = np.where(np.arange(len(few.index.fold)) < 10, np.arange(len(few.index.fold)) % 10 + 1, 10).astype(np.int16)
    moved = dataclasses.replace(few, index=dataclasses.replace(few.index, fold=fold))
    joint = join([moved, many])
    split = joint.split(**FOLDS)
    shared = np.isin(joint.index.group, joint.index.group[np.flatnonzero(np.isin(fold, (9, 10)))])
    assert not shared[split.train].any()
    assert not shared[split.val].any()


def test_columns_run_on_without_a_copy(datasets, joint):
    generator = np.random.default_rng(0)
    numbers = generator.integers(0, joint.index.num_records, 200)
    for name in ("record_id", "patient_id", "valid_start", "valid_samples"):
        column = getattr(joint.index, name)
        whole = np.concatenate([getattr(dataset.index, name) for dataset in datasets])
        assert len(column) == len(whole)
        np.testing.assert_array_equal(column[numbers], whole[numbers])
        assert column[numbers].dtype == whole.dtype
        assert column[int(numbers[0])] == whole[numbers[0]]
    wide = JointColumn([np.zeros((3, 2), np.int8), np.ones((0, 2), np.int8), np.full((2, 2), 7, np.int16)])
    assert wide[np.array([[4, 0]])].tolist() == [[[7, 7], [0, 0]]]
    for number in (-1, 5):
        with pytest.raises(IndexError, match=r"there are 0 … 4"):
            wide[number]


def test_labels_are_missing_where_a_data_set_does_not_have_them(datasets):
    few, many, _ = datasets
    without = dataclasses.replace(many, index=dataclasses.replace(many.index, scalars={}))
    index = join([few, without]).index
    lvef = index.label("lvef")
    np.testing.assert_array_equal(lvef[: few.index.num_records], few.index.label("lvef"))
    assert np.isnan(lvef[few.index.num_records :]).all()
    assert not np.isnan(index.label("age_years")).any()
    with pytest.raises(DataError, match=r"no label 'ejection' in any of these data sets; they have .*lvef"):
        index.label("ejection")


def test_what_cannot_be_joined_is_refused(datasets, tmp_path):
    few, many, _ = datasets
    with pytest.raises(DataError, match=r"few: the same data set as .*few; give one"):
        join([few, many, few])
    faster = make_simulated_dataset(tmp_path, num_patients=2, rate=100, seconds=4, seed=7, name="faster")
    message = (
        r"few holds 200 samples at 50 Hz, .*faster 400 samples at 100 Hz; .*--builder=prepared --source=.*faster "
        r"--target_rate_hz=50 --seconds=4 --out=DIR"
    )
    with pytest.raises(DataError, match=message):
        join([few, faster])


def test_a_store_of_several_reads_what_each_reads(datasets):
    stores = [open_store(dataset.directory) for dataset in datasets]
    joint = JointStore(stores)
    starts = np.cumsum([0, *(store.num_records for store in stores)])
    assert joint.num_records == starts[-1]
    assert (joint.shape, joint.num_threads, joint.bad_shards) == ((200, 8), 1, ())
    whole = np.concatenate([store.read(np.arange(store.num_records)) for store in stores])
    generator = np.random.default_rng(0)
    asked = [generator.integers(0, joint.num_records, count) for count in (0, 1, 7, 150, 400)]
    for numbers in (*asked, np.sort(asked[-1]), np.arange(starts[1], starts[2])):
        out, valid = np.full((len(numbers), 200, 8), -1, np.int16), np.zeros(len(numbers), bool)
        assert joint.read(numbers, out, valid=valid) is out
        np.testing.assert_array_equal(out, whole[numbers])
        assert valid.all()
        np.testing.assert_array_equal(joint.read(numbers), whole[numbers])
    with pytest.raises(IndexError, match=f"the store holds 0 … {starts[-1] - 1}"):
        joint.read(np.array([0, starts[-1]]))
    with pytest.raises(ValueError, match="C-contiguous"):
        joint.read(np.array([0, 1]), np.empty((3, 200, 8), np.int16))
    with pytest.raises(ValueError, match="valid must be"):
        joint.read(np.array([0, 1]), valid=np.empty(1, bool))


class StoreWithBadShard:
    """A made-up store of which some records cannot be read."""

    kind, shape, num_threads = "made_up", (3, 8), 2

    def __init__(self, num_records, *, bad):
        self.num_records = num_records
        self.bad_shards = (BadShard(path=Path("shard"), start=bad.start, stop=bad.stop, reason="is missing"),)
        self._bad = bad

    def read(self, record_numbers, out=None, *, valid=None):
        bad = np.isin(record_numbers, self._bad)
        if valid is None and bad.any():
            raise DataError("shard: is missing")
        out[...] = np.where(bad, 0, record_numbers + 1)[:, None, None]
        if valid is not None:
            valid[...] = ~bad
        return out


def test_damage_is_told_by_joint_numbers_and_rows():
    joint = JointStore([StoreWithBadShard(10, bad=range(2, 4)), StoreWithBadShard(20, bad=range(5, 9))])
    assert [(shard.start, shard.stop) for shard in joint.bad_shards] == [(2, 4), (15, 19)]
    numbers = np.random.default_rng(0).permutation(30)
    for asked in (numbers, np.sort(numbers)):
        valid = np.zeros(30, bool)
        signals = joint.read(asked, valid=valid)
        bad = np.isin(asked, [2, 3, 15, 16, 17, 18])
        np.testing.assert_array_equal(valid, ~bad)
        np.testing.assert_array_equal(signals[:, 0, 0], np.where(bad, 0, asked % 10 + 10 * (asked >= 20) + 1))
    with pytest.raises(DataError, match="shard: is missing"):
        joint.read(numbers)


def test_stores_of_different_shapes_are_refused():
    other = StoreWithBadShard(4, bad=range(1))
    other.shape = (4, 8)
    with pytest.raises(ValueError, match="stores of one shape"):
        JointStore([StoreWithBadShard(4, bad=range(1)), other])
    with pytest.raises(ValueError, match="stores of one shape"):
        JointStore([])
