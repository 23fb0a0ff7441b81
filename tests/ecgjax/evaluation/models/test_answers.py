"""A model's answers: what is told of them, files read as they were written, AUROC averaged over folds."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.models.answers import (
    Answers,
    answers_of,
    examples_of,
    fold_mean_auroc,
    load_archive,
    save_archive,
)
from ecgjax.evaluation.models.fitted import FittedModel
from ecgjax.evaluation.models.kinds import KINDS

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_fitted_and_answered_side_by_side(kind):
    task = {
        "binary": BinaryTask(label="af", rule="present"),
        "multilabel": MultiLabelTask(task="findings"),
        "quantity": QuantityTask(label="lvef"),
    }[kind]
    classes, shape = (("a", "b"), (2,)) if kind == "multilabel" else ((), ())
    parts = {
        name: LabelledRecords(
            records=np.arange(number), labels=RNG.integers(0, 2, (number, *shape)), patients=np.arange(number),
            unlabelled=0,
        )
        for name, number in {"train": 7, "val": 5, "test": 3}.items()
    }  # fmt: skip
    data = ProbeData(
        task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={}, classes=classes
    )
    features = SplitFeatures(**{name: RNG.normal(size=(len(part.records), 4)) for name, part in parts.items()})
    examples = examples_of(features, data)
    assert (examples.kind, examples.classes) == (KINDS[kind], classes)
    assert examples.train is features.train
    assert examples.val is features.val
    assert examples.targets is data.train.labels
    assert examples.val_targets is data.val.labels
    answers = answers_of(FittedModel(predict=lambda x: x.sum(axis=1), val_metric=0.7, selected="k = 5"), features, data)
    np.testing.assert_array_equal(answers.outputs, features.test.sum(axis=1))
    np.testing.assert_array_equal(answers.val_outputs, features.val.sum(axis=1))
    assert (answers.val_metric, answers.selected, answers.records, answers.reason) == (0.7, "k = 5", 7, "")
    positives = data.train.labels.sum(axis=0).max()
    assert answers.positives == (None if kind == "quantity" else positives)


def test_what_was_not_trained_has_nothing_but_a_reason():
    answers = Answers(outputs=None, reason="none of 3 records is positive")
    assert math.isnan(answers.val_metric)
    assert (answers.val_outputs, answers.positives, answers.folds, answers.chosen) == (None, None, None, ())


@pytest.mark.parametrize("scores", [np.float32([0.5, -1]), None])
def test_answers_are_read_as_they_were_written(tmp_path, scores):
    made = Answers(
        outputs=scores, folds=np.array([0, 1]), chosen=(0.1, 1.0), unchosen=1, records=3.5, positives=2,
        reason="" if scores is not None else "fold 1: no records",
    )  # fmt: skip
    path = tmp_path / "a" / "b.npz"
    made.save(path)
    again = Answers.load(path)
    for field in dataclasses.fields(made):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(made, field.name))
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"b\.npz: this result is damaged .* remove it to make it again"):
        Answers.load(path)


@pytest.mark.parametrize(
    ("words", "arrays"),
    [
        ({"chosen": [1.0]}, {}),  # without folds
        ({}, {"folds": np.zeros(2, int)}),  # without strengths
        ({"chosen": [1.0], "unknown": 3}, {"folds": np.zeros(2, int)}),
        ({"chosen": None}, {"folds": np.zeros(2, int)}),
    ],
)
def test_an_archive_that_is_no_answer_is_named(tmp_path, words, arrays):
    save_archive(tmp_path / "b.npz", words, arrays)
    with pytest.raises(DataError, match=r"b\.npz: this result is damaged .* remove it to make it again"):
        Answers.load(tmp_path / "b.npz")


def test_archives_hold_words_and_arrays(tmp_path):
    words = {"mean ± SD": 0.25, "none": None, "nan": math.nan, "list": [1, "é"]}
    arrays = {"scores": np.float32([[1, 2]]), "empty": np.zeros((0, 3))}
    path = tmp_path / "new" / "a.npz"
    save_archive(path, words, arrays)
    told, found = load_archive(path, lambda *both: both)
    assert {**told, "nan": None} == {**words, "nan": None}
    assert math.isnan(told["nan"])
    assert set(found) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


@pytest.mark.parametrize("damage", ["empty", "cut", "other archive", "no archive", "pickled"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = tmp_path / "a.npz"
    save_archive(path, {"a": 1}, {"scores": np.zeros(100)})
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "other archive":
        np.savez(path, scores=np.zeros(3))
    elif damage == "pickled":
        np.savez(path, told=np.array([{"a": 1}], object))
    else:
        path.write_text("a = 1")
    with pytest.raises(DataError, match=r"a\.npz: this result is damaged .* remove it to make it again"):
        load_archive(path, lambda *both: both)


def test_an_interrupted_archive_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_archive(path, {"a": 1}, {"scores": np.zeros(3)})

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_archive(path, {"a": 2}, {})
    assert load_archive(path, lambda *both: both)[0] == {"a": 1}


def test_auroc_is_averaged_over_folds():
    number, folds = 120, np.arange(120) % 3
    labels = (RNG.random(number) < 0.4).astype(int)
    scores = np.round(labels + RNG.normal(size=number) + folds, 1)
    by_fold = [roc_auc_score(labels[folds == fold], scores[folds == fold]) for fold in range(3)]
    metric = fold_mean_auroc(labels, scores, folds)
    assert metric(np.ones(number))[0] == pytest.approx(np.mean(by_fold), abs=1e-12)
    assert np.mean(by_fold) != pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    # Scores of a fold may be on any scale; a pooled AUROC would change.
    shifted = fold_mean_auroc(labels, scores + 100 * folds, folds)
    assert shifted(np.ones(number))[0] == pytest.approx(np.mean(by_fold), abs=1e-12)
    weights = np.random.default_rng(1).integers(0, 3, (4, number))
    repeated = [
        np.mean([roc_auc_score(np.repeat(labels, w * own), np.repeat(scores, w * own)) for own in folds == each])
        for w in weights
        for each in [np.arange(3)[:, None]]
    ]
    np.testing.assert_allclose(metric(weights), repeated, atol=1e-12)
    weights[0, (folds == 2) & (labels == 1)] = 0
    assert np.isnan(metric(weights)).tolist() == [True, False, False, False]
