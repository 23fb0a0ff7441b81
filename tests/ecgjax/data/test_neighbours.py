"""The nearest recordings of the data set as positives and in batches: on the training side, of other patients."""

import dataclasses
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.likeness.neighbour_table import NeighbourSearch, find_neighbours, open_neighbours
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.streaming.batches import batches
from ecgjax.data.neighbours import neighbour_column
from ecgjax.data.recordings import open_recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.data.settings import ColumnSettings, DataSettings, SamplingSettings
from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.nt_xent import nt_xent
from ecgjax.objectives.pairs.relations import nearest_in_dataset
from ecgjax.training.embedding_rows import Layout, embedding_rows
from tests.ecgjax.objectives.losses.test_nt_xent import brute_nt_xent
from tests.support.fixtures import make_simulated_dataset
from tests.support.objective_cases import assert_equals_brute_force, make_rows

FOLDS = {"train_folds": (1, 2, 3, 4, 5, 6), "val_folds": (7, 8), "test_folds": (9, 10)}
SIGNAL = ColumnSettings()


def searched(folder, **settings):
    dataset = make_simulated_dataset(folder, rate=50, seconds=4, **settings)
    find_neighbours(dataset.directory, NeighbourSearch(space="signal", k=3, **FOLDS), num_workers=1)
    return dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("data"), num_patients=40)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("data"), num_patients=30, seed=5, name="b")


def opened_from(*datasets, **changes):
    return open_recordings(DataSettings(dir=",".join(str(each.directory) for each in datasets), **FOLDS | changes))


def side_of(opened, records=None, **sampling):
    settings = SamplingSettings(**{"name": "neighbours"} | sampling)
    return SampledSide(settings, opened, opened.split.train if records is None else records, columns=SIGNAL)


def test_neighbours_are_training_records_of_other_patients(dataset):
    opened = opened_from(dataset)
    column, train = neighbour_column(SIGNAL, opened), opened.split.train
    np.testing.assert_array_equal(column, open_neighbours(dataset, "signal").numbers)
    assert column.dtype == np.int32
    assert np.isin(column[train], train).all()
    np.testing.assert_array_equal(neighbour_column(ColumnSettings(neighbours=2), opened), column[:, :2])
    assert (np.asarray(opened.index.group)[column[train]] != np.asarray(opened.index.group)[train, None]).all()


def test_those_that_the_run_does_not_train_on_or_takes_for_the_same_patient_are_none(dataset):
    opened = opened_from(dataset)
    column, train = neighbour_column(SIGNAL, opened), opened.split.train
    # As links would do it: one record fewer on the training side, and two patients that are one.
    first, nearest = train[0], column[train[0], 0]
    gone = column[first, 1]
    group = np.where(opened.index.group == opened.index.group[nearest], opened.index.group[first], opened.index.group)
    split = dataclasses.replace(opened.split, train=train[train != gone])
    index = dataclasses.replace(opened.index, group=group)
    linked = neighbour_column(SIGNAL, dataclasses.replace(opened, split=split, index=index))
    assert linked[first].tolist() == [-1, -1, column[first, 2] if group[column[first, 2]] != group[first] else -1]
    assert (linked != gone).all()
    assert (linked[gone] == -1).all()


def test_neighbours_of_several_data_sets_are_numbered_on(dataset, second):
    opened, count = opened_from(dataset, second), dataset.index.num_records
    column = neighbour_column(SIGNAL, opened)
    for own, start in ((dataset, 0), (second, count)):
        numbers = open_neighbours(own, "signal").numbers
        part = column[start : start + len(numbers)]
        np.testing.assert_array_equal(part, np.where(numbers >= 0, numbers + start, -1))


def test_other_folds_more_neighbours_and_no_search_are_refused_with_a_remedy(dataset, tmp_path):
    more = opened_from(dataset, train_folds=(1, 2, 3, 4, 5, 6, 7), val_folds=(8,))
    with pytest.raises(
        DataError, match=r"searched among folds 1,2,3,4,5,6, and this run trains on 1,2,3,4,5,6,7; remo"
    ):
        neighbour_column(SIGNAL, more)
    held_out = opened_from(dataset, train_folds=(1, 2, 3, 4, 5), val_folds=(6,))
    with pytest.raises(DataError, match=r"--space=signal --train_folds=1,2,3,4,5 \(with"):
        neighbour_column(SIGNAL, held_out)
    with pytest.raises(ConfigError, match=r"config\.columns\.neighbours=4: .* has the 3 nearest"):
        neighbour_column(ColumnSettings(neighbours=4), opened_from(dataset))
    with pytest.raises(DataError, match=r"python -m data_pipelines\.neighbours --dataset=.* --space=median_beat"):
        neighbour_column(ColumnSettings(neighbour_space="median_beat"), opened_from(dataset))
    alone = shutil.copytree(dataset.directory, tmp_path / "alone")
    numbers = np.load(alone / "neighbours_signal" / "neighbours.npy")
    np.save(alone / "neighbours_signal" / "neighbours.npy", np.full_like(numbers, -1))
    with pytest.raises(DataError, match=r"none of the .* training records has a neighbour by signal"):
        neighbour_column(SIGNAL, opened_from(open_dataset(alone)))
    with pytest.raises(
        ConfigError, match=re.escape("config.sampling.balance as many of each answer: leave one of them")
    ):
        side_of(opened_from(dataset), balance="sex=1")


