"""What a run takes over from the encoder that it begins with, and what it keeps of that when the source is gone."""

import json
import shutil

import numpy as np
import pytest

from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.export.model_folder import export_run
from ecgjax.export.tensors import flat_tensors
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.pretrained.beginning import INIT_FILE, open_beginning, origin_of
from ecgjax.pretrained.source import open_source
from ecgjax.settings.initialisation import InitSettings
from ecgjax.training.checkpoints.checkpoint import Saved
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=100, seconds=4)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    config = tiny(dataset.directory, columns__task="lvef<40", sampling__balance="age_years>55")
    return write_run(tmp_path_factory.mktemp("runs") / "a_run", config)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {
        listed: export_run(run, folder / f"model_{listed}", with_signatures=listed, statistics="running", formats=())
        for listed in (True, False)
    }


def beginning(place, **settings):
    return open_beginning(InitSettings(source=str(place), **settings))


def test_a_run_and_its_export_begin_alike(run, exported):
    one, other = beginning(run), beginning(exported[True])
    split = open_source(run).encoder.split
    expected = {f"{kind}/encoder/{name}" for kind, _, name in (each.partition("/") for each in flat_tensors(split))}
    assert {"/".join(key) for key in one.weights.arrays} == expected
    for key, array in one.weights.arrays.items():
        np.testing.assert_array_equal(array, other.weights.arrays[key])
    assert one.weights.encoder == other.weights.encoder
    assert one.weights.signal_format.sampling_rate_hz == other.weights.signal_format.sampling_rate_hz == 100
    assert one.seen.digest == other.seen.digest
    assert one.said["weights_digest"] == other.said["weights_digest"]
    assert (one.said["step"], one.said["listed"], other.said["listed"]) == (12, True, True)
    assert beginning(run, step=6).said["step"] == 6


def test_labels_that_the_source_has_seen_are_known_of_a_run_and_of_an_export(run, exported):
    for place in (run, *exported.values()):
        found = beginning(place)
        assert found.said["labels"] == ["age_years>55"], "its task is unused: no method looks at labels"
        assert found.seen.labels == ("age_years>55",)


def test_an_export_without_a_list_leaves_its_name(exported):
    found = beginning(exported[False])
    assert found.seen.unlisted == ("model_False",)
    assert len(found.seen) == 0
    assert found.said["listed"] is False


def test_statements_name_no_path(run, exported):
    for place in (run, exported[True]):
        assert str(place.parent) not in json.dumps(beginning(place).said)


def test_a_list_that_is_damaged_is_refused_and_never_taken_for_none(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / RECORDS_FILE).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="is damaged"):
        beginning(copy)
    (copy / RECORDS_FILE).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        beginning(copy)


def test_a_source_that_is_none_is_refused_by_the_name_of_the_setting(tmp_path, run, exported):
    for place, message in (
        ("", "names no folder"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, r"has no config\.json"),
    ):
        with pytest.raises(ConfigError, match=rf"config\.init\.source.*{message}"):
            beginning(place)
    with pytest.raises(
        CheckpointError, match=r"config\.init\.source=.*has no checkpoint of step 7; finished ones: 6, 12"
    ):
        beginning(run, step=7)
    with pytest.raises(ConfigError, match="is an exported model, which holds an encoder alone"):
        beginning(exported[True], parts=("encoder", "objective"))
    # The run was written without its objective.
    assert beginning(run, parts=("objective",)).weights.arrays == {}


def test_an_export_that_does_not_say_how_it_was_trained_is_refused(exported, tmp_path):
    copy = shutil.copytree(exported[True], tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    for settings, message in (("none", "does not say with which settings"), ({"batch_size": "x"}, "batch_size")):
        config["training"]["settings"] = settings
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match=rf"{message}.*export it again"):
            beginning(copy)


def test_a_run_that_resumes_needs_no_source_and_keeps_what_was_seen(run, tmp_path):
    begun = beginning(run)
    workdir = tmp_path / "later"
    workdir.mkdir()
    settings = InitSettings(source=str(tmp_path / "gone"))
    own = begun.seen
    whole = own.after(begun.seen)
    whole.write(workdir)
    saved = Saved(3, {"records": whole.digest, "about": {"begun_from": begun.said}})
    origin = origin_of(workdir, settings, saved=saved)
    assert (origin.weights, origin.said) == (None, begun.said)
    assert own.after(origin.seen).digest == whole.digest
    (told, *_) = origin.describe(None, frozen=())
    assert told.startswith("began with the weights of a_run, step 12, digest ")
    origin.write(None, workdir, frozen=())
    assert not (workdir / INIT_FILE).exists()


def test_a_resumed_run_whose_list_is_gone_or_anothers_is_refused(run, tmp_path):
    settings = InitSettings(source=str(run))
    saved = Saved(3, {"records": "0", "about": {"begun_from": beginning(run).said}})
    with pytest.raises(
        CheckpointError, match=r"is missing; it also lists what the encoder had seen before.*begin anew"
    ):
        origin_of(tmp_path, settings, saved=saved)
    shutil.copy(run / RECORDS_FILE, tmp_path)
    with pytest.raises(CheckpointError, match="lists the records of another run"):
        origin_of(tmp_path, settings, saved=saved)


@pytest.mark.parametrize("setting", [{"step": 3}, {"remap": ("a=>b",)}, {"fresh": ("a",)}, {"parts": ("objective",)}])
def test_a_setting_about_a_source_without_one_is_refused(tmp_path, setting):
    with pytest.raises(ConfigError, match=rf"config\.init\.{next(iter(setting))}=.*is about config\.init\.source"):
        origin_of(tmp_path, InitSettings(**setting), saved=None)
    assert origin_of(tmp_path, InitSettings(), saved=None).said is None
