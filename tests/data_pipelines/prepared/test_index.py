"""Groups, duplicates, labels and splits against brute force; columns on disk and what is said when they are damaged."""

import dataclasses
import itertools

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.prepared.index import (
    COLUMNS,
    LATER_COLUMNS,
    Index,
    Task,
    duplicates,
    groups,
    key_codes,
    open_index,
    save_column,
    save_contents,
    scalar_column,
    task_column,
)
from data_pipelines.records import ENVELOPE_SAMPLES, SIGNATURE_BYTES, SignalFormat


def hashes(contents):
    """Stand-ins for content hashes: equal numbers, equal hashes, all with the same first bytes and a zero end."""
    out = np.zeros((len(contents), 16), np.uint8)
    out[:, 7] = contents
    return out


def make_index(patients, contents, folds):
    patient_id = np.array([f"p{p}" for p in patients])
    patient, content_hash = key_codes(hashes(patients)), hashes(contents)
    n = len(patients)
    return Index(
        record_id=np.array([f"r{i}" for i in range(n)]),
        patient_id=patient_id,
        patient=patient,
        group=groups(patient, content_hash),
        fold=np.array(folds, np.int16),
        sex=np.resize(np.array([0, 1, -1], np.int8), n),
        age_years=np.resize(np.array([40, np.nan], np.float32), n),
        content_hash=content_hash,
        duplicate_of=duplicates(content_hash),
        valid_start=np.zeros(n, np.int32),
        valid_samples=np.full(n, 100, np.int32),
        quality=np.arange(n, dtype=np.int32) % 64,
        clipped_samples=np.zeros(n, np.int32),
        signature=np.arange(n * SIGNATURE_BYTES, dtype=np.int64).astype(np.int8).reshape(n, SIGNATURE_BYTES),
        scalars={"lvef": np.linspace(20, 70, n, dtype=np.float32), "odd/name": np.zeros(n, np.float32)},
        order_free_signature=np.full((n, SIGNATURE_BYTES), 3, np.int8),
        envelope=np.full((n, ENVELOPE_SAMPLES), -5, np.int8),
        recording=np.arange(n, dtype=np.int32),
        recording_seconds=np.linspace(10, 86_400, n),
        start_seconds=np.linspace(0, 86_390, n),
        tasks={"rhythm": Task(classes=("AF", "SR"), values=np.resize(np.array([[0, 1], [-1, -1]], np.int8), (n, 2)))},
    )


def save_index(index, folder):
    folder.mkdir()
    columns = {name: getattr(index, name) for name in (*COLUMNS, *LATER_COLUMNS)}
    columns |= {scalar_column(position): values for position, values in enumerate(index.scalars.values())}
    columns |= {task_column(position): task.values for position, task in enumerate(index.tasks.values())}
    for name, values in columns.items():
        save_column(folder, name, values)
    save_contents(
        folder,
        num_records=index.num_records,
        scalars=list(index.scalars),
        tasks={name: task.classes for name, task in index.tasks.items()},
    )


def random_index(seed, n=60):
    generator = np.random.default_rng(seed)
    return make_index(generator.integers(0, 30, n), generator.integers(0, 45, n), generator.integers(1, 6, n))


def brute_force_groups(index):
    """Merges sets of records until no two share a patient, or a content that no more than four patients have."""

    def share(i, j):
        contents = (index.content_hash == index.content_hash[i]).all(axis=1)
        is_shared = contents[j] and len(set(index.patient[contents].tolist())) <= 4
        return index.patient[i] == index.patient[j] or is_shared

    sets = [{i} for i in range(index.num_records)]
    changed = True
    while changed:
        changed = False
        for a, b in itertools.combinations(range(len(sets)), 2):
            if any(share(i, j) for i in sets[a] for j in sets[b]):
                sets[a] |= sets.pop(b)
                changed = True
                break
    return sorted(sorted(s) for s in sets)


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_the_connected_components_of_patient_and_content(seed):
    index = random_index(seed)
    found = [np.flatnonzero(index.group == g).tolist() for g in range(index.group.max() + 1)]
    assert sorted(found) == brute_force_groups(index)
    # Numbered by first appearance.
    assert [members[0] for members in found] == sorted(members[0] for members in found)


def test_duplicates_point_to_the_first_of_their_content():
    index = make_index([1, 2, 3, 4, 5], [7, 8, 7, 9, 7], [1] * 5)
    assert index.duplicate_of.tolist() == [-1, -1, 0, -1, 0]
    assert index.num_patients == 5


@pytest.mark.parametrize("seed", range(5))
def test_split_shares_no_group_and_accounts_for_every_record(seed):
    index = random_index(seed)
    split = index.split(train_folds=[1, 2], val_folds=[3], test_folds=[4])
    sides = {"train": (split.train, {1, 2}), "val": (split.val, {3}), "test": (split.test, {4})}
    for records, folds in sides.values():
        assert records.dtype == np.int64
        assert (np.diff(records) > 0).all()
        assert set(index.fold[records].tolist()) <= folds
        assert (index.duplicate_of[records] == -1).all()
    for (a, _), (b, _) in itertools.combinations(sides.values(), 2):
        assert not set(index.group[a].tolist()) & set(index.group[b].tolist())
    kept = sum(len(records) for records, _ in sides.values())
    assert kept + sum(split.excluded.values()) == index.num_records
    assert split.excluded["other_fold"] == int((index.fold == 5).sum())
    assert split.excluded["duplicate"] == int(((index.fold != 5) & (index.duplicate_of >= 0)).sum())
    # Nothing is left out of test but duplicates.
    np.testing.assert_array_equal(split.test, np.flatnonzero((index.fold == 4) & (index.duplicate_of < 0)))


