"""What a config names is what is trained on: links join patients and keep copies apart."""

import dataclasses

import numpy as np
import pytest

from configs import simclr_ptbxl
from data_pipelines.errors import DataError
from data_pipelines.links import link, save_links
from ecgjax.recordings import open_recordings
from tests.fixtures import make_simulated_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=60, rate=50, seconds=4)


def data_config(dataset, **changes):
    data = simclr_ptbxl.get_config().data
    data.dir = str(dataset.directory)
    data.update(changes)
    return data


def test_without_links_groups_are_those_of_the_index(dataset):
    opened = open_recordings(data_config(dataset))
    assert not opened.linked
    np.testing.assert_array_equal(opened.dataset.index.group, dataset.index.group)
    assert opened.store.num_records == dataset.index.num_records


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
    joined = opened.dataset.index.group
    assert joined[in_train] == joined[in_test]
    lost = set(plain.train.tolist()) - set(opened.split.train.tolist())
    assert lost == set(np.flatnonzero(index.patient == index.patient[in_train]).tolist()) & set(plain.train.tolist())
    assert in_test in opened.split.test


def test_links_of_other_data_are_refused(dataset, tmp_path):
    other = make_simulated_dataset(tmp_path, num_patients=5, rate=50, seconds=4, seed=3)
    save_links(link([other]), tmp_path / "links.npz")
    with pytest.raises(DataError, match=r"run python -m data_pipelines\.link again"):
        open_recordings(data_config(dataset, links=str(tmp_path / "links.npz")))
