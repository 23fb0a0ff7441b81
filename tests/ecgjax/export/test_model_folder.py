"""An exported folder: its content, whole or not at all, and that its encoder is the one that `evaluate` judges."""

import errno
import hashlib
import json
import re
import shutil

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from ecgjax import defaults
from ecgjax import evaluate as evaluation
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.features.frozen_encoder import Encoder, load_encoder
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.results import Key, write_results
from ecgjax.export import __main__ as command
from ecgjax.export import model_folder, read_safetensors, read_stablehlo, read_weights
from ecgjax.export.file_names import CARD_FILE, CONFIG_FILE, ONNX_FILE, PREPROCESSOR_FILE, SAMPLE_FILE, WEIGHTS_FILE
from ecgjax.export.model_folder import export_run
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.settings.sections import tree_of
from tests.ecgjax.export.onnx.running import session
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

FILES = {CARD_FILE, CONFIG_FILE, ONNX_FILE, PREPROCESSOR_FILE, SAMPLE_FILE, WEIGHTS_FILE, "model.stablehlo"}
SIZE = {"num_patients": 40, "rate": 100, "seconds": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("a_place_of_data"), **SIZE).directory


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a_run_of_mine", tiny(dataset))


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    return export_run(run, tmp_path_factory.mktemp("exports") / "model", with_signatures=True)


def content(folder, name=CONFIG_FILE):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def weights_of(folder, run):
    split = create_split(defaults.settings_of_run(run).encoder, seed=0)
    return read_safetensors(folder / WEIGHTS_FILE, split)


def stats(folder):
    return {name: array for name, array in read_weights(folder / WEIGHTS_FILE).tensors.items() if name[:5] == "stats"}


@pytest.mark.parametrize(("asked", "forms"), [(["none"], []), (["onnx"], ["onnx"]), (["onnx", "none"], None)])
def test_the_word_none_exports_the_weights_alone(run, tmp_path, asked, forms):
    asked = command.asked_formats(asked)
    if forms is None:
        with pytest.raises(ConfigError, match="'none' is unknown; there are: onnx, stablehlo"):
            export_run(run, tmp_path / "model", formats=asked, statistics="running")
        return
    written = export_run(run, tmp_path / "model", formats=asked, statistics="running")
    assert [path.suffix[1:] for path in written.iterdir() if path.suffix in (".onnx", ".stablehlo")] == forms
    assert (written / WEIGHTS_FILE).is_file()


def test_every_file_is_there_with_its_digest(whole):
    files = content(whole)["files"]
    assert {path.name for path in whole.iterdir()} == FILES | {RECORDS_FILE} == {*files, CONFIG_FILE}
    for name, told in files.items():
        data = (whole / name).read_bytes()
        assert told == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert content(whole)["weights_digest"] == read_weights(whole / WEIGHTS_FILE).digest


def test_the_same_run_gives_the_same_bytes(whole, run, tmp_path):
    again = export_run(run, tmp_path / "again", with_signatures=True)
    assert content(again)["files"] == content(whole)["files"]


def test_the_configuration_says_what_was_trained_on_what(whole, dataset):
    config, card = content(whole), open_dataset(dataset).card
    assert (config["format"], config["format_version"], config["architecture"]) == ("ecgjax", 1, "resnet18")
    assert (config["layer"], config["dimension"], config["token_dimension"]) == ("features", 8, 8)
    assert (config["statistics"], config["weights"], config["head"]) == ("recalibrated", "last step", None)
    training = config["training"]
    assert (training["steps"], training["batch_size"], training["exposures"]) == (12, 8, 96)
    (data,) = config["data"]
    assert training["epochs"] == pytest.approx(96 / data["records"])
    assert (data["name"], data["fingerprint"]) == ("simulated", card["fingerprint"])
    assert (data["licence"], data["citation"], data["simulated"]) == ("not stated", "not stated", True)
    assert 0 < data["patients"] < data["records"] < card["num_records"]
    assert "--builder=simulated" in data["build_command"]
    assert training["objective"]["loss"]["name"] == "nt_xent"
    assert training["settings"]["encoder.widths"] == [4, 8]
    assert not [name for name in training["settings"] if name in ("data.dir", "data.links", "columns.paired")]
    assert config["stablehlo"]["platforms"] == ["cpu", "cuda", "tpu"]
    tensors = read_weights(whole / WEIGHTS_FILE).tensors
    assert {name: tuple(told["shape"]) for name, told in config["tensors"].items()} == {
        name: array.shape for name, array in tensors.items()
    }