def test_split_by_hand():
    #             0: train and in test by patient   3: train, its content is tested as a duplicate of 3 only
    patients = [0, 0, 1, 2, 3, 4, 4]
    contents = [0, 1, 2, 3, 3, 5, 6]
    folds = [1, 3, 2, 1, 3, 1, 2]
    split = make_index(patients, contents, folds).split(train_folds=[1], val_folds=[2], test_folds=[3])
    assert split.train.tolist() == [3]
    assert split.val.tolist() == [2, 6]
    assert split.test.tolist() == [1]
    assert split.excluded == {"duplicate": 1, "group_in_val_or_test": 2, "group_in_test": 0, "other_fold": 0}


def test_split_refuses_folds_that_overlap_or_do_not_exist():
    index = random_index(0)
    with pytest.raises(DataError, match="fold 3 is given to two of train, val and test"):
        index.split(train_folds=[1, 2, 3], val_folds=[3])
    with pytest.raises(
        DataError,
        match=r"no record is in fold 9; this data set has 1 \(\d+ records\), .* 5 \(\d+ records\)\. Name folds",
    ):
        index.split(train_folds=[1], test_folds=[9])


def test_labels_by_name():
    index = make_index([0, 1, 2, 3], [0, 1, 2, 3], [1] * 4)
    np.testing.assert_array_equal(index.label("rhythm:SR"), np.array([1, np.nan, 1, np.nan], np.float32))
    np.testing.assert_array_equal(index.label("rhythm:AF"), np.array([0, np.nan, 0, np.nan], np.float32))
    np.testing.assert_array_equal(index.label("sex"), np.array([0, 1, np.nan, 0], np.float32))
    np.testing.assert_array_equal(index.label("age_years"), np.array([40, np.nan, 40, np.nan], np.float32))
    np.testing.assert_array_equal(index.label("lvef"), index.scalars["lvef"])
    assert {index.label(name).dtype for name in index.labels} == {np.dtype(np.float32)}
    with pytest.raises(DataError, match=r"no label 'rhythm:VT' .*did you mean .*rhythm:AF.*\? It has age_years, sex"):
        index.label("rhythm:VT")


def test_index_comes_back_from_disk_memory_mapped(tmp_path):
    index = random_index(0)
    save_index(index, tmp_path / "index")
    opened = open_index(tmp_path / "index")
    for field in dataclasses.fields(Index):
        if field.name not in ("scalars", "tasks"):
            values = getattr(opened, field.name)
            assert isinstance(values, np.memmap), field.name
            np.testing.assert_array_equal(values, getattr(index, field.name))
    assert list(opened.scalars) == ["lvef", "odd/name"]
    np.testing.assert_array_equal(opened.label("lvef"), index.label("lvef"))
    assert opened.tasks["rhythm"].classes == ("AF", "SR")
    np.testing.assert_array_equal(opened.tasks["rhythm"].values, index.tasks["rhythm"].values)
    expected, found = index.split(train_folds=[1], test_folds=[2]), opened.split(train_folds=[1], test_folds=[2])
    np.testing.assert_array_equal(expected.train, found.train)


def test_fingerprint_sees_content_patient_order_and_format():
    signal_format = SignalFormat(sampling_rate_hz=100, num_samples=1000)
    base = make_index([0, 1, 2], [0, 1, 2], [1] * 3).fingerprint(signal_format)
    assert make_index([0, 1, 2], [0, 1, 2], [2] * 3).fingerprint(signal_format) == base
    others = [
        make_index([0, 1, 2], [0, 1, 3], [1] * 3).fingerprint(signal_format),
        make_index([0, 1, 1], [0, 1, 2], [1] * 3).fingerprint(signal_format),
        make_index([0, 1, 2], [1, 0, 2], [1] * 3).fingerprint(signal_format),
        make_index([0, 1, 2], [0, 1, 2], [1] * 3).fingerprint(SignalFormat(sampling_rate_hz=250, num_samples=1000)),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize("column", ["fold", "record_id", "scalar_0", "task_0", "envelope"])
def test_damaged_columns_are_named(tmp_path, column):
    save_index(random_index(0), tmp_path / "index")
    path = tmp_path / "index" / f"{column}.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(DataError, match=f"{column}.npy: this column of the index is truncated or damaged"):
        open_index(tmp_path / "index")
    np.save(path, np.load(tmp_path / "index" / "sex.npy")[:-1])
    with pytest.raises(DataError, match=rf"{column}.npy: holds \|i1\(59,\), the index says .*60"):
        open_index(tmp_path / "index")
    path.unlink()
    with pytest.raises(DataError, match=f"{column}.npy: this column of the index is missing; build the data set again"):
        open_index(tmp_path / "index")


def test_an_index_from_before_later_columns_has_none(tmp_path):
    index = random_index(0)
    save_index(index, tmp_path / "index")
    tasks = {name: task.classes for name, task in index.tasks.items()}
    save_contents(tmp_path / "index", num_records=index.num_records, scalars=list(index.scalars), tasks=tasks, later=())
    opened = open_index(tmp_path / "index")
    assert (opened.order_free_signature, opened.envelope) == (None, None)
    np.testing.assert_array_equal(opened.signature, index.signature)


def test_missing_table_of_contents(tmp_path):
    with pytest.raises(DataError, match=r"index.json: missing or damaged"):
        open_index(tmp_path)
