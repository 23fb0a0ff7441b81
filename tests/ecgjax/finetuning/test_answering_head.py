"""What the outputs of a head stand for: one formula from outputs to answers, and bounds on every number of it."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.finetuning.answering_head import AnsweringHead, HeadOutput, HeadStructure, TrainedHead, structure_of
from tests.support.answering_heads import QUESTIONS, STRUCTURES, trained_head

BINARY, CLASSES, QUANTITY = (QUESTIONS[kind] for kind in ("binary", "multilabel", "quantity"))


def outputs_of(about, rows=7):
    return np.random.default_rng(1).normal(0, 3, (rows, len(about.outputs))).astype(np.float32)


def test_a_probability_follows_from_offset_slope_and_intercept():
    """Number by number, with Python's own exponential."""
    outputs = outputs_of(CLASSES)
    expected = [
        [1 / (1 + math.exp(-(each.slope * (float(value) - each.offset) + each.intercept))) for value, each in pairs]
        for pairs in (zip(row, CLASSES.outputs, strict=True) for row in outputs)
    ]
    np.testing.assert_allclose(CLASSES.answers(outputs), expected, rtol=1e-14)
    assert CLASSES.answers(outputs).dtype == np.float64


def test_an_answer_has_the_shape_of_its_kind():
    assert BINARY.answers(outputs_of(BINARY)).shape == (7,)
    assert CLASSES.answers(outputs_of(CLASSES)).shape == (7, 3)
    np.testing.assert_array_equal(QUANTITY.answers(outputs_of(QUANTITY)), outputs_of(QUANTITY)[:, 0])
    assert (BINARY.classes, CLASSES.classes) == ((), ("NORM", "MI", "STTC"))
    with pytest.raises(ConfigError, match=r"\[7, 3\].*\[n, 1\]"):
        BINARY.answers(outputs_of(CLASSES))


@pytest.mark.parametrize("about", QUESTIONS.values(), ids=QUESTIONS)
def test_compiled_functions_answer_the_same(about):
    outputs = outputs_of(about)
    traced = np.asarray(jax.jit(about.traced_answers)(outputs))
    np.testing.assert_allclose(traced.reshape(about.answers(outputs).shape), about.answers(outputs), atol=3e-7)


def test_a_decision_is_yes_from_the_threshold_on():
    threshold = BINARY.outputs[0].threshold
    answers = np.array([np.nextafter(threshold, 0), threshold, np.nextafter(threshold, 1)])
    np.testing.assert_array_equal(BINARY.decisions(answers), [False, True, True])
    each = np.array([output.threshold for output in CLASSES.outputs])
    np.testing.assert_array_equal(CLASSES.decisions(np.stack([each, each - 1e-12])), [[True] * 3, [False] * 3])

    for wrong in (np.zeros(3), np.zeros((2, 2)), np.zeros((1, 1, 3))):
        with pytest.raises(ConfigError, match="answers are"):
            CLASSES.decisions(wrong)
    with pytest.raises(ConfigError, match="answers are"):
        BINARY.decisions(np.zeros((3, 1)))


def test_there_is_no_decision_without_a_threshold():
    with pytest.raises(ConfigError, match=r"age_years.*no threshold"):
        QUANTITY.decisions(np.zeros(2))
    rare = dataclasses.replace(CLASSES.outputs[1], threshold=None)
    with pytest.raises(ConfigError, match="chosen for 'MI'"):
        dataclasses.replace(CLASSES, outputs=(CLASSES.outputs[0], rare)).decisions(np.zeros((1, 2)))