def test_the_preparation_is_that_of_the_training_data(whole):
    prepared = content(whole, PREPROCESSOR_FILE)
    assert (prepared["sampling_rate_hz"], prepared["seconds"], prepared["num_samples"]) == (100, 4.0, 400)
    assert prepared["leads"] == ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert prepared["encoder_leads"][:6] == ["I", "II", "III", "aVR", "aVL", "aVF"]
    assert (prepared["recipe"], prepared["recipe_version"], prepared["unit"]) == ("simulated", 1, "uV")


def test_the_exported_encoder_is_the_one_that_is_evaluated(whole, run, monkeypatch):
    """To the last bit: what `evaluate` makes of the run before it trains anything, against the folder alone."""
    met = {}

    class _MetError(Exception):
        pass

    def stop(features, *, pretrained, **arguments):
        met.update(features=features, pretrained=pretrained)
        raise _MetError

    monkeypatch.setattr(evaluation, "StudyModels", stop)
    settings = defaults.settings_of(tiny(defaults.settings_of_run(run).data.dir, probe__task="age_years"))
    with pytest.raises(_MetError):
        evaluation.evaluate(settings, run, progress=False)
    features = met["features"]
    wanted = features.embeddings(met["pretrained"], name="pretrained", settings=tree_of(settings.encoder))
    exported = Encoder(weights_of(whole, run), num_leads=12, layer=content(whole)["layer"])
    found = map_records(exported.embed, features.records, read=features.recordings.store.read, title="", progress=False)
    assert len(wanted) > 20
    np.testing.assert_array_equal(found, wanted)


