"""Kinds of questions: metrics against brute force, what is not defined, losses; and that a new kind needs no more."""

import functools
import math
import typing

import numpy as np
import pytest
from sklearn import metrics as sk

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, Kind, MultiLabelTask, QuantityTask
from ecgjax.evaluation.metrics.weighting import estimate
from ecgjax.evaluation.models import boosted, linear
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import KINDS, NO_MODEL, kind_of
from tests.support.resampled import auroc_of_pairs
from tests.support.toy_kinds import TOYS

TASKS = {
    "binary": BinaryTask(label="lvef", rule="below", threshold=40.0),
    "multilabel": MultiLabelTask(task="findings"),
    "quantity": QuantityTask(label="wedge_pressure"),
}
CLASSES = ("common", "rare", "absent", "everywhere")
NUM = 120


def _case(kind, seed=0):
    """Targets, and outputs with many ties."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(NUM, 4))
    outputs = np.round(hidden + rng.normal(size=hidden.shape), 1)
    if kind == "quantity":
        return 14 + 5 * hidden[:, 0], np.round(14 + 5 * outputs[:, 0])
    labels = (hidden > 0.3).astype(np.int64)
    labels[:, 1] *= np.arange(NUM) % 12 == 0
    labels[[5, 6], 1] = 1, 0
    labels[:, 2], labels[:, 3] = 0, 1
    return (labels[:, 0], outputs[:, 0]) if kind == "binary" else (labels, outputs)


def _classes(kind):
    return CLASSES if kind == "multilabel" else ()


def _auprc(labels, scores):
    """Precision at every threshold, each weighted by the positives that it adds."""
    found, value = 0, 0.0
    for threshold in np.unique(scores)[::-1]:
        called = scores >= threshold
        value += (labels[called].sum() - found) * labels[called].mean()
        found = labels[called].sum()
    return value / labels.sum()


def _expected(kind, targets, outputs):
    if kind == "binary":
        return {"AUROC": auroc_of_pairs(targets, outputs), "AUPRC": _auprc(targets, outputs)}
    if kind == "multilabel":
        columns = [column for column in range(4) if 0 < targets[:, column].sum() < len(targets)]
        means = {
            f"macro {name}": np.mean([of(targets[:, column], outputs[:, column]) for column in columns])
            for name, of in (("AUROC", auroc_of_pairs), ("AUPRC", _auprc))
        }
        return means | {"macro AUROC of 1 classes": auroc_of_pairs(targets[:, 0], outputs[:, 0])}
    error = outputs - targets
    return {
        "R²": 1 - np.sum(error**2) / np.sum((targets - targets.mean()) ** 2),
        "Pearson's r": np.corrcoef(targets, outputs)[0, 1],
        "RMSE": np.sqrt(np.mean(error**2)),
        "MAE": np.mean(np.abs(error)),
    }


def test_every_kind_of_task_has_an_entry():
    assert set(KINDS) == set(typing.get_args(Kind)) >= set(TASKS)
    for name, task in TASKS.items():
        assert kind_of(task) is KINDS[name]


@pytest.mark.parametrize("kind", TASKS)
def test_metrics_equal_brute_force(kind):
    for seed in range(3):
        targets, outputs = _case(kind, seed)
        expected = _expected(kind, targets, outputs)
        found = KINDS[kind].estimates(targets, outputs, classes=_classes(kind))
        assert found == pytest.approx(expected, abs=1e-12)
        assert list(found) == list(expected)
        assert next(iter(found)) == KINDS[kind].primary
        value = KINDS[kind].value(targets, outputs, classes=_classes(kind))
        assert value == found[KINDS[kind].primary]


@pytest.mark.parametrize("kind", TASKS)
def test_metrics_under_weights_are_those_of_repeated_records(kind):
    targets, outputs = _case(kind)
    weights = np.random.default_rng(1).integers(0, 4, (3, NUM))
    weights[:, [0, 5, 12, 24]] += 1  # both labels of the rare class are always there
    metrics = KINDS[kind].metrics(targets, outputs, classes=_classes(kind))
    for name, metric in metrics.items():
        for found, row in zip(metric(weights.astype(float)), weights, strict=True):
            rows = np.repeat(np.arange(NUM), row)
            assert found == pytest.approx(_expected(kind, targets[rows], outputs[rows])[name], abs=1e-9)


def test_of_several_classes_the_common_ones_are_compared():
    kind = KINDS["multilabel"]
    labels, _ = _case("multilabel")
    assert kind.compared(labels) == "macro AUROC of 1 classes"
    assert kind.compared(labels[:, [0]]) == "macro AUROC", "no class is rare"
    assert kind.compared(labels[:, [0, 2, 3]]) == "macro AUROC", "classes of one label are in no mean"
    assert kind.compared(labels[:, [1, 2]]) == "macro AUROC", "no class is common"
    metrics = kind.metrics(labels[:, [1]], labels[:, [1]] * 1.0, classes=("rare",))
    assert list(metrics) == ["macro AUROC", "macro AUPRC"]
    for name in ("binary", "quantity"):
        assert KINDS[name].compared(_case(name)[0]) == KINDS[name].primary


@pytest.mark.parametrize(
    ("kind", "targets", "reason"),
    [
        ("binary", np.zeros(7), "none of 7 records is positive"),
        ("binary", np.ones(7), "all 7 records are positive"),
        ("binary", np.zeros(0), "no records"),
        ("binary", np.array([0, 1]), ""),
        ("multilabel", np.c_[np.zeros(7), np.ones(7)], "no class of 2 has both labels in 7 records"),
        ("multilabel", np.zeros((0, 3)), "no class of 3 has both labels in 0 records"),
        ("multilabel", np.c_[np.zeros(3), [0, 1, 1]], ""),
        ("quantity", np.full(7, 14.0), "all 7 records have the same value"),
        ("quantity", np.zeros(0), "no records"),
        ("quantity", np.array([14.0, 14.5]), ""),
    ],
)
def test_what_is_not_defined_says_why(kind, targets, reason):
    assert KINDS[kind].undefined(targets) == reason
    classes = CLASSES[: targets.shape[1]] if kind == "multilabel" else ()
    if len(targets):
        outputs = np.random.default_rng(0).normal(size=targets.shape)
        assert math.isnan(KINDS[kind].value(targets, outputs, classes=classes)) == bool(reason)


@pytest.mark.parametrize("kind", TASKS)
def test_loss_equals_brute_force(kind):
    targets, outputs = _case(kind)
    if kind == "quantity":
        expected = sk.mean_squared_error(targets, outputs)
    else:
        p = 1 / (1 + np.exp(-outputs))
        expected = -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    assert KINDS[kind].loss(targets, outputs) == pytest.approx(expected, rel=1e-12)
    if kind != "quantity":
        # Log odds of which a probability would round to 0 and 1.
        assert KINDS[kind].loss(np.array([1, 0]), np.array([-800.0, 800.0])) == pytest.approx(800)
        assert KINDS[kind].loss(np.array([1, 0]), np.array([800.0, -800.0])) == 0


@pytest.mark.parametrize(
    ("kind", "targets", "outputs", "message"),
    [
        ("binary", [0, 2], [0.0, 1.0], "labels must be 0 or 1"),
        ("binary", [0, 1], [0.0, math.nan], "1 of 2 scores are not finite"),
        ("binary", [0, 1], [0.0, 1.0, 2.0], "must be two vectors of equal length"),
        ("multilabel", [[0, 2]], [[0.0, 1.0]], "labels must be 0 or 1"),
        ("multilabel", [[0, 1]], [[0.0]], "must both be records × classes, of 2 classes"),
        ("quantity", [1.0, 2.0], [math.inf, 0.0], "1 of 2 predictions are not finite"),
    ],
)
def test_answers_that_cannot_be_judged_are_refused(kind, targets, outputs, message):
    with pytest.raises(DataError, match=message):
        KINDS[kind].metrics(np.array(targets), np.array(outputs), classes=("a", "b") if kind == "multilabel" else ())


def test_positives_are_those_of_the_class_that_has_most():
    labels, _ = _case("multilabel")
    assert KINDS["multilabel"].positives(labels[:, :3]) == labels[:, 0].sum()
    assert KINDS["binary"].positives(labels[:, 1]) == labels[:, 1].sum()
    assert KINDS["quantity"].positives(np.array([3.0, 4.0])) is None


def test_few_records_of_an_answer_are_told():
    binary = KINDS["binary"]
    for positives, negatives, words in (
        (9, 30, "only 9 positive test records"),
        (30, 9, "only 9 negative test records"),
        (10, 10, ""),
    ):
        labels = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
        assert binary.few(labels) == words
        assert binary.enough_for_curves(labels) == (not words)
    for kind in ("multilabel", "quantity"):
        targets = _case(kind)[0][:3]
        assert KINDS[kind].few(targets) == ""
        assert KINDS[kind].enough_for_curves(targets)


def test_folds_with_positive_records_are_told():
    answers, folds = np.array([1.0, 0, 1, np.nan, 1, 0]), np.array([1, 1, 2, 2, 2, 3])
    words = KINDS["binary"].in_folds(answers, folds)
    assert words.startswith("Of all records 3 are positive (1 in fold 1, 2 in fold 2, 0 in fold 3): choose others by")
    assert KINDS["quantity"].in_folds(answers, folds) == KINDS["multilabel"].in_folds(answers, folds) == ""


def _data(kind):
    labels, _ = _case(kind)
    part = LabelledRecords(records=np.arange(NUM), labels=labels, patients=np.arange(NUM) // 3, unlabelled=0)
    return ProbeData(
        task=TASKS[kind], train=part, val=part, test=part, label_fraction=1.0, seed=0, train_available=part,
        excluded={}, classes=_classes(kind),
    )  # fmt: skip


def test_labels_in_words():
    (labels, _), (findings, _) = (_case(kind) for kind in ("binary", "multilabel"))
    binary, multilabel, quantity = (KINDS[kind] for kind in ("binary", "multilabel", "quantity"))
    positives = labels.sum()
    assert binary.spread(labels) == f"{positives} ({positives / NUM:.1%})"
    of_any = findings[:, :3].any(axis=1)
    assert multilabel.spread(findings[:, :3]) == f"{of_any.sum()} ({of_any.mean():.1%})"
    assert quantity.spread(np.array([10.0, 14.0, 30.0])) == "18 ± 8.64 [10, 30]"
    assert binary.counts(_data("binary").test) == f"120 records ({positives} positive) of 40 patients"
    for kind in ("multilabel", "quantity"):
        assert KINDS[kind].counts(_data(kind).test) == "120 records of 40 patients"
    assert [binary.answer_text(TASKS["binary"], np.int64(each), classes=()) for each in (0, 1)] == [
        "lvef<40: no", "lvef<40: yes"
    ]  # fmt: skip
    task, row = TASKS["multilabel"], np.array([1, 0, 1])
    assert multilabel.answer_text(task, row, classes=("af", "lvh", "mi")) == "classes: af and mi"
    assert multilabel.answer_text(task, 0 * row, classes=("af", "lvh", "mi")) == "classes: none"
    assert quantity.answer_text(TASKS["quantity"], np.float64(14.25678), classes=()) == "wedge_pressure 14.26"


def test_examples_are_of_different_answers():
    for kind in TASKS:
        data = _data(kind)
        words, ((_, first), (_, second)) = KINDS[kind].examples(data)
        labels = data.test.labels
        assert words
        if kind == "binary":
            np.testing.assert_array_equal(first, np.flatnonzero(labels == 1))
            np.testing.assert_array_equal(second, np.flatnonzero(labels == 0))
        elif kind == "quantity":
            order = np.argsort(labels)
            np.testing.assert_array_equal(np.sort(order[-12:]), first)
            np.testing.assert_array_equal(np.sort(order[:12]), second)
        else:
            np.testing.assert_array_equal(first, np.flatnonzero(labels.any(axis=1)))
            np.testing.assert_array_equal(second, np.arange(NUM))


# A kind that no module knows of.


def _examples(name, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(160, 5))
    hidden = x[:, :2] + 0.5 * rng.normal(size=(160, 2))
    y = np.exp(hidden[:, 0]) if name == "trend" else (hidden > 0.2).astype(np.int64)
    return Examples(
        kind=TOYS[name], train=x[:80], targets=y[:80], val=x[80:], val_targets=y[80:],
        classes=("a", "b") if name == "pooled" else (),
    )  # fmt: skip


@pytest.mark.parametrize("fit", [linear.fit_linear, linear.fit_nearest, functools.partial(boosted.fit_boosted, seed=0)])
@pytest.mark.parametrize("name", TOYS)
def test_every_model_answers_a_kind_that_is_new(name, fit, monkeypatch):
    monkeypatch.setattr(boosted, "_TREES", 20)
    examples = _examples(name)
    model = fit(examples)
    outputs = model.predict(examples.val)
    assert outputs.shape == examples.val_targets.shape
    if name == "trend":
        expected = np.corrcoef(examples.val_targets, outputs)[0, 1]
        floor = 0.3
    else:
        expected, floor = auroc_of_pairs(np.ravel(examples.val_targets), np.ravel(outputs)), 0.7
    assert model.val_metric == pytest.approx(expected, abs=1e-9)
    assert expected > floor
    assert model.selected
    with pytest.raises(DataError, match=r"no model can be fitted: .* in the validation split") as caught:
        fit(Examples(**{**vars(examples), "val_targets": np.ones_like(examples.val_targets)}))
    assert caught.value.reason == NO_MODEL


def test_what_a_new_kind_does_not_say_has_an_answer():
    for name, kind in TOYS.items():
        targets = _examples(name).targets
        assert kind.compared(targets) == kind.primary
        assert kind.enough_for_curves(targets)
        assert (kind.few(targets), kind.yes_or_no, kind.alike) == ("", False, "")
        assert str(targets.max())[:3] in kind.spread(targets)
        assert kind.loss(targets, np.zeros(targets.shape)) == pytest.approx(
            np.mean(targets**2) if name == "trend" else math.log(2)
        )
        metrics = kind.metrics(targets, targets * 1.0)
        assert kind.estimates(targets, targets * 1.0) == {
            each: estimate(metric, len(targets)) for each, metric in metrics.items()
        }
    assert TOYS["trend"].positives(np.ones(3)) is None
    assert TOYS["pooled"].positives(np.array([[1, 0], [1, 1], [1, 0]])) == 3
