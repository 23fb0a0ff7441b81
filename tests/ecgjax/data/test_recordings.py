"""What a config names is what is trained on: one data set or several, linked or not, mixed and balanced as asked."""

import dataclasses
import itertools
import re
import shutil

import numpy as np
import pytest

from configs import simclr
from data_pipelines.duplicates.search import link
from data_pipelines.errors import DataError
from data_pipelines.packing.packed_copy import pack
from data_pipelines.prepared.copies_of import save_links
from data_pipelines.prepared.dataset import open_dataset
from ecgjax.data.recordings import open_recordings
from ecgjax.data.samplers import describe_sampling, make_sampler
from ecgjax.errors import ConfigError
from tests.support.fixtures import make_simulated_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=60, rate=50, seconds=4)


def data_config(dataset, **changes):
    data = simclr.get_config().data
    data.dir = str(dataset.directory)
    data.update(changes)
    return data


def test_without_links_groups_are_those_of_the_index(dataset):
    opened = open_recordings(data_config(dataset))
    assert not opened.linked
    np.testing.assert_array_equal(opened.index.group, dataset.index.group)
    assert opened.store.num_records == dataset.index.num_records


def test_a_shard_that_cannot_be_read_is_named_unless_that_is_allowed(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset.directory, copy)
    pack(open_dataset(copy), shard_bytes=2**16)
    shard = sorted((copy / "packed").glob("*.npy"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    config = data_config(dataset, dir=str(copy))
    with pytest.raises(DataError, match=re.escape(str(shard))):
        open_recordings(config)
    config.allow_bad_shards = True
    (bad,) = open_recordings(config).store.bad_shards
    assert bad.path == shard


def test_linked_patients_are_one_patient_and_on_one_side(dataset, tmp_path):
    index = dataset.index
    plain = open_recordings(data_config(dataset)).split
    found = link([dataset])
    own = found.datasets[0]
    in_train, in_test = plain.train[0], plain.test[0]
    group = np.where(own.group == own.group[in_train], own.group[in_test], own.group)
    save_links(dataclasses.replace(found, datasets=(dataclasses.replace(own, group=group),)), tmp_path / "links.npz")
    opened = open_recordings(data_config(dataset, links=str(tmp_path / "links.npz")))
    assert opened.linked
    joined = opened.index.group
    assert joined[in_train] == joined[in_test]
    lost = set(plain.train.tolist()) - set(opened.split.train.tolist())
    assert lost == set(np.flatnonzero(index.patient == index.patient[in_train]).tolist()) & set(plain.train.tolist())
    assert in_test in opened.split.test


def test_links_of_other_data_are_refused(dataset, tmp_path):
    other = make_simulated_dataset(tmp_path, num_patients=5, rate=50, seconds=4, seed=3)
    save_links(link([other]), tmp_path / "links.npz")
    with pytest.raises(DataError, match=r"run python -m data_pipelines\.link again"):
        open_recordings(data_config(dataset, links=str(tmp_path / "links.npz")))


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return make_simulated_dataset(
        tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4, seed=5, name="b"
    )


def config_of(*datasets, sampling=None, **data):
    """Returns a config of batches of 16 from some data sets, and what it opens."""
    config = simclr.get_config()
    config.batch_size = 16
    config.data.update({"dir": ",".join(str(dataset.directory) for dataset in datasets), **data})
    config.data.update({"train_folds": (1, 2, 3, 4, 5, 6), "val_folds": (7, 8), "test_folds": (9, 10)})
    config.sampling.update(sampling or {})
    return config, open_recordings(config.data)


def drawn(sampler, num_batches):
    return np.stack([sampler.record_numbers(step) for step in range(num_batches)])


def test_several_data_sets_are_opened_as_one(dataset, second):
    _, opened = config_of(dataset, second)
    assert opened.fingerprints == (dataset.fingerprint, second.fingerprint)
    assert (opened.name, opened.simulated, opened.linked) == ("simulated + simulated", True, False)
    count = dataset.index.num_records
    assert opened.store.num_records == opened.index.num_records == count + second.index.num_records
    assert opened.dataset_of(np.array([count, 0, opened.index.num_records - 1, count - 1])).tolist() == [1, 0, 1, 0]
    first_train, second_train = opened.by_dataset(opened.split.train)
    for own, start, source in ((first_train, 0, dataset), (second_train, count, second)):
        folds = {"train_folds": (1, 2, 3, 4, 5, 6), "val_folds": (7, 8), "test_folds": (9, 10)}
        np.testing.assert_array_equal(own - start, source.index.split(**folds).train)


def test_links_join_data_sets_too(dataset, second, tmp_path):
    found = link([dataset, second])
    first, other = found.datasets
    # As if a patient of the second data set were one of the first.
    group = np.where(other.group == other.group[0], first.group[0], other.group)
    save_links(
        dataclasses.replace(found, datasets=(first, dataclasses.replace(other, group=group))), tmp_path / "links.npz"
    )
    _, opened = config_of(dataset, second, links=str(tmp_path / "links.npz"))
    assert opened.linked
    groups = np.split(opened.index.group, [dataset.index.num_records])
    np.testing.assert_array_equal(np.flatnonzero(np.isin(groups[1], groups[0])), np.flatnonzero(group == group[0]))


def test_without_weights_every_recording_of_all_comes_once_an_epoch(dataset, second):
    config, opened = config_of(dataset, second)
    sampler = make_sampler(config, opened, opened.split.train)
    count = len(opened.split.train)
    assert sampler.examples_per_epoch == count
    epoch = drawn(sampler, -(-count // 16)).ravel()[:count]
    np.testing.assert_array_equal(np.sort(epoch), opened.split.train)
    assert describe_sampling(config, opened, opened.split.train) == []


@pytest.mark.parametrize("name", ["records", "patients"])
def test_weights_are_the_shares_of_every_batch(dataset, second, name):
    config, opened = config_of(dataset, second, weights=(1, 3), sampling={"name": name})
    sampler = make_sampler(config, opened, opened.split.train)
    batches = drawn(sampler, 30)
    assert ((batches < dataset.index.num_records).sum(axis=1) == 4).all()
    assert np.isin(batches, opened.split.train).all()
    if name == "patients":
        groups = opened.index.group[batches].reshape(30, 8, 2)
        assert (groups[..., 0] == groups[..., 1]).all()
    first, other = describe_sampling(config, opened, opened.split.train)
    assert first.startswith(f"{dataset.directory}: 0.25 of every batch from ")
    assert other.startswith(f"{second.directory}: 0.75 of every batch from ")


def test_a_share_too_small_for_a_batch_is_exact_over_several(dataset, second):
    config, opened = config_of(dataset, second, weights=(0.99, 0.01))
    batches = drawn(make_sampler(config, opened, opened.split.train), 13 * 8)
    # A block is the fewest whole batches that hold 2 of the second: 13.
    assert ((batches >= dataset.index.num_records).reshape(8, -1).sum(axis=1) >= 2).all()
    assert abs((batches >= dataset.index.num_records).sum() - 0.01 * batches.size) < 1


def test_batches_are_balanced_over_a_threshold_and_records_without_label_left_out(dataset, second):
    ages = np.array(dataset.index.age_years)
    ages[::5] = np.nan
    balance = {"label": "age_years", "rule": "above", "threshold": 60.0}
    config, opened = config_of(dataset, sampling={"balance": balance})
    opened = dataclasses.replace(opened, index=dataclasses.replace(opened.index, age_years=ages))
    batches = drawn(make_sampler(config, opened, opened.split.train), 40)
    assert ((ages[batches] > 60).sum(axis=1) == 8).all()
    train = opened.split.train
    labelled = train[~np.isnan(ages[train])]
    np.testing.assert_array_equal(np.unique(batches), labelled)
    lines = describe_sampling(config, opened, train)
    assert lines[0] == f"age_years = 0: 0.5 of every batch from {(ages[train] <= 60).sum()} recordings"
    assert lines[1] == f"age_years = 1: 0.5 of every batch from {(ages[train] > 60).sum()} recordings"
    assert lines[2] == f"{len(train) - len(labelled)} recordings without the label are left out"


def test_batches_are_balanced_over_several_classes_of_pairs(dataset):
    balance = {"label": "hyperkalaemia_grade", "rule": "classes"}
    grade = (dataset.index.group % 3).astype(np.float32)
    config, opened = config_of(dataset, sampling={"name": "patients", "balance": balance})
    scalars = {"hyperkalaemia_grade": grade}
    opened = dataclasses.replace(opened, index=dataclasses.replace(opened.index, scalars=scalars))
    units = grade[drawn(make_sampler(config, opened, opened.split.train), 12)].reshape(12, 8, 2)
    assert (units[..., 0] == units[..., 1]).all()
    counts = np.stack([np.bincount(batch.astype(int), minlength=3) for batch in units[..., 0]])
    assert counts.min() == 2
    assert counts.max() == 3
    assert np.ptp(counts.sum(axis=0)) == 0


def test_what_cannot_be_sampled_is_refused(dataset, second):
    def refused(error, message, *datasets, **changes):
        config, opened = config_of(*datasets, **changes)
        with pytest.raises(error, match=message):
            make_sampler(config, opened, opened.split.train)

    age = {"label": "age_years", "rule": "above", "threshold": 60.0}
    refused(ConfigError, r"weights=\(1,\) are 1 for 2 data sets \(.*simulated, .*b\)", dataset, second, weights=(1,))
    refused(ConfigError, "both say how often", dataset, second, weights=(1, 2), sampling={"balance": age})
    refused(DataError, "each must be a number above 0", dataset, second, weights=(1, 0))
    refused(ConfigError, "config.sampling.name='pairs' is unknown", dataset, sampling={"name": "pairs"})
    for changes, error, message in (
        ({"label": "ejection"}, DataError, "no label 'ejection'"),
        ({"threshold": 1000.0}, DataError, "0 have no label 'age_years' and the others are all of one class"),
        ({"threshold": None}, DataError, "config.sampling.balance.rule='above' needs a finite"),
        ({"rule": "equal"}, DataError, "config.sampling.balance.rule is 'equal'; choose one of"),
        ({"rule": "classes"}, ConfigError, "rule='classes' takes no threshold"),
        ({"rule": "classes", "threshold": None}, DataError, "'age_years' has values that are no whole numbers"),
    ):
        refused(error, message, dataset, sampling={"balance": age | changes})
    config, opened = config_of(dataset, second, weights=(1, 1))
    with pytest.raises(DataError, match="b: no record of it is on this side of the split"):
        make_sampler(config, opened, opened.by_dataset(opened.split.train)[0])


def test_data_sets_are_named_plainly(dataset):
    for directories in ("", "a,,b", f"{dataset.directory},"):
        config = simclr.get_config()
        config.data.dir = directories
        with pytest.raises(ConfigError, match=r"config\.data\.dir=.* names no data set"):
            open_recordings(config.data)


def test_fingerprints_of_samplers_tell_settings_apart(dataset, second):
    age = {"label": "age_years", "rule": "above", "threshold": 60.0}
    asked = [
        config_of(dataset),
        config_of(dataset, second),
        config_of(dataset, second, weights=(1, 1)),
        config_of(dataset, second, weights=(1, 2)),
        config_of(second, dataset, weights=(1, 2)),
        config_of(dataset, second, sampling={"balance": age}),
        config_of(dataset, second, sampling={"balance": age | {"threshold": 50.0}}),
    ]
    prints = [make_sampler(config, opened, opened.split.train).fingerprint() for config, opened in asked]
    assert all(one != two for one, two in itertools.combinations(prints, 2))
    config, opened = config_of(dataset, second, weights=(0.5, 0.5))
    assert make_sampler(config, opened, opened.split.train).fingerprint() == prints[2]
