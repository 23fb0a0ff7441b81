"""Cohorts of simulated sites: nobody of one passes for somebody of another, and joined they are told apart."""

import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from data_pipelines import build as build_command
from data_pipelines.card.build_command import build_command as command_of
from data_pipelines.prepared.dataset import open_dataset
from ecgjax.data.groups import MISSING, group_columns
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.leakage.overlaps import find_overlaps
from ecgjax.leakage.trained_on import patient_keys, pretraining_records
from tests.support.fixtures import make_simulated_dataset

_SITES = ("", "emergency", "screening")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    size = {"num_patients": 8, "rate": 100, "seconds": 4}
    return {site: make_simulated_dataset(folder, name=f"data_{site}", site=site or None, **size) for site in _SITES}


def _opened(*chosen):
    # Folds are those of hashes, and so few patients are not in all of them.
    shared = set.intersection(*(set(each.index.fold.tolist()) for each in chosen))
    folds = {"train_folds": (min(shared),), "val_folds": (), "test_folds": ()}
    return open_recordings(DataSettings(dir=",".join(str(each.directory) for each in chosen), **folds))


def _keys(dataset):
    return {bytes(key) for key in patient_keys(dataset, np.arange(dataset.index.num_records))}


def test_patients_of_one_seed_at_two_sites_are_different_patients(datasets):
    keys = [_keys(datasets[site]) for site in _SITES]
    assert [len(each) for each in keys] == [8, 8, 8]
    assert len(set.union(*keys)) == 24


def test_a_patient_of_a_site_is_known_again_in_a_data_set_of_another_rate(datasets, tmp_path):
    again = make_simulated_dataset(tmp_path, num_patients=9, rate=50, seconds=4, site="screening")
    assert _keys(datasets["screening"]) < _keys(again)


def test_the_firewall_finds_none_of_the_one_site_at_the_other(datasets):
    here, there = _opened(datasets["emergency"]), _opened(datasets["screening"])
    trained_on = pretraining_records(here, np.arange(here.index.num_records), run="f00d")
    assert not find_overlaps(there, trained_on, np.arange(there.index.num_records)).found
    everyone = np.arange(here.index.num_records)
    assert len(find_overlaps(here, trained_on, everyone).found) == len(everyone)


def test_sites_are_groups_of_a_report(datasets):
    joint = _opened(*datasets.values())
    records = np.arange(joint.index.num_records)
    columns = group_columns(("=site", "dataset"), joint, records)
    assert list(dict.fromkeys(columns["=site"])) == [MISSING, "1", "3"]
    assert list(dict.fromkeys(columns["dataset"])) == ["simulated", "simulated_emergency", "simulated_screening"]


def test_the_command_stores_what_was_asked_for(tmp_path, capsys):
    out = tmp_path / "out"
    given = ["--builder=simulated", "--num_patients=3", "--site=elderly_clinic", "--target_rate_hz=100", "--seconds=4"]
    with flagsaver.flagsaver():
        flags.FLAGS(["build", *given, f"--out={out}", "--num_workers=1"])
        build_command.main(["build"])
    told = capsys.readouterr().out
    assert "simulated_elderly_clinic (SIMULATED), 400 samples at 100 Hz" in told
    assert "note: Recorded at the SIMULATED site elderly_clinic" in told
    dataset = open_dataset(out)
    assert dataset.card["request"]["site"] == "elderly_clinic"
    assert "--site=elderly_clinic" in command_of(dataset.card)
    assert set(dataset.index.label("site")) == {2.0}
    described = json.loads((out / "dataset_info.json").read_text())["description"]
    assert "SIMULATED site elderly_clinic" in described
    assert all(str(each).startswith("simulated-elderly_clinic-0-") for each in dataset.index.patient_id)
