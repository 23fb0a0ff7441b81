"""What a config names is what is trained on: one data set or several, linked or not, mixed and balanced as asked."""

import dataclasses
import itertools
import re
import shutil

import numpy as np
import pytest

from data_pipelines.duplicates.search import link
from data_pipelines.errors import DataError
from data_pipelines.packing.packed_copy import pack
from data_pipelines.prepared.copies_of import save_links
from data_pipelines.prepared.dataset import open_dataset
from ecgjax.data.recordings import open_recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.data.settings import DataSettings, SamplingSettings
from ecgjax.errors import ConfigError
from tests.support.fixtures import make_simulated_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=60, rate=50, seconds=4)


def settings_of(dataset, **changes):
    return DataSettings(**{"dir": str(dataset.directory), **changes})


def test_without_links_groups_are_those_of_the_index(dataset):
    opened = open_recordings(settings_of(dataset))
    assert not opened.linked
    np.testing.assert_array_equal(opened.index.group, dataset.index.group)
    assert opened.store.num_records == dataset.index.num_records


def test_a_shard_that_cannot_be_read_is_named_unless_that_is_allowed(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset.directory, copy)
    pack(open_dataset(copy), shard_bytes=2**16)
    shard = sorted((copy / "packed").glob("*.npy"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match=re.escape(str(shard))):
        open_recordings(settings_of(dataset, dir=str(copy)))
    (bad,) = open_recordings(settings_of(dataset, dir=str(copy), allow_bad_shards=True)).store.bad_shards
    assert bad.path == shard


def test_linked_patients_are_one_patient_and_on_one_side(dataset, tmp_path):
    index = dataset.index
    plain = open_recordings(settings_of(dataset)).split
    found = link([dataset])
    own = found.datasets[0]
    in_train, in_test = plain.train[0], plain.test[0]
    group = np.where(own.group == own.group[in_train], own.group[in_test], own.group)
    save_links(dataclasses.replace(found, datasets=(dataclasses.replace(own, group=group),)), tmp_path / "links.npz")
    opened = open_recordings(settings_of(dataset, links=str(tmp_path / "links.npz")))
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
        open_recordings(settings_of(dataset, links=str(tmp_path / "links.npz")))


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return make_simulated_dataset(
        tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4, seed=5, name="b"
    )


FOLDS = {"train_folds": (1, 2, 3, 4, 5, 6), "val_folds": (7, 8), "test_folds": (9, 10)}


def opened_from(*datasets, **changes):
    directories = ",".join(str(dataset.directory) for dataset in datasets)
    return open_recordings(DataSettings(dir=directories, **FOLDS | changes))


def training_side(opened, *, weights=(), records=None, **sampling):
    records = opened.split.train if records is None else records
    return SampledSide(SamplingSettings(**sampling), opened, records, weights=weights)


def sampler_of(side):
    """A sampler of batches of 16."""
    return side.sampler(batch_size=16, seed=0)


def drawn(sampler, num_batches):
    return np.stack([sampler.record_numbers(step) for step in range(num_batches)])


def test_several_data_sets_are_opened_as_one(dataset, second):
    opened = opened_from(dataset, second)
    assert opened.fingerprints == (dataset.fingerprint, second.fingerprint)
    assert (opened.name, opened.simulated, opened.linked) == ("simulated + simulated", True, False)
    count = dataset.index.num_records
    assert opened.store.num_records == opened.index.num_records == count + second.index.num_records
    assert opened.dataset_of(np.array([count, 0, opened.index.num_records - 1, count - 1])).tolist() == [1, 0, 1, 0]
    first_train, second_train = opened.by_dataset(opened.split.train)
    for own, start, source in ((first_train, 0, dataset), (second_train, count, second)):
        np.testing.assert_array_equal(own - start, source.index.split(**FOLDS).train)


def test_links_join_data_sets_too(dataset, second, tmp_path):
    found = link([dataset, second])
    first, other = found.datasets
    # As if a patient of the second data set were one of the first.
    group = np.where(other.group == other.group[0], first.group[0], other.group)
    save_links(
        dataclasses.replace(found, datasets=(first, dataclasses.replace(other, group=group))), tmp_path / "links.npz"
    )
    opened = opened_from(dataset, second, links=str(tmp_path / "links.npz"))
    assert opened.linked
    groups = np.split(opened.index.group, [dataset.index.num_records])
    np.testing.assert_array_equal(np.flatnonzero(np.isin(groups[1], groups[0])), np.flatnonzero(group == group[0]))


def test_without_weights_every_recording_of_all_comes_once_an_epoch(dataset, second):
    opened = opened_from(dataset, second)
    side = training_side(opened)
    sampler = sampler_of(side)
    count = len(opened.split.train)
    assert sampler.examples_per_epoch == count
    epoch = drawn(sampler, -(-count // 16)).ravel()[:count]
    np.testing.assert_array_equal(np.sort(epoch), opened.split.train)
    assert side.describe() == []
    np.testing.assert_array_equal(side.records, opened.split.train)


@pytest.mark.parametrize("name", ["records", "patients"])
def test_weights_are_the_shares_of_every_batch(dataset, second, name):
    opened = opened_from(dataset, second)
    side = training_side(opened, weights=(1, 3), name=name)
    batches = drawn(sampler_of(side), 30)
    assert ((batches < dataset.index.num_records).sum(axis=1) == 4).all()
    assert np.isin(batches, opened.split.train).all()
    if name == "patients":
        groups = opened.index.group[batches].reshape(30, 8, 2)
        assert (groups[..., 0] == groups[..., 1]).all()
    first, other = side.describe()
    assert first.startswith(f"{dataset.directory}: 0.25 of every batch from ")
    assert other.startswith(f"{second.directory}: 0.75 of every batch from ")


def test_a_share_too_small_for_a_batch_is_exact_over_several(dataset, second):
    opened = opened_from(dataset, second)
    batches = drawn(sampler_of(training_side(opened, weights=(0.99, 0.01))), 13 * 8)
    # A block is the fewest whole batches that hold 2 of the second: 13.
    assert ((batches >= dataset.index.num_records).reshape(8, -1).sum(axis=1) >= 2).all()
    assert abs((batches >= dataset.index.num_records).sum() - 0.01 * batches.size) < 1


def test_batches_are_balanced_over_a_threshold_and_records_without_label_left_out(dataset, second):
    ages = np.array(dataset.index.age_years)
    ages[::5] = np.nan
    opened = opened_from(dataset)
    opened = dataclasses.replace(opened, index=dataclasses.replace(opened.index, age_years=ages))
    side = training_side(opened, balance="age_years>60")
    batches = drawn(sampler_of(side), 40)
    assert ((ages[batches] > 60).sum(axis=1) == 8).all()
    train = opened.split.train
    labelled = train[~np.isnan(ages[train])]
    np.testing.assert_array_equal(np.unique(batches), labelled)
    np.testing.assert_array_equal(side.records, labelled)
    lines = side.describe()
    assert lines[0] == f"age_years>60 = 0: 0.5 of every batch from {(ages[train] <= 60).sum()} recordings"
    assert lines[1] == f"age_years>60 = 1: 0.5 of every batch from {(ages[train] > 60).sum()} recordings"
    assert lines[2] == f"{len(train) - len(labelled)} recordings without the label are left out"


def test_batches_are_balanced_over_several_classes_of_pairs(dataset):
    grade = (dataset.index.group % 3).astype(np.float32)
    opened = opened_from(dataset)
    scalars = {"hyperkalaemia_grade": grade}
    opened = dataclasses.replace(opened, index=dataclasses.replace(opened.index, scalars=scalars))
    side = training_side(opened, name="patients", balance="hyperkalaemia_grade")
    units = grade[drawn(sampler_of(side), 12)].reshape(12, 8, 2)
    assert (units[..., 0] == units[..., 1]).all()
    counts = np.stack([np.bincount(batch.astype(int), minlength=3) for batch in units[..., 0]])
    assert counts.min() == 2
    assert counts.max() == 3
    assert np.ptp(counts.sum(axis=0)) == 0


def test_what_cannot_be_sampled_is_refused(dataset, second):
    def refused(error, message, *datasets, **changes):
        opened = opened_from(*datasets)
        with pytest.raises(error, match=message):
            sampler_of(training_side(opened, **changes))

    refused(ConfigError, r"weights=\(1,\) are 1 for 2 data sets \(.*simulated, .*b\)", dataset, second, weights=(1,))
    refused(ConfigError, "both say how often", dataset, second, weights=(1, 2), balance="age_years>60")
    refused(DataError, "each must be a number above 0", dataset, second, weights=(1, 0))
    refused(ConfigError, "config.sampling.name='pairs' is unknown", dataset, name="pairs")
    for other, words in (
        ({"name": "patients"}, "config.sampling.name='patients'"),
        ({"balance": "age_years>60"}, "config.data.weights or config.sampling.balance"),
        ({"weights": (1, 2)}, "config.data.weights or config.sampling.balance"),
    ):
        refused(
            ConfigError, f"in the order of the disk, and {words} does not", dataset, second, shuffle="blocks", **other
        )
    for question, error, message in (
        ("ejection>60", DataError, "no label 'ejection'"),
        ("age_years>1000", DataError, "0 have no answer to .*='age_years>1000' and the others all have the same one"),
        ("age_years>", DataError, "config.sampling.balance='age_years>' is no question; write LABEL<NUMBER"),
        ("age_years>1e999", DataError, "config.sampling.balance='age_years>inf': the threshold must be a finite"),
        ("age_years=60", DataError, "config.sampling.balance='age_years=60' is no question"),
        ("superdiagnostic:*", ConfigError, "config.sampling.balance='superdiagnostic:.*' has several answers a record"),
        ("age_years", DataError, "'age_years' has values that are no whole numbers.*balance='age_years<40'"),
    ):
        refused(error, message, dataset, balance=question)
    opened = opened_from(dataset, second)
    with pytest.raises(DataError, match="b: no record of it is on this side of the split"):
        training_side(opened, weights=(1, 1), records=opened.by_dataset(opened.split.train)[0])


def test_blocks_are_of_neighbours_on_the_disk_and_every_recording_comes_once(dataset, second):
    opened = opened_from(dataset, second)
    side = training_side(opened, shuffle="blocks", block=4, window=2)
    num_records = len(side.records)
    sampler = side.sampler(batch_size=8, seed=0)
    epoch = drawn(sampler, -(-num_records // 8)).ravel()[:num_records]
    assert np.array_equal(np.sort(epoch), side.records)
    places = np.searchsorted(side.records, epoch[:8])
    assert (np.diff(np.sort(places)) == 1).sum() >= 6, "two blocks of four neighbours, of which one may go round"
    full = drawn(training_side(opened).sampler(batch_size=8, seed=0), 1)
    assert not np.array_equal(full.ravel(), epoch[:8])


def test_data_sets_are_named_plainly(dataset):
    for directories in ("", "a,,b", f"{dataset.directory},"):
        with pytest.raises(ConfigError, match=r"config\.data\.dir=.* names no data set"):
            open_recordings(DataSettings(dir=directories))


def test_fingerprints_of_samplers_tell_settings_apart(dataset, second):
    one, both, turned = opened_from(dataset), opened_from(dataset, second), opened_from(second, dataset)
    asked = [
        training_side(one),
        training_side(both),
        training_side(both, weights=(1, 1)),
        training_side(both, weights=(1, 2)),
        training_side(both, shuffle="blocks"),
        training_side(both, shuffle="blocks", block=8),
        training_side(both, shuffle="blocks", window=8),
        training_side(turned, weights=(1, 2)),
        training_side(both, balance="age_years>60"),
        training_side(both, balance="age_years>50"),
    ]
    prints = [sampler_of(side).fingerprint() for side in asked]
    assert all(one != two for one, two in itertools.combinations(prints, 2))
    assert sampler_of(training_side(both, weights=(0.5, 0.5))).fingerprint() == prints[2]
