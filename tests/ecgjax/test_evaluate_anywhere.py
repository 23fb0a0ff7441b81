"""Evaluations of exported models, and of runs whose recordings lie elsewhere: what they need, refuse and say."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from data_pipelines.errors import DataError
from ecgjax import evaluate as entry
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.export.model_folder import export_run
from ecgjax.leakage import guard
from ecgjax.pages import write
from ecgjax.pages.images import Image
from ecgjax.pretrained.fit import check_fits, other_data
from ecgjax.pretrained.source import chosen_place, open_source, settings_of_source
from ecgjax.settings.sections import tree_of
from ecgjax.studies import finished_run
from ecgjax.studies.batch_norm import batch_norm
from ecgjax.studies.label_efficiency import Study
from ecgjax.studies.report import neighbour_section
from ecgjax.studies.store import Cell
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

SIZE = {"rate": 100, "seconds": 4}
TASK = "age_years>60"
JUDGED = {"train_folds": (1, 2, 3, 4), "val_folds": (5, 6, 7), "test_folds": (8, 9, 10)}


@pytest.fixture(scope="module")
def pretrained_on(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("own"), num_patients=50, **SIZE)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("elsewhere"), num_patients=60, seed=5, **SIZE)


@pytest.fixture(scope="module")
def run(pretrained_on, tmp_path_factory):
    leaves = {f"data__{name}": folds for name, folds in JUDGED.items()}
    return write_run(tmp_path_factory.mktemp("runs") / "run", tiny(pretrained_on.directory, **leaves), steps=(6,))


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    return export_run(run, tmp_path_factory.mktemp("exports") / "model", formats=())


@pytest.fixture(scope="module")
def with_signatures(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "signed"
    return export_run(run, out, with_signatures=True, statistics="running", formats=())


@pytest.fixture
def moved_run(run, tmp_path):
    """A copy of the run on a machine where its recordings are not."""
    copy = shutil.copytree(run, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["data"]["dir"] = "gone/data"
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


@pytest.fixture
def quick(monkeypatch):
    """Leaves out what takes long and is the same for runs and for exported models."""
    blank = Image(data=b"", kind="png", width=1, height=1)
    monkeypatch.setattr(write, "image_of", lambda picture: blank)
    monkeypatch.setattr(neighbour_section, "draw_ecg", lambda signal, **settings: Figure())
    monkeypatch.setattr(entry, "BESIDE", ("random",))
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 2)


def settings_on(place, dataset, **probe):
    settings = settings_of_source(place)
    changes = {"task": TASK, "bootstrap": 100, "shuffles": 2, "groups": (), **probe}
    return dataclasses.replace(
        settings,
        data=dataclasses.replace(settings.data, dir=str(dataset.directory), **JUDGED),
        probe=dataclasses.replace(settings.probe, **changes),
    )


def test_an_export_is_evaluated_by_the_features_that_its_run_is_evaluated_by(run, model, pretrained_on):
    recordings = open_recordings(settings_on(run, pretrained_on).data)

    def features_of(place, statistics):
        chosen = batch_norm(open_source(place, layer="features"), statistics, default="evaluation", judged="records")
        features = LabelledFeatures(recordings, recordings.split.test, norm=chosen.norm, progress=False)
        return features.embeddings(chosen.encoder, name="pretrained", settings={})

    of_run = features_of(run, None)
    np.testing.assert_array_equal(features_of(model, None), of_run)
    # These were all simulated and are the same records here.
    np.testing.assert_array_equal(features_of(run, "pretraining"), of_run)
    assert np.abs(features_of(run, "stored") - of_run).max() > 1e-3


def test_an_exported_model_is_evaluated_where_its_run_and_recordings_are_not(model, elsewhere, quick, tmp_path, capsys):
    found = entry.evaluate(settings_on(model, elsewhere), model, out=tmp_path / "reports")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Overlap between what was pretrained on and the records judged cannot be checked")
    assert "--with_signatures" in said[0]
    assert any(line.startswith("Batch norm of the pretrained encoder has its stored statistics") for line in said)
    assert any("has seed 0" in line for line in said)
    folder = tmp_path / "reports" / "age_years_above_60"
    assert found.report.html == folder / "report.html"
    told = json.loads((folder / "results.json").read_text(encoding="utf-8"))["provenance"]
    assert said[0] in told["cautions"]
    assert told["fingerprint"] == elsewhere.fingerprint
    assert told["statistics"] == "stored"
    assert told["checkpoint_step"] == 6
    assert f"--model={model}" in told["command"]
    assert f"--out={tmp_path / 'reports'}" in told["command"]
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert guard.UNCHECKED in page
    assert "Training curve" not in page
    assert set(found.task.models) == {"pretrained", "nearest", "random"}


def test_signatures_refuse_what_was_pretrained_on_without_its_recordings(with_signatures, pretrained_on, tmp_path):
    copy = shutil.copytree(pretrained_on.directory, tmp_path / "copy")
    moved = dataclasses.replace(pretrained_on, directory=copy)
    settings = settings_on(with_signatures, moved)
    # The folds that were trained on are tested here.
    data = dataclasses.replace(settings.data, train_folds=(5, 6, 7), val_folds=(8, 9, 10), test_folds=(1, 2, 3, 4))
    settings = dataclasses.replace(settings, data=data)
    with pytest.raises(ConfigError, match=r"validation and test records overlap with what the encoder was pretrained"):
        entry.evaluate(settings, with_signatures, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_where_reports_of_a_model_go_must_be_said_and_is_outside_of_it(model, elsewhere):
    settings = settings_on(model, elsewhere)
    with pytest.raises(ConfigError, match="--out=DIR is needed"):
        entry.evaluate(settings, model, progress=False)
    with pytest.raises(ConfigError, match="inside of the exported model"):
        entry.evaluate(settings, model, out=model / "reports", progress=False)


def test_a_model_needs_a_data_set(model):
    settings = settings_of_source(model)
    with pytest.raises(ConfigError, match=r"--dataset=DIR, the data set to evaluate .*model on, is needed"):
        finished_run.open_judged(settings.data, settings.data, model)


def test_recordings_that_do_not_fit_are_refused_with_the_remedy(model, run, tmp_path):
    other_rate = make_simulated_dataset(tmp_path / "rate", num_patients=12, rate=200, seconds=4)
    folds = tuple(np.unique(other_rate.index.fold).tolist())
    recordings = open_recordings(
        DataSettings(dir=str(other_rate.directory), train_folds=folds, val_folds=(), test_folds=())
    )
    for place, flag in ((model, "--model"), (run, "--workdir")):
        with pytest.raises(ConfigError, match=rf"^{flag}=.*400 samples at 100 Hz.*800 at 200 Hz.*--target_rate_hz=100"):
            check_fits(open_source(place), recordings)


def test_other_filters_are_refused_by_name(model, elsewhere):
    recordings = open_recordings(settings_on(model, elsewhere).data)
    card = {**elsewhere.card, "recipe": {**elsewhere.card["recipe"], "highpass_hz": 0.5}}
    filtered = dataclasses.replace(recordings, datasets=(dataclasses.replace(recordings.datasets[0], card=card),))
    with pytest.raises(ConfigError, match=r"highpass_hz=0.5 \(the model's: None\); build it"):
        check_fits(open_source(model), filtered)


def test_recordings_of_a_pretraining_are_asked_for_by_name_and_purpose(moved_run, pretrained_on, elsewhere):
    source = open_source(moved_run)
    ask = {"default": "pretraining", "judged": "records"}
    needed = (
        rf"recordings of simulated \(fingerprint {pretrained_on.fingerprint}\) are needed to recompute the batch-norm "
        r"statistics of .*copy.*gone/data.*a relative path.*--pretraining_data=DIR.*--statistics=stored.*evaluation"
    )
    with pytest.raises(DataError, match=needed):
        batch_norm(source, None, **ask)
    with pytest.raises(DataError, match=rf"there are others there \(fingerprints {elsewhere.fingerprint}\)"):
        batch_norm(source, None, **ask, pretraining_data=[str(elsewhere.directory)])
    with pytest.raises(DataError, match="nowhere"):
        batch_norm(source, None, **ask, pretraining_data=["nowhere"])
    both = f"{elsewhere.directory},{pretrained_on.directory}"
    found = batch_norm(source, None, **ask, pretraining_data=[both])
    assert found.norm.fingerprints == (pretrained_on.fingerprint,)
    assert f"set by the {len(found.norm.records)} training records of the pretraining (simulated)" in found.words
    for statistics in ("stored", "evaluation"):
        assert batch_norm(source, statistics, **ask).norm is None


def test_an_exported_model_has_no_recordings_of_its_pretraining(model, with_signatures):
    ask = {"default": "evaluation", "judged": "records"}
    with pytest.raises(ConfigError, match="were computed on them: leave the flag out"):
        batch_norm(open_source(model), "pretraining", **ask)
    with pytest.raises(ConfigError, match="--statistics=recalibrated, or evaluate it with --workdir=RUN"):
        batch_norm(open_source(with_signatures), "pretraining", **ask)


def test_a_run_whose_recordings_moved_says_which_they_were(moved_run, pretrained_on, elsewhere):
    settings = settings_of_source(moved_run)
    with pytest.raises(DataError, match=rf"simulated \(fingerprint {pretrained_on.fingerprint}\).*--dataset=DIR"):
        finished_run.open_judged(settings.data, settings.data, moved_run)
    found = finished_run.with_flags(settings, settings, task=None, dataset=str(pretrained_on.directory))
    recordings = finished_run.open_judged(found.data, settings.data, moved_run)
    source = open_source(moved_run)
    assert other_data(source, recordings) == ()
    others = open_recordings(dataclasses.replace(settings.data, dir=str(elsewhere.directory)))
    (said,) = other_data(source, others)
    assert pretrained_on.fingerprint in said
    assert elsewhere.fingerprint in said


def test_another_data_set_in_the_place_of_the_pretrainings_is_said(moved_run, elsewhere, quick, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(elsewhere.directory, tmp_path / "gone" / "data")
    settings = settings_on(moved_run, elsewhere)
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, dir="gone/data"))
    found = entry.evaluate(settings, moved_run, progress=False)
    told = json.loads((found.report.html.parent / "results.json").read_text(encoding="utf-8"))["provenance"]
    assert any("now, which are other recordings" in caution for caution in told["cautions"])


def test_an_encoder_without_batch_norm_asks_for_no_recordings(moved_run):
    source = open_source(moved_run)
    without = dataclasses.replace(source.encoder, split=source.encoder.split._replace(stats={}))
    source = dataclasses.replace(source, encoder=without)
    found = batch_norm(source, "pretraining", default="pretraining", judged="records")
    assert (found.statistics, found.norm, found.words) == ("none", None, "")


def test_flags_name_one_place_and_of_the_right_kind(run, model):
    for given in ((None, None), (str(run), str(model))):
        with pytest.raises(ConfigError, match="--workdir=DIR, the folder of a pretraining run, or --model=DIR"):
            chosen_place(*given)
    with pytest.raises(ConfigError, match="is an exported model and no run: give it as --model="):
        chosen_place(str(model), None)
    with pytest.raises(ConfigError, match="is the folder of a run and no exported model: give it as --workdir="):
        chosen_place(None, str(run))


def test_settings_that_contradict_or_change_nothing_are_refused(model):
    own = settings_of_source(model)
    named = dataclasses.replace(own, data=dataclasses.replace(own.data, dir="one"))
    with pytest.raises(ConfigError, match=r"--dataset=other and --config.data.dir=one are two data sets"):
        finished_run.with_flags(named, own, task=None, dataset="other")
    with pytest.raises(ConfigError, match=r"config\.batch_size=7 is of a pretraining"):
        finished_run.check_model_settings(dataclasses.replace(own, batch_size=7), own)
    finished_run.check_model_settings(named, own)
    assert tree_of(own.encoder) == tree_of(open_source(model).settings)


def test_few_labels_of_an_exported_model_begin_and_go_on_as_one_study(model, run, elsewhere, quick, tmp_path):
    def begin(place=model, **given):
        settings = settings_on(place, elsewhere)
        arguments = {"question": TASK, "folder": tmp_path / "study", "progress": False}
        return Study(settings, place, **arguments, **given)

    with jax.numpy_dtype_promotion("standard"):
        study = begin()
        trained = study.train(Cell(fraction=1.0, seed=0, model="pretrained", mode="frozen"))
    assert trained.answers.outputs.std() > 0
    assert study.cautions(["frozen"])[0].startswith(guard.UNCHECKED)
    begin()
    with pytest.raises(ConfigError, match=r"holds another study: .*statistics"):
        begin(statistics="evaluation")
    with pytest.raises(ConfigError, match=r"holds another study: .*pretraining"):
        begin(place=run)
