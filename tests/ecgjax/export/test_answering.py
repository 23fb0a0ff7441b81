"""Files of models with a head: each runtime answers what float64 gives, and the folder says what it answers."""

import json

import jax
import numpy as np
import pytest

import ecgjax
from ecgjax import encoders
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features.frozen_encoder import Encoder
from ecgjax.export import (
    digest_of,
    flat_tensors,
    inference_of,
    read_stablehlo,
    read_weights,
    write_onnx,
    write_stablehlo,
)
from ecgjax.export.evaluations import Evaluation
from ecgjax.export.file_names import CARD_FILE, CONFIG_FILE, ONNX_FILE, SAMPLE_FILE, STABLEHLO_FILE, WEIGHTS_FILE
from ecgjax.export.model_folder import export_run, write_answering_model
from ecgjax.export.tensors import model_tensors
from ecgjax.export.torch_layout import to_torch, torch_layouts
from ecgjax.export.trained_run import open_trained_run
from ecgjax.finetuning.answering_head import TrainedHead
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.pretrained.source import open_source
from tests.ecgjax.encoders.test_all import TINY
from tests.ecgjax.export.onnx.running import session
from tests.support.answering_heads import QUESTIONS, STRUCTURES, trained_head
from tests.support.fixtures import make_simulated_dataset
from tests.support.plain_networks import away_from_initialisation
from tests.support.written_runs import tiny, write_run

SAMPLES = 197

#: As in `test_all`, for embeddings; of answers, in parts of the largest.
ERROR = 1e-5


def signals(batch=3):
    return np.random.default_rng(0).integers(-2000, 2000, (batch, SAMPLES, 8)).astype(np.int16)


def answering(name, kind, structure, layer):
    """Returns an encoder's function with a head, and the answers that its own features give in float64."""
    split = away_from_initialisation(encoders.abstract(name, num_leads=12, embedding_dim=8, **TINY[name]))
    head = trained_head(kind, structure, dim=encoders.merge(split).feature_dim)
    features = np.asarray(inference_of(split, num_samples=SAMPLES, num_leads=12, layer="features")(signals()))
    expected = head.about.answers(in_float64(head, features)).reshape(len(features), -1)
    return inference_of(split, num_samples=SAMPLES, num_leads=12, layer=layer, head=head), expected


def in_float64(head, features):
    """Returns the outputs of a head, computed by NumPy."""
    params, stats = jax.tree.map(lambda array: np.asarray(array, np.float64), (head.split.params, head.split.stats))
    x = features.astype(np.float64)
    if "inner" in params:
        x = (x @ params["inner"]["kernel"] - stats["norm"]["mean"]) / np.sqrt(stats["norm"]["var"] + 1e-5)
        x, params = np.maximum(x * params["norm"]["scale"] + params["norm"]["bias"], 0), params["outer"]
    return (x @ params["kernel"] + params["bias"]) * stats["scale"] + stats["location"]


@pytest.mark.parametrize(
    ("name", "kind", "structure", "layer"),
    [
        ("resnet18", "binary", "linear", "features"),
        ("resnet18", "quantity", "mlp", "embedding"),
        ("temporal_net", "multilabel", "linear", "embedding"),
        pytest.param("vit_s", "multilabel", "mlp", "embedding", marks=pytest.mark.slow),
        pytest.param("clocs_cnn", "quantity", "linear", "features", marks=pytest.mark.slow),
        pytest.param("xresnet1d50", "binary", "mlp", "features", marks=pytest.mark.slow),
    ],
)
def test_other_runtimes_answer_what_float64_does(name, kind, structure, layer, tmp_path):
    inference, expected = answering(name, kind, structure, layer)
    write_onnx(tmp_path / ONNX_FILE, inference)
    write_stablehlo(tmp_path / STABLEHLO_FILE, inference, platforms=("cpu",))
    runtime = session((tmp_path / ONNX_FILE).read_bytes())
    assert [output.name for output in runtime.get_outputs()] == [layer, "answers"]
    embeddings = np.asarray(inference(signals()))
    for found in (runtime.run(None, {"signals": signals()}), read_stablehlo(tmp_path / STABLEHLO_FILE)(signals())):
        for values, wanted in zip(found, (embeddings, expected), strict=True):
            assert np.shape(values) == wanted.shape
            assert np.abs(np.asarray(values) - wanted).max() <= ERROR * np.abs(wanted).max()
    outputs = np.asarray(inference.head_outputs(signals()))
    answers = inference.head.about.answers(outputs).reshape(expected.shape)
    assert np.abs(answers - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())


def test_a_head_changes_nothing_of_the_files_of_its_encoder():
    inference, _ = answering("resnet18", "binary", "mlp", "embedding")
    alone = inference_of(inference.split, num_samples=SAMPLES, num_leads=12)
    np.testing.assert_array_equal(inference(signals()), alone(signals()))
    assert alone.output_names == ("embedding",)
    with pytest.raises(ConfigError, match="no head"):
        alone.head_outputs(signals())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_weights_of_a_head_have_names_and_a_layout_in_pytorch(structure):
    head = trained_head("multilabel", structure, dim=6).split
    layouts, tensors = torch_layouts(head, of="head"), flat_tensors(head, of="head")
    assert layouts.keys() == tensors.keys()
    last = {"linear": "head/params/kernel", "mlp": "head/params/outer/kernel"}[structure]
    assert (layouts[last].module, layouts[last].parameter) == ("Linear", "weight")
    np.testing.assert_array_equal(to_torch(tensors[last], layouts[last]), tensors[last].T)
    if structure == "mlp":
        assert layouts["head/stats/norm/var"].parameter == "running_var"