def test_the_prevalence_is_that_of_the_calibration():
    assert BINARY.outputs[0].prevalence == 0.15
    assert HeadOutput(name="a").prevalence is None
    assert BINARY.simulated


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        *(({name: value}, name) for name in ("offset", "slope", "intercept") for value in (math.nan, math.inf, -1e13)),
        *(({name: value}, name) for name in ("offset", "slope", "intercept") for value in ("1", None, True, 10**400)),
        ({"slope": 0}, "backwards"),
        ({"slope": -0.5}, "backwards"),
        *(({"threshold": value}, "threshold") for value in (math.nan, math.inf, -0.1, 1.1, "0.5", True)),
        *(({"positives": value}, "positives") for value in (-1, 201, 1.5, True)),
        *(({"records": value}, "records") for value in (-1, 10, "200", None, 10**30)),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"name": "x" * 301}, "name"),
    ],
    ids=str,
)
def test_numbers_of_an_output_are_bounded(changes, told):
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(BINARY, outputs=(dataclasses.replace(BINARY.outputs[0], **changes),))


@pytest.mark.parametrize(
    ("about", "changes", "told"),
    [
        (BINARY, {"kind": "quantity"}, "does not fit question"),
        (BINARY, {"kind": "ordinal"}, "kind"),
        (BINARY, {"kind": None}, "kind"),
        (BINARY, {"question": "<<"}, "no question"),
        (BINARY, {"question": 3}, "question"),
        (BINARY, {"unit": "%"}, "unit"),
        (BINARY, {"outputs": ()}, "outputs"),
        (BINARY, {"outputs": CLASSES.outputs}, "one answer"),
        (BINARY, {"chosen_on": "x" * 301}, "chosen_on"),
        (CLASSES, {"outputs": CLASSES.outputs[:1] * 2}, "two are called 'NORM'"),
        (QUANTITY, {"outputs": (HeadOutput(name="age_years", slope=2.0),)}, "quantity"),
        (QUANTITY, {"outputs": (HeadOutput(name="age_years", threshold=0.5),)}, "quantity"),
    ],
    ids=str,
)
def test_fields_that_contradict_each_other_are_refused(about, changes, told):
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(about, **changes)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_structure_says_which_weights_a_head_has(structure):
    head = trained_head("multilabel", structure, dim=6)
    shapes = structure_of(head.split).abstract(6, outputs=3)
    assert jax.tree.map(np.shape, shapes[1:]) == jax.tree.map(np.shape, head.split[1:])
    head.check_fits(6)
    with pytest.raises(ConfigError, match="7 features"):
        head.check_fits(7)
    with pytest.raises(ConfigError, match="1 outputs"):
        TrainedHead(head.split, BINARY).check_fits(6)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_head_computes_with_its_running_statistics(structure):
    """Against float64, layer by layer."""
    head = trained_head("quantity", structure, dim=6)
    features = np.random.default_rng(0).normal(0, 2, (5, 6)).astype(np.float32)
    arrays = {"params": head.split.params, "stats": head.split.stats}
    params, stats = jax.tree.map(lambda array: np.asarray(array, np.float64), (head.split.params, head.split.stats))
    x = features.astype(np.float64)
    if structure == "mlp":
        x = x @ params["inner"]["kernel"] - stats["norm"]["mean"]
        x = np.maximum(x / np.sqrt(stats["norm"]["var"] + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"], 0)
    last = params["outer"] if structure == "mlp" else params
    expected = (x @ last["kernel"] + last["bias"]) * 14.0 + 61.0
    np.testing.assert_allclose(np.asarray(head.outputs(arrays, features)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "hidden", "told"),
    [
        ("mlp", None, "hidden"),
        ("linear", 4, "hidden"),
        ("mlp", 0, "hidden"),
        ("mlp", 2**40, "hidden"),
        ("mlp", "4", "hidden"),
        ("mlp", True, "hidden"),
        ("cnn", None, "structure"),
    ],
)
def test_structures_that_are_not_possible(name, hidden, told):
    with pytest.raises(ConfigError, match=told):
        HeadStructure(name=name, hidden=hidden)


def test_a_field_of_the_wrong_type_is_refused_in_one_short_sentence():
    with pytest.raises(ConfigError) as caught:
        AnsweringHead(question="x" * 10**6, kind="quantity", outputs=(HeadOutput(name="x"),))
    assert len(str(caught.value)) < 300