def test_batches_are_pairs_of_neighbours_whoever_reads_them_and_wherever_they_begin(dataset):
    opened = opened_from(dataset)
    column = neighbour_column(SIGNAL, opened)
    sampler = side_of(opened).sampler(batch_size=8, seed=3)
    assert sampler.examples_per_epoch == 2 * len(opened.split.train)
    columns = {"neighbours": column, "patient": opened.index.group}

    def read(rows, start):
        stream = batches(opened.store, sampler, rows=rows, start_step=start, columns=columns)
        found = [next(stream) for _ in range(6)]
        stream.close()
        return found

    whole = read(np.arange(8), 0)
    for batch in whole:
        for first, partner in batch["record"].reshape(4, 2):
            assert partner in column[first]
    halves = [read(rows, 2) for rows in (np.arange(4), np.arange(4, 8))]
    for step in range(4):
        for name in ("record", "signal", "neighbours"):
            together = np.concatenate([half[step][name] for half in halves])
            np.testing.assert_array_equal(together, whole[step + 2][name], err_msg=name)


def test_every_row_of_a_batch_of_pairs_has_a_positive(dataset):
    opened = opened_from(dataset)
    column = neighbour_column(SIGNAL, opened)
    records = side_of(opened).sampler(batch_size=16, seed=0).record_numbers(5)
    batch = {
        "row": jnp.arange(16, dtype=jnp.int32),
        "record": jnp.asarray(records, jnp.int32),
        "patient": jnp.asarray(np.asarray(opened.index.group)[records], jnp.int32),
        "valid": jnp.ones(16, bool),
        "neighbours": jnp.asarray(column[records], jnp.int32),
    }
    rows = embedding_rows(batch, Layout(views=1))
    assert nearest_in_dataset(rows, rows).positive.any(axis=1).all()
    two_views = embedding_rows(batch, Layout(views=2))
    np.testing.assert_array_equal(nearest_in_dataset(two_views, two_views).positive.any(axis=1), np.ones(32, bool))


def test_records_of_validation_have_none_and_stand_alone(dataset):
    opened = opened_from(dataset)
    validation = opened.split.val
    pairs = side_of(opened, validation).sampler(batch_size=4, seed=0).record_numbers(0).reshape(2, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert np.isin(pairs, validation).all()
    assert side_of(opened, validation).with_neighbours == 0
    assert side_of(opened).with_neighbours == len(opened.split.train)


def pairs_by_hand(rows):
    """Of each row its positives and negatives, by loops that share no code with the relation."""
    record, patient, valid, neighbours = (
        np.asarray(x) for x in (rows.record, rows.patient, rows.valid, rows.neighbours)
    )
    found = []
    for i in range(len(record)):
        positive, negative = [], []
        for j in range(len(record)):
            if j == i or not valid[i] or not valid[j]:
                continue
            if record[i] == record[j]:
                positive.append(j)
            elif neighbours[i].max() >= 0 and neighbours[j].max() >= 0:
                if record[j] in neighbours[i] or record[i] in neighbours[j]:
                    positive.append(j)
                elif patient[i] != patient[j]:
                    negative.append(j)
        found.append((positive, negative))
    return found


def test_nt_xent_of_neighbours_equals_brute_force_in_value_and_gradient():
    generator = np.random.default_rng(0)
    record = generator.integers(0, 14, 24)
    neighbours = np.where(generator.random((14, 3)) < 0.6, generator.integers(0, 14, (14, 3)), -1)
    neighbours[:2] = -1  # such as records without a median beat
    columns = {"neighbours": neighbours[record]}
    cases = {
        "pairs of neighbours": make_rows(record, record // 2, **columns),
        "masked rows": make_rows(record, record // 2, valid=np.arange(24) % 5 != 0, **columns),
        "one patient only": make_rows(record, 0 * record, **columns),
        "nothing known": make_rows(record, record, neighbours=np.full((24, 3), -1)),
    }
    assert_equals_brute_force(
        lambda z, rows, tiling: nt_xent(z, rows, relation=nearest_in_dataset, temperature=0.1, tiling=tiling),
        lambda z, _, pairs: brute_nt_xent(z, pairs, positives="outside", tau=0.1),
        cases=cases,
        prepare=pairs_by_hand,
    )
