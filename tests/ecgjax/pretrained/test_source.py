"""Encoders of runs and of exports, opened alike."""

import json
import shutil

import numpy as np
import pytest

from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.export.model_folder import export_run
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.pretrained.source import open_source
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    dataset = make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=100, seconds=4)
    return write_run(tmp_path_factory.mktemp("runs") / "a_run", tiny(dataset.directory))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "model"
    return export_run(run, out, with_signatures=True, statistics="running", formats=())


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


def test_a_run_and_its_export_are_the_same_encoder(run, exported):
    one, other = open_source(run), open_source(exported)
    signals = np.random.default_rng(0).integers(-900, 900, (3, 400, 8)).astype(np.int16)
    np.testing.assert_array_equal(one.encoder.embed(signals), other.encoder.embed(signals))
    assert one.weights_digest == other.weights_digest
    assert one.settings == other.settings
    assert (one.encoder.step, one.encoder.layer) == (other.encoder.step, other.encoder.layer)
    assert list(one.encoder.pretrained_on) == list(other.encoder.pretrained_on)
    assert one.preprocessor == other.preprocessor
    assert one.format == other.format
    assert [each["fingerprint"] for each in one.data] == [each["fingerprint"] for each in other.data]
    assert one.simulated
    assert other.simulated
    assert one.run is not None
    assert other.run is None


def test_signatures_of_an_export_list_what_the_run_was_trained_on(run, exported):
    assert open_source(exported).encoder.trained_on().digest == open_source(run).encoder.trained_on().digest


def test_an_export_without_signatures_has_no_list(run, tmp_path):
    folder = export_run(run, tmp_path / "model", statistics="running", formats=())
    assert open_source(folder).encoder.trained_on is None


def test_a_list_that_was_exchanged_or_taken_away_is_refused_and_never_taken_for_none(copy):
    content = (copy / RECORDS_FILE).read_bytes()
    (copy / RECORDS_FILE).unlink()
    with pytest.raises(CheckpointError, match="is missing; copy the folder again"):
        open_source(copy).encoder.trained_on()
    (copy / RECORDS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is damaged"):
        open_source(copy).encoder.trained_on()


def test_another_step_than_the_exported_one_is_refused(exported):
    with pytest.raises(ConfigError, match="is an export of step 12, and step 1 was asked for"):
        open_source(exported, step=1)


def test_a_layer_is_chosen(exported):
    assert open_source(exported, layer="embedding").encoder.layer == "embedding"
    with pytest.raises(ConfigError, match="there are: features, embedding"):
        open_source(exported, layer="logits")


def test_a_place_that_is_neither_is_refused_by_name(tmp_path, run):
    with pytest.raises(ConfigError, match="no such folder"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        open_source(tmp_path)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(run / "config.json", begun)
    with pytest.raises(CheckpointError, match="there are no checkpoints"):
        open_source(begun)
    (tmp_path / "config.json").write_text(json.dumps({"format": "other"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="is no model of ecgjax"):
        open_source(tmp_path)
