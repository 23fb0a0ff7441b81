"""Neighbours stored with a data set: of training records of other patients, whole or not at all, refused when stale."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.likeness import neighbour_table
from data_pipelines.likeness.components import Components
from data_pipelines.likeness.neighbour_table import (
    NEIGHBOUR_FILES,
    NeighbourSearch,
    find_neighbours,
    neighbours_staging,
    open_neighbours,
)
from data_pipelines.likeness.spaces import SPACES, Recorded, vector_of
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.store import open_store
from data_pipelines.verify import verify_dataset
from tests.support.fixtures import make_simulated_dataset

FOLDS = {"train_folds": (1, 2, 3, 4, 5, 6), "val_folds": (7, 8), "test_folds": (9, 10)}
SEARCH = NeighbourSearch(space="signal", k=3, **FOLDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set with its neighbours."""
    dataset = make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4)
    assert find_neighbours(dataset.directory, SEARCH, num_workers=1, records_per_chunk=16) is True
    return dataset


@pytest.fixture
def copy(made, tmp_path):
    return open_dataset(shutil.copytree(made.directory, tmp_path / "copy"))


def test_neighbours_are_those_of_brute_force_among_training_records_of_other_patients(made):
    table, train = open_neighbours(made, "signal"), made.index.split(**FOLDS).train
    signals = open_store(made.directory).read(train)
    recorded = [Recorded(signal, 0, len(signal)) for signal in signals]
    vectors = np.stack([vector_of(SPACES["signal"], each, made.format) for each in recorded])
    points = Components.fit(lambda: [vectors]).transform(vectors).astype(np.float64)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    group = np.asarray(made.index.group)[train]
    apart[group[:, None] == group[None, :]] = np.inf
    order = np.argsort(apart, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(table.numbers[train], train[order])
    np.testing.assert_allclose(table.distances[train], np.take_along_axis(apart, order, 1), rtol=1e-5)
    others = np.setdiff1d(np.arange(made.index.num_records), train)
    assert len(others) > 5
    assert (table.numbers[others] == -1).all()
    assert np.isnan(table.distances[others]).all()
    assert np.isin(table.numbers[train], train).all()
    assert (table.card["num_training_records"], table.card["k"], table.card["simulated"]) == (len(train), 3, True)


def test_what_is_there_is_kept_and_another_search_refused(copy):
    assert find_neighbours(copy.directory, SEARCH, num_workers=1) is False
    for other in (
        NeighbourSearch(space="signal", k=4, **FOLDS),
        NeighbourSearch(space="signal", k=3, train_folds=(1, 2)),
    ):
        with pytest.raises(DataError, match="holds the 3 nearest of folds train 1,2,3,4,5,6, val 7,8, test 9,10, and"):
            find_neighbours(copy.directory, other, num_workers=1)


def test_an_interrupted_search_goes_on_and_ends_with_the_same_bytes(copy, made, monkeypatch):
    folder = copy.directory / "neighbours_signal"
    shutil.rmtree(folder)
    nearest, calls = neighbour_table.nearest, []

    def stops(*args, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return nearest(*args, **settings)

    monkeypatch.setattr(neighbour_table, "nearest", stops)
    with pytest.raises(KeyboardInterrupt):
        find_neighbours(copy.directory, SEARCH, num_workers=1, records_per_chunk=16)
    assert not folder.exists()
    with pytest.raises(DataError, match=r"is not finished; run python -m data_pipelines\.neighbours --dataset="):
        open_neighbours(copy, "signal")
    monkeypatch.setattr(neighbour_table, "vector_of", None)  # Vectors and points are kept.
    find_neighbours(copy.directory, SEARCH, num_workers=1, records_per_chunk=16)
    chunks = -(-len(made.index.split(**FOLDS).train) // 16)
    assert len(calls) == 3 + chunks - 2
    assert not neighbours_staging(copy.directory, "signal").exists()
    for name in NEIGHBOUR_FILES:
        assert (folder / name).read_bytes() == (made.directory / "neighbours_signal" / name).read_bytes()


def test_neighbours_are_part_of_a_verification(copy):
    assert verify_dataset(copy.directory).is_whole
    with (copy.directory / "neighbours_signal" / "neighbours.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert verify_dataset(copy.directory).damaged == ("neighbours_signal/neighbours.npy",)


def test_missing_stale_and_damaged_neighbours_are_refused_with_a_remedy(copy, monkeypatch):
    with pytest.raises(
        DataError, match=r"neighbours by median_beat was not made; run python -m .* --space=median_beat"
    ):
        open_neighbours(copy, "median_beat")
    path = copy.directory / "neighbours_signal" / "neighbours.json"
    card = json.loads(path.read_text())
    for change, words in (
        ({"fingerprint": "0"}, "stale"),
        ({"fold_digest": "0"}, "stale"),
        ({"version": 0}, "made by version 0 of the search"),
        ({"k": 4}, r"holds int32\[\d+, 3\] where int32\[\d+, 4\] belongs"),
    ):
        path.write_text(json.dumps(card | change))
        with pytest.raises(DataError, match=f"{words}.*remove it and run"):
            open_neighbours(copy, "signal")
    path.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        open_neighbours(copy, "signal")


def test_median_beats_have_neighbours_too(copy):
    find_neighbours(copy.directory, NeighbourSearch(space="median_beat", k=2, **FOLDS), num_workers=1)
    table, group = open_neighbours(copy, "median_beat"), np.asarray(copy.index.group)
    known = np.flatnonzero((table.numbers >= 0).all(axis=1))
    assert len(known) == table.card["num_with_all_neighbours"] > 0
    assert (group[table.numbers[known]] != group[known, None]).all()
