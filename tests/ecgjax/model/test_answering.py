"""A loaded model that answers a question: its answers and decisions, and what is refused of its folder."""

import shutil

import numpy as np
import pytest
import safetensors.numpy

import ecgjax
from data_pipelines.errors import DataError
from ecgjax.errors import ConfigError
from ecgjax.export import read_weights, write_safetensors
from ecgjax.export.file_names import CONFIG_FILE, SAMPLE_FILE, WEIGHTS_FILE
from ecgjax.export.tensors import digest_of
from tests.ecgjax.model.written import read, rewrite, write_model
from tests.support.answering_heads import QUESTIONS, trained_head


def answering(folder, kind, structure="linear", **how):
    return write_model(folder, head=lambda dim: trained_head(kind, structure, dim=dim), **how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a model with several classes and a head of two layers, which no test may change."""
    return answering(tmp_path_factory.mktemp("models") / "classes", "multilabel", "mlp", layer="embedding")


@pytest.fixture(scope="module")
def model(folder):
    return ecgjax.load(folder)


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    return ecgjax.load(answering(tmp_path_factory.mktemp("models") / "binary", "binary"))


@pytest.fixture(scope="module")
def quantity(tmp_path_factory):
    return ecgjax.load(answering(tmp_path_factory.mktemp("models") / "quantity", "quantity", "mlp"))


@pytest.fixture
def damaged(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def recordings(folder):
    with np.load(folder / SAMPLE_FILE) as sample:
        return sample["signals"], sample["answers"]


def refusal(folder):
    with pytest.raises(ConfigError) as caught:
        ecgjax.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_recordings_as_they_come_are_answered_with_probabilities_and_decisions(model, folder):
    x, expected = recordings(folder)
    said = {"rate_hz": 250, "unit": "uV", "leads": model.leads}
    answers = model.predict(x, **said)
    assert (answers.dtype, answers.shape) == (np.float64, (3, 3))
    assert np.abs(answers - expected).max() <= 1e-6
    np.testing.assert_array_equal(model.decide(x, **said), answers >= np.array([0.6, 0.2, 1.0]))
    assert (model.question, model.classes) == ("superdiagnostic:*", ("NORM", "MI", "STTC"))
    assert model.thresholds == (0.6, 0.2, 1.0)
    # One recording and any number of them, in another unit and another order of leads.
    one = model.predict(x[:1, :, ::-1] / 1000, rate_hz=250, unit="mV", leads=model.leads[::-1])
    np.testing.assert_allclose(one, answers[:1], atol=1e-6)
    np.testing.assert_allclose(model.predict_prepared(np.concatenate([x] * 12)), np.tile(answers, (12, 1)), atol=1e-6)
    with pytest.raises(DataError):
        model.predict(x * 0, **said)


def test_embeddings_are_those_of_the_encoder_alone(model, folder):
    with np.load(folder / SAMPLE_FILE) as sample:
        np.testing.assert_allclose(model.embed_prepared(sample["signals"]), sample["embeddings"], atol=1e-6)
        embeddings, outputs = model.embed_with_outputs(sample["signals"])
        np.testing.assert_allclose(outputs, sample["outputs"], atol=1e-6)
        np.testing.assert_array_equal(model.head.answers(outputs), model.predict_prepared(sample["signals"]))
    assert embeddings.shape == (3, 8)


def test_one_question_has_one_answer_a_recording(binary):
    model = binary
    x, expected = recordings(model.path)
    assert model.predict_prepared(x).shape == expected.shape == (3,)
    assert (model.classes, model.thresholds) == ((), (0.31,))
    told = repr(model)
    for words in ("answers lvef<40 by a probability after Platt scaling", "yes from 0.31 on, highest F1", "SIMULATED"):
        assert words in told


def test_a_quantity_is_answered_in_its_unit_and_without_a_decision(quantity):
    model = quantity
    x, expected = recordings(model.path)
    np.testing.assert_allclose(model.predict_prepared(x), expected, rtol=1e-6)
    assert 20 < expected.mean() < 120
    assert "answers age_years by a value in years" in repr(model)
    with pytest.raises(ConfigError, match="no threshold"):
        model.decide(x, rate_hz=250, unit="uV", leads=model.leads)


def test_embeddings_of_every_lead_keep_their_shape_beside_answers(tmp_path):
    model = ecgjax.load(answering(tmp_path / "net", "binary", name="temporal_net", num_leads=8, layer="embedding"))
    with np.load(model.path / SAMPLE_FILE) as sample:
        assert model.embed_prepared(sample["signals"]).shape == sample["embeddings"].shape


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"question": None}, "head.question"),
        ({"question": "<<<"}, "no question"),
        ({"question": "age_years"}, "does not fit question"),
        ({"kind": "nonsense"}, "kind"),
        ({"kind": "\x1b[2J" * 10**5}, "head.kind"),
        ({"unit": 3}, "head.unit"),
        ({"structure": "cnn"}, "structure"),
        ({"structure": "linear"}, "hidden"),
        ({"hidden": None}, "hidden"),
        ({"hidden": 2**62}, "hidden"),
        ({"hidden": 6}, "head/params/inner/kernel"),
        ({"input": "embedding"}, "head.input"),
        ({"outputs": {}}, "head.outputs"),
        ({"outputs": [3]}, "head.outputs"),
        ({"outputs": []}, "outputs"),
        ({"outputs": [{}] * 5000}, "head.outputs"),
        ({"data": None}, "head.data"),
        ({"training": []}, "head.training"),
        ({"chosen_on": ["a"]}, "head.chosen_on"),
        ({"calibration": "x" * 1000}, "head.calibration"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_heads_that_are_not_possible(damaged, changes, told):
    rewrite(damaged, head=read(damaged / CONFIG_FILE)["head"] | changes)
    assert told in refusal(damaged)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": None}, "head.outputs[1].name"),
        ({"name": "NORM"}, "two are called"),
        ({"slope": "1"}, "slope"),
        ({"slope": 1e400}, "Infinity"),
        ({"slope": -1.0}, "backwards"),
        ({"intercept": 10**500}, "intercept"),
        ({"offset": None}, "offset"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": -1}, "threshold"),
        ({"positives": 300}, "positives"),
        ({"records": -3}, "records"),
        # What is possible, but not what the sample was answered with.
        ({"slope": 1.001}, "answers are not reproduced"),
        ({"offset": -0.499}, "answers are not reproduced"),
        ({"intercept": 1e-6}, "answers are not reproduced"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_outputs_that_are_not_possible_or_were_changed(damaged, changes, told):
    head = read(damaged / CONFIG_FILE)["head"]
    head["outputs"][1] |= changes
    rewrite(damaged, head=head)
    assert told in refusal(damaged)


@pytest.mark.parametrize("field", ["name", "offset", "slope", "intercept", "threshold", "records", "positives"])
def test_every_field_of_an_output_must_be_there(damaged, field):
    head = read(damaged / CONFIG_FILE)["head"]
    del head["outputs"][2][field]
    rewrite(damaged, head=head)
    assert f"'head.outputs[2].{field}' is missing" in refusal(damaged)


def test_classes_and_weights_must_be_as_many(damaged):
    head = read(damaged / CONFIG_FILE)["head"]
    rewrite(damaged, head=head | {"outputs": head["outputs"][:2]})
    assert "2 outputs of 8 features" in refusal(damaged)


def test_a_head_without_weights_and_weights_without_a_head(damaged, exported, tmp_path):
    config, tensors = read(damaged / CONFIG_FILE), read_weights(damaged / WEIGHTS_FILE).tensors
    rewrite(damaged, head=None, format_version=1)
    assert "'head/params/inner/kernel'" in refusal(damaged)
    split = ecgjax.load(exported).split
    digest = write_safetensors(damaged / WEIGHTS_FILE, split)
    rewrite(damaged, head=config["head"], format_version=2, weights_digest=digest)
    assert "misses 'head/params/" in refusal(damaged)
    rewrite(damaged, format_version=1)
    assert "'format_version' is 1 and 'head' is" in refusal(damaged)
    rewrite(damaged, format_version=2, head=None)
    assert "'format_version' is 2 and 'head' is None" in refusal(damaged)
    tensors["head/params/outer/bias"] = np.full(3, np.nan, np.float32)
    entry = f'{{"digest": "{digest_of(tensors)}", "metadata": {{}}}}'
    safetensors.numpy.save_file(tensors, damaged / WEIGHTS_FILE, metadata={"ecgjax": entry})
    rewrite(damaged, config, weights_digest=digest_of(tensors))
    assert "'head/params/outer/bias' holds numbers that are not finite" in refusal(damaged)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"outputs": None}, "no sample"),
        ({"answers": None}, "no sample"),
        ({"answers": np.full((3, 3), np.nan)}, "not finite"),
        ({"answers": np.zeros((3, 3), np.float32)}, "float32"),
        ({"answers": np.zeros((3, 2))}, "shape (3, 2)"),
        ({"outputs": np.zeros((3, 3), np.float32)}, "outputs are not reproduced"),
        ({"outputs": np.zeros((2**20, 3), np.float32)}, "no sample"),
    ],
    ids=["no outputs", "no answers", "nan", "type", "shape", "others", "huge"],
)
def test_samples_that_do_not_answer_as_the_model(damaged, changes, told):
    with np.load(damaged / SAMPLE_FILE) as sample:
        arrays = {name: array for name, array in {**sample, **changes}.items() if array is not None}
    np.savez(damaged / SAMPLE_FILE, **arrays)
    rewrite(damaged)
    assert told in refusal(damaged)


def test_other_weights_of_the_head_do_not_answer_as_the_sample(damaged):
    split = ecgjax.load(damaged).split
    other = trained_head("multilabel", "mlp", dim=8, seed=1)
    rewrite(damaged, weights_digest=write_safetensors(damaged / WEIGHTS_FILE, split, head=other.split))
    assert "outputs are not reproduced" in refusal(damaged)


def test_what_a_stranger_calls_a_question_is_shown_without_what_a_terminal_obeys(damaged):
    head = read(damaged / CONFIG_FILE)["head"]
    rewrite(damaged, head=head | {"threshold_rule": "\x1b[2J", "question": "\x1b[31m:*"})
    assert "\x1b" not in repr(ecgjax.load(damaged))


def test_a_model_without_a_head_has_no_question(exported):
    model = ecgjax.load(exported)
    assert (model.head, model.question, model.classes, model.thresholds) == (None, None, (), ())
    signals = np.zeros((1, model.num_samples, 8), np.int16)
    for call in (model.predict_prepared, model.embed_with_outputs):
        with pytest.raises(ConfigError, match="no head"):
            call(signals)
    with pytest.raises(ConfigError, match="no head"):
        model.decide(signals, rate_hz=250, unit="uV", leads=model.leads)


def test_questions_of_every_kind_are_written_and_read_alike(binary, model, quantity):
    """The description of the head, field by field, but for the terms that are added to each data set."""
    for read_back in (binary.head, model.head, quantity.head):
        about = QUESTIONS[read_back.kind]
        for name in ("question", "outputs", "unit", "calibration", "threshold_rule", "chosen_on", "selected"):
            assert getattr(read_back, name) == getattr(about, name)
        assert [{**each, "terms": None} for each in read_back.data] == [{**each, "terms": None} for each in about.data]