def test_the_sample_is_what_every_form_gives(whole, run):
    with np.load(whole / SAMPLE_FILE) as arrays:
        signals, wanted = arrays["signals"], arrays["embeddings"]
    assert (signals.dtype, signals.shape, wanted.shape) == (np.int16, (3, 400, 8), (3, 8))
    assert np.ptp(signals, axis=1).min() > 50
    (onnx,) = session((whole / ONNX_FILE).read_bytes()).run(None, {"signals": signals})
    answers = [
        Encoder(weights_of(whole, run), num_leads=12).embed(signals),
        np.asarray(read_stablehlo(whole / "model.stablehlo")(signals)),
        onnx,
    ]
    for answer in answers:
        assert np.abs(answer - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_cards_own_lines_load_it(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path))
    (lines,) = re.findall(r"```python\n(.*?)```", (whole / CARD_FILE).read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(whole)
    made = {}
    exec(lines, made)
    with np.load(SAMPLE_FILE) as arrays:
        wanted = arrays["embeddings"]
    assert len(lines.splitlines()) == 4
    assert np.abs(made["embeddings"] - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_neither_ids_nor_paths_nor_dates_leave(whole, run, dataset):
    index = open_dataset(dataset).index
    secret = {*map(str, index.record_id), *map(str, index.patient_id)}
    secret |= {str(path) for path in (run, run.parent, dataset, dataset.parent)} | {
        run.name,
        dataset.parent.name,
        ".py",
    }
    secret = {text.encode() for text in secret}
    assert len(secret) > 40
    for path in whole.iterdir():
        data = path.read_bytes()
        assert not [text for text in secret if text in data], path.name
        if path.suffix in (".json", ".md"):
            assert not re.search(rb"\b(19|20)\d\d-\d\d-\d\d\b", data)


def test_signatures_stay_unless_they_are_asked_for(run, tmp_path):
    out = export_run(run, tmp_path / "model", formats=())
    assert {path.name for path in out.iterdir()} == FILES - {ONNX_FILE, "model.stablehlo"}
    assert content(out)["stablehlo"] is None
    assert "signatures" not in (out / CARD_FILE).read_text(encoding="utf-8")


def test_running_statistics_are_those_of_the_checkpoint(run, whole, tmp_path):
    out = export_run(run, tmp_path / "model", statistics="running", formats=(), step=6, layer="embedding")
    config = content(out)
    assert (config["statistics"], config["layer"], config["training"]["exposures"]) == ("running", "embedding", 48)
    of_checkpoint = load_encoder(run, step=6).split
    written = weights_of(out, run)
    for name in ("params", "stats"):
        assert_equal_trees(getattr(written, name), getattr(of_checkpoint, name))
    assert not all(np.array_equal(stats(out)[name], array) for name, array in stats(whole).items())


def assert_equal_trees(one, other):
    import jax

    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_moving_average_is_exported_where_it_was_kept(dataset, tmp_path):
    config = tiny(dataset)
    with config.ignore_type():
        config.optimizer.ema_decay = 0.9
    run = write_run(tmp_path / "run", config, steps=(6,))
    out = export_run(run, tmp_path / "model", formats=())
    assert content(out)["weights"] == "moving average"
    assert_equal_trees(weights_of(out, run).params, load_encoder(run).split.params)


def test_an_encoder_without_batch_norm_needs_no_recordings(tmp_path):
    dataset = make_simulated_dataset(tmp_path / "data", **SIZE).directory
    config = tiny(dataset, encoder__name="vit_s:small", encoder__depth=1, encoder__dim=16, encoder__num_heads=2)
    with config.ignore_type():
        config.encoder.update({"widths": None, "kernel": None, "dropout": None})
    run = write_run(tmp_path / "run", config, steps=(6,))
    shutil.rmtree(dataset)
    out = export_run(run, tmp_path / "model", formats=())
    assert content(out)["statistics"] == "none"


def test_recordings_that_are_gone_are_needed_for_recalibration_alone(tmp_path):
    dataset = make_simulated_dataset(tmp_path / "data", **SIZE).directory
    run = write_run(tmp_path / "run", tiny(dataset), steps=(6,))
    shutil.rmtree(dataset)
    with pytest.raises(DataError, match=r"recompute batch-norm.*not where they were.*--statistics=running"):
        export_run(run, tmp_path / "model")
    assert content(export_run(run, tmp_path / "model", statistics="running", formats=()))["data"][0]["records"] > 0
    moved = make_simulated_dataset(tmp_path / "moved", **SIZE).directory
    found = export_run(run, tmp_path / "recalibrated", pretraining_data=[str(moved)], formats=())
    assert content(found)["statistics"] == "recalibrated"
    make_simulated_dataset(tmp_path / "data", **SIZE, seed=1)
    with pytest.raises(DataError, match=r"there are others there.*--statistics=running"):
        export_run(run, tmp_path / "model")


def test_of_an_older_run_what_was_not_recorded_is_said(run, dataset, tmp_path):
    older = write_run(tmp_path / "older", tiny(dataset), told=False)
    out = export_run(older, tmp_path / "model", formats=())
    config, of_newer = content(out), content(export_run(run, tmp_path / "newer", formats=()))
    assert config["training"]["git_revision"] == "not recorded"
    assert config["data"] == of_newer["data"]
    assert config["training"]["exposures"] == of_newer["training"]["exposures"]
    assert content(out, PREPROCESSOR_FILE) == content(tmp_path / "newer", PREPROCESSOR_FILE)


def test_of_an_older_run_without_its_recordings_nothing_is_invented(tmp_path):
    dataset = make_simulated_dataset(tmp_path / "data", **SIZE).directory
    older = write_run(tmp_path / "older", tiny(dataset), steps=(6,), told=False)
    shutil.rmtree(dataset)
    with pytest.raises(DataError, match=r"older than what.*--pretraining_data=DIR"):
        export_run(older, tmp_path / "model", statistics="running")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ConfigError("no form of it"), marks=pytest.mark.slow),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_an_export_that_fails_leaves_what_was_there(run, tmp_path, monkeypatch, error):
    out = export_run(run, tmp_path / "model", formats=())
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(path, inference, **arguments):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(model_folder, "write_sample", fail)
    expected = (ConfigError, "no form") if isinstance(error, ConfigError) else (CheckpointError, "No space.*free space")
    with pytest.raises(expected[0], match=expected[1]):
        export_run(run, out, statistics="running")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    monkeypatch.undo()
    assert content(export_run(run, out, statistics="running", formats=()))["statistics"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_only_an_export_is_replaced(run, whole, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    shutil.copytree(whole, tmp_path / "with_mine")
    (tmp_path / "with_mine" / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(whole)
    reasons = {
        "file": "no folder",
        "folder": "something else",
        "with_mine": "mine, which no export",
        "link": "no folder",
    }
    for name, reason in reasons.items():
        with pytest.raises(ConfigError, match=f"--out=.*{reason}"):
            export_run(run, tmp_path / name)
    with pytest.raises(ConfigError, match="something else than an export"):
        export_run(run, run)
    assert (tmp_path / "with_mine" / "mine").read_text() == "mine"


def test_a_run_without_checkpoints_or_without_the_step_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        export_run(tmp_path / "run", tmp_path / "model")
    with pytest.raises(CheckpointError, match="step 7; finished ones: 6, 12"):
        export_run(run, tmp_path / "model", step=7)
    with pytest.raises(ConfigError, match="not the folder of a pretraining run"):
        export_run(tmp_path / "nothing", tmp_path / "model")
    with pytest.raises(ConfigError, match=r"unknown.*onnx, stablehlo"):
        export_run(run, tmp_path / "model", formats=("tflite",))
    (tmp_path / "run" / RECORDS_FILE).unlink()
    with pytest.raises(ConfigError, match=r"--with_signatures.*does not exist"):
        export_run(tmp_path / "run", tmp_path / "model", with_signatures=True)
    assert not (tmp_path / "model").exists()


def interval(estimate, low, high):
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95, resamples=9)


def test_a_missing_package_is_told_before_anything_is_computed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(model_folder, "find_spec", lambda name: None)
    monkeypatch.setattr(model_folder, "open_trained_run", None)
    for form, package in (("onnx", "onnx"), ("stablehlo", "flatbuffers")):
        with pytest.raises(
            ConfigError, match=rf"--formats={form}: .*package {package}, .*pip install 'ecgjax\[export\]'"
        ):
            export_run(run, tmp_path / "model", formats=(form,))


def test_results_of_this_checkpoint_are_shown_with_their_intervals(run, dataset, tmp_path):
    mine = shutil.copytree(run, tmp_path / "run")
    fingerprint = open_dataset(dataset).fingerprint
    evaluated = [("lvh", 12, fingerprint), ("lvh2", 12, "of another data set"), ("lvef40", 6, fingerprint)]
    for name, step, fingerprint in evaluated:
        (mine / "evaluation" / name).mkdir(parents=True)
        write_results(
            mine / "evaluation" / name,
            {
                Key("pretrained", "AUROC", "lvh"): interval(0.81, 0.75, 0.86),
                Key("pretrained", "AUROC", "lvh", part="sex: female"): interval(0.5, 0.4, 0.6),
            },
            simulated=True,
            task={"title": "lvh"},
            metric="AUROC",
            models={"pretrained": {"title": "pretrained, linear probe"}},
            splits={"test": {"records": 1234, "patients": 567}},
            provenance={
                "data": "simulated", "checkpoint_step": step, "fingerprint": fingerprint, "cautions": ["one"],
                "config": {"probe": {"layer": "features", "seed": 0}, "data": {"train_folds": list(range(1, 9))}},
            },
        )  # fmt: skip
    (mine / "evaluation" / "damaged").mkdir()
    (mine / "evaluation" / "damaged" / "results.json").write_text("{")
    text = (export_run(mine, tmp_path / "model", formats=()) / CARD_FILE).read_text(encoding="utf-8")
    assert "lvh, on 1,234 test records of 567 patients of simulated, SIMULATED" in text
    assert re.search(r"pretrained, linear probe +\| AUROC +\| 0\.810 \[0\.750, 0\.860\]", text)
    assert "0.500" not in text
    assert "cautions about these numbers (1)" in text
    assert "not shown: 1." in text
    assert text.count("recalibrated on other records") == 1
    assert "cannot be read: 1." in text
    assert 'metrics: ["AUROC"]' in text
