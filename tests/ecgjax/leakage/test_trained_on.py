"""The list of what a run is pretrained on: what it holds, how it is kept, when it is refused."""

import dataclasses
import types

import numpy as np
import pytest

from ecgjax.data.recordings import open_recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.data.settings import SamplingSettings
from ecgjax.defaults import settings_of
from ecgjax.errors import CheckpointError
from ecgjax.leakage.trained_on import RECORDS_FILE, open_pretraining_records, patient_keys, pretraining_records
from tests.support import tiny_config
from tests.support.fixtures import flip_bit, make_simulated_dataset


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [
        make_simulated_dataset(folder, num_patients=60, rate=50, seconds=4, seed=seed, name=f"cohort{seed}")
        for seed in (0, 1)
    ]


def config_of(*datasets, **sampling):
    config = tiny_config.get_config()
    config.data.dir = ",".join(str(dataset.directory) for dataset in datasets)
    config.sampling.update(sampling)
    return config


def listed(config):
    settings = settings_of(config)
    opened = open_recordings(settings.data)
    side = SampledSide(settings.sampling, opened, opened.split.train)
    return opened, pretraining_records(opened, side.records, run="f00d")


def test_it_lists_the_training_records_of_every_data_set(datasets):
    opened, found = listed(config_of(*datasets))
    own = opened.by_dataset(opened.split.train)
    numbers = [own[0], own[1] - datasets[0].index.num_records]
    assert [source.num_records for source in found.sources] == list(map(len, numbers))
    assert [source.fingerprint for source in found.sources] == [dataset.fingerprint for dataset in datasets]
    np.testing.assert_array_equal(found.number, np.concatenate(numbers))
    for column, name in (("content", "content_hash"), ("envelope", "envelope")):
        expected = [np.asarray(getattr(d.index, name))[n] for d, n in zip(datasets, numbers, strict=True)]
        np.testing.assert_array_equal(getattr(found, column), np.concatenate(expected))
    folds = np.concatenate([d.index.fold[n] for d, n in zip(datasets, numbers, strict=True)])
    assert set(folds.tolist()) <= set(range(1, 9))
    assert len(found) == len(found.number) > 50


def test_records_without_a_class_are_not_trained_on(datasets):
    opened = open_recordings(settings_of(config_of(datasets[0])).data)
    ages = np.asarray(opened.index.age_years).copy()
    ages[opened.split.train[::3]] = np.nan
    opened = dataclasses.replace(opened, index=dataclasses.replace(opened.index, age_years=ages))
    found = SampledSide(SamplingSettings(balance="age_years>55"), opened, opened.split.train).records
    np.testing.assert_array_equal(found, np.setdiff1d(opened.split.train, opened.split.train[::3]))


def test_it_takes_some_hundred_bytes_a_record(datasets, tmp_path):
    _, found = listed(config_of(*datasets))
    found.write(tmp_path)
    assert (tmp_path / RECORDS_FILE).stat().st_size <= 488 * len(found) + 4096


def test_what_is_written_is_read(datasets, tmp_path):
    _, found = listed(config_of(*datasets))
    found.write(tmp_path)
    again = open_pretraining_records(tmp_path, run="f00d", digest=found.digest)
    assert again.sources == found.sources
    for field in ("content", "patient", "number", "order_free_signature", "envelope"):
        np.testing.assert_array_equal(getattr(again, field), getattr(found, field))
        assert getattr(again, field).dtype == getattr(found, field).dtype
    written = (tmp_path / RECORDS_FILE).stat()
    found.write(tmp_path)
    assert (tmp_path / RECORDS_FILE).stat().st_mtime_ns == written.st_mtime_ns, "the same list is left as it is"
    assert [path.name for path in tmp_path.iterdir()] == [RECORDS_FILE]


def test_no_patient_id_is_in_the_file(datasets, tmp_path):
    opened, found = listed(config_of(*datasets))
    found.write(tmp_path)
    content = (tmp_path / RECORDS_FILE).read_bytes()
    assert not any(each.encode() in content for each in map(str, datasets[0].index.patient_id))
    assert len(np.unique(found.patient, axis=0)) == len(np.unique(opened.index.patient_id[opened.split.train]))


def test_a_patient_is_an_id_within_a_data_set(datasets):
    def keys(name, fingerprint, ids):
        index = types.SimpleNamespace(patient_id=np.array(ids))
        dataset = types.SimpleNamespace(card={"name": name}, fingerprint=fingerprint, index=index)
        return [bytes(key) for key in patient_keys(dataset, np.arange(len(ids)))]

    one, two, again = keys("clinic", "a", ["7", "8", "7"])
    assert one == again != two
    assert keys("clinic", "b", ["7"]) == [one], "prepared otherwise, it is the same person"
    assert keys("other", "a", ["7"]) != [one]
    assert keys("folder", "a", ["7"]) != keys("folder", "b", ["7"]), "no name, nobody's"


def test_a_list_that_is_not_the_checkpoints_is_refused(datasets, tmp_path):
    _, found = listed(config_of(datasets[0]))
    _, other = listed(config_of(datasets[1]))
    with pytest.raises(CheckpointError, match=r"is missing; it belongs to the checkpoints"):
        open_pretraining_records(tmp_path, run="f00d", digest=None)
    other.write(tmp_path)
    with pytest.raises(CheckpointError, match="lists the records of another run"):
        open_pretraining_records(tmp_path, run="f00d", digest=found.digest)
    found.write(tmp_path)
    with pytest.raises(CheckpointError, match="lists the records of another run"):
        open_pretraining_records(tmp_path, run="cafe", digest=None)
    assert open_pretraining_records(tmp_path, run="f00d", digest=None).digest == found.digest


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found_and_mended(datasets, tmp_path, share):
    _, found = listed(config_of(datasets[0]))
    found.write(tmp_path)
    path = tmp_path / RECORDS_FILE
    whole = path.read_bytes()
    flip_bit(path, round(share * len(whole)))
    with pytest.raises(CheckpointError, match=r"is damaged .*restore it"):
        open_pretraining_records(tmp_path, run="f00d", digest=found.digest)
    found.write(tmp_path)
    assert path.read_bytes() == whole


def test_a_data_set_without_envelopes_is_listed_all_the_same(datasets):
    opened = open_recordings(settings_of(config_of(datasets[0])).data)
    index = dataclasses.replace(opened.index, order_free_signature=None, envelope=None)
    opened = dataclasses.replace(opened, datasets=(dataclasses.replace(opened.datasets[0], index=index),))
    found = pretraining_records(opened, opened.split.train, run="f00d")
    assert [source.traced for source in found.sources] == [False]
    assert not found.order_free_signature.any()
    assert found.digest == listed(config_of(datasets[0]))[1].digest