# The folder, from a run to a model that answers.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    dataset = make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=100, seconds=4)
    return write_run(tmp_path_factory.mktemp("runs") / "run", tiny(dataset.directory))


@pytest.fixture(scope="module")
def trained(run):
    return open_trained_run(run, statistics="running", layer="embedding")


@pytest.fixture(scope="module")
def head(trained):
    return trained_head("multilabel", "mlp", dim=encoders.merge(trained.encoder.split).feature_dim)


@pytest.fixture(scope="module")
def folder(run, trained, head, tmp_path_factory):
    evaluation = Evaluation("superdiagnostic:*", "labelled", True, 90, 80, 0, True, [("this", "macro AUROC", "0.8")])
    return write_answering_model(
        tmp_path_factory.mktemp("models") / "model", run=trained, head=head.split, about=head.about,
        evaluations=[evaluation], signatures=run / RECORDS_FILE,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "cache"))


def test_a_folder_answers_what_its_parts_do(folder, trained, head):
    model = ecgjax.load(folder)
    with np.load(folder / SAMPLE_FILE) as sample:
        recordings, stored = sample["signals"], sample["answers"]
    split = trained.encoder.split
    features = Encoder(split, num_leads=12, layer="features", batch_size=3).embed(recordings)
    expected = head.about.answers(in_float64(head, features))
    assert np.abs(model.predict_prepared(recordings) - expected).max() <= 1e-6
    assert np.abs(stored - expected).max() <= 1e-6
    (_, answers) = session((folder / ONNX_FILE).read_bytes()).run(None, {"signals": recordings})
    assert np.abs(answers - expected).max() <= 1e-6
    assert (folder / RECORDS_FILE).is_file()


def test_an_encoder_that_was_trained_with_labels_has_seen_their_data_sets(folder, trained):
    pretraining = [dataset["fingerprint"] for dataset in trained.about["data"]]
    assert list(open_source(folder).encoder.pretrained_on) == [*pretraining, "1abe1"]


def test_the_configuration_says_what_is_answered(folder, trained, head):
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    assert (config["format_version"], config["weights"]) == (2, "trained with labels")
    said = config["head"]
    assert (said["question"], said["structure"], said["hidden"], said["input"]) == (
        "superdiagnostic:*", "mlp", 5, "features",
    )  # fmt: skip
    assert [output["threshold"] for output in said["outputs"]] == [0.6, 0.2, 1.0]
    tensors = read_weights(folder / WEIGHTS_FILE).tensors
    assert tensors.keys() == config["tensors"].keys() == model_tensors(trained.encoder.split, head.split).keys()
    assert config["weights_digest"] == digest_of(tensors)


def test_the_card_says_what_is_answered_and_that_it_is_no_finding(folder):
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    section = text.partition("## What it answers\n")[2].partition("\n## ")[0]
    for words in (
        "superdiagnostic:*", "a probability for each of 3 classes", "Platt scaling, fitted on the validation records",
        "highest F1", "not a medical device", "SIMULATED", "| MI ", "0.2", "two linear layers with 5",
    ):  # fmt: skip
        assert words in section, words
    assert "model.predict(" in text
    assert "macro AUROC" in text
    assert text.split("\n---\n")[1].startswith("**SIMULATED DATA.")


def test_an_answering_folder_is_replaced_by_an_encoder_and_back(run, trained, head, tmp_path):
    out = tmp_path / "model"
    given = {"run": trained, "head": head.split, "about": head.about, "formats": ()}
    write_answering_model(out, **given)
    export_run(run, out, statistics="running", formats=())
    assert json.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))["head"] is None
    write_answering_model(out, **given)
    assert ecgjax.load(out).question == "superdiagnostic:*"


def test_a_head_that_does_not_fit_leaves_what_was_there(trained, head, tmp_path):
    out, given = tmp_path / "model", {"run": trained, "formats": ()}
    with pytest.raises(ConfigError, match="1 outputs"):
        write_answering_model(out, head=head.split, about=QUESTIONS["binary"], **given)
    with pytest.raises(ConfigError, match="signatures="):
        write_answering_model(out, head=head.split, about=head.about, signatures=tmp_path / "none", **given)
    nan = jax.tree.map(lambda array: np.full_like(array, np.nan), head.split.params)
    with pytest.raises(CheckpointError, match=r"head/params/inner/kernel.*not finite"):
        write_answering_model(out, head=head.split._replace(params=nan), about=head.about, **given)
    assert not list(tmp_path.glob("*model*"))


def test_a_head_of_other_features_is_refused_where_it_is_given(trained):
    other = trained_head("binary", "linear", dim=3)
    with pytest.raises(ConfigError, match="8 features"):
        inference_of(trained.encoder, num_samples=400, head=TrainedHead(other.split, other.about))
