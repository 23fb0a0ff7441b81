"""Classes at thresholds: every number against scikit-learn, the challenge's score, and what lacks a label."""

import dataclasses

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import brier_score_loss, f1_score, recall_score

from data_pipelines.metadata.snomed import SCORED_CLASSES
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import MultiLabelTask
from ecgjax.evaluation.metrics.cinc2021 import challenge_score
from ecgjax.evaluation.metrics.weighting import estimate
from ecgjax.pages.page import Folded, Paragraph, Table
from ecgjax.studies.answers import Contestant
from ecgjax.studies.class_operating import CHALLENGE, operate_classes
from ecgjax.studies.operating import platt
from ecgjax.studies.report.class_section import class_section

#: Common, rare in test, absent from test, from validation, and present in every test record.
CLASSES = ("common", "rare", "untested", "unseen", "all")
NUM = 300
METRICS = (
    "F1", "sensitivity", "specificity", "sensitivity at 0.9", "specificity there", "Brier", "slope", "intercept",
)  # fmt: skip


def _part(labels, start):
    records = np.arange(start, start + NUM)
    return LabelledRecords(records=records, labels=labels.astype(np.int64), patients=records // 3, unlabelled=0)


def _data(val, test, classes):
    parts = {"train": _part(val, 0), "val": _part(val, NUM), "test": _part(test, 2 * NUM)}
    return ProbeData(
        task=MultiLabelTask(task="findings"), **parts, train_available=parts["train"], label_fraction=1.0, seed=0,
        excluded={}, classes=classes,
    )  # fmt: skip


def _contestants(val, test, *, noise):
    rng = np.random.default_rng(1)
    return {
        name: Contestant(
            title=name, val_outputs=val + much * rng.normal(size=val.shape),
            outputs=test + much * rng.normal(size=test.shape), val_metric=0.5, selected="",
        )
        for name, much in noise.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    val, test = rng.normal(size=(2, NUM, 5))
    val_labels, labels = (special.expit(2 * each - 1) > rng.random(each.shape) for each in (val, test))
    labels[:, 1] &= np.arange(NUM) % 50 == 0
    labels[7, 1] = True
    labels[:, 2], val_labels[:, 3], labels[:, 4] = False, False, True
    data = _data(val_labels, labels, CLASSES)
    contestants = _contestants(val, test, noise={"pretrained": 0.3, "random": 3.0})
    return data, contestants, operate_classes(contestants, data, resamples=200, seed=0)


def _f1(labels, called):
    """As scikit-learn's, in a fraction of the time."""
    return 2 * np.sum(labels * called) / (np.sum(labels) + np.sum(called))


def _decided(contestant, data, column):
    """Probabilities and decisions on the test records, by brute force over all thresholds of validation."""
    labels, scores = data.val.labels[:, column], contestant.val_outputs[:, column]
    calibrated = platt(labels, scores)
    best = max(np.unique(scores), key=lambda t: (_f1(labels, scores >= t), t))
    strict = min(t for t in np.unique(scores) if np.mean(scores[labels == 0] < t) >= 0.9 - 1e-12)
    test = contestant.outputs[:, column]
    return calibrated(test), calibrated(np.array([best]))[0], test >= best, test >= strict


def test_every_number_of_a_class_equals_scikit_learn(small):
    data, contestants, found = small
    assert [each.name for each in found.classes] == list(CLASSES)
    for column in (0, 1):
        each, labels = found.classes[column], data.test.labels[:, column]
        p, threshold, called, strictly = _decided(contestants["pretrained"], data, column)
        assert (each.positives, each.val_positives) == (labels.sum(), data.val.labels[:, column].sum())
        assert each.threshold == pytest.approx(threshold, abs=1e-12)
        expected = {
            "F1": f1_score(labels, called),
            "sensitivity": recall_score(labels, called),
            "specificity": recall_score(labels, called, pos_label=0),
            "sensitivity at 0.9": recall_score(labels, strictly),
            "specificity there": recall_score(labels, strictly, pos_label=0),
            "Brier": brier_score_loss(labels, p),
        }
        assert tuple(each.metrics) == METRICS
        assert {name: each.metrics[name].estimate for name in expected} == pytest.approx(expected, abs=1e-9)
    common = found.classes[0].metrics
    assert common["slope"].low < 1 < common["slope"].high, "calibrated on validation, so on the test records too"
    assert common["intercept"].low < 0 < common["intercept"].high
    rare = found.classes[1].metrics["intercept"]
    assert rare.estimate < -1, "rarer than on validation"
    assert "resamples have both labels" in rare.reason, "and in too many resamples not there at all"


def test_what_lacks_a_label_is_counted_and_said(small):
    classes = {each.name: each for each in small[2].classes}
    for name, reason, positives in (
        ("untested", "test: none of 300 records is positive", 0),
        ("unseen", "validation: none of 300 records is positive", small[0].test.labels[:, 3].sum()),
        ("all", "test: all 300 records are positive", 300),
    ):
        assert (classes[name].metrics, classes[name].reason, classes[name].positives) == ({}, reason, positives)
    assert classes["unseen"].threshold is None
    assert 0 < classes["untested"].threshold < 1


def test_macro_f1_is_over_classes_with_both_labels_and_paired(small):
    data, contestants, found = small
    pretrained, random = found.models
    assert (pretrained.name, random.name, pretrained.differences) == ("pretrained", "random", {})
    called = {
        name: np.stack([_decided(contestant, data, column)[2] for column in (0, 1)], axis=1)
        for name, contestant in contestants.items()
    }
    labels = data.test.labels[:, :2]
    value = {name: f1_score(labels, each, average="macro") for name, each in called.items()}
    for model in found.models:
        assert model.metrics["macro F1"].estimate == pytest.approx(value[model.name], abs=1e-12)
        of_common = f1_score(labels[:, 0], called[model.name][:, 0])
        assert model.metrics["macro F1 of 1 classes"].estimate == pytest.approx(of_common, abs=1e-12)
    difference = random.differences["macro F1 of 1 classes"]
    codes = np.unique(data.test.patients)
    drawn = codes[np.random.default_rng(0).integers(len(codes), size=(200, len(codes)))]
    rows = [np.concatenate([np.flatnonzero(data.test.patients == code) for code in draw]) for draw in drawn]
    resampled = [
        _f1(labels[row, 0], called["pretrained"][row, 0]) - _f1(labels[row, 0], called["random"][row, 0])
        for row in rows
    ]
    np.testing.assert_allclose((difference.low, difference.high), np.quantile(resampled, [0.025, 0.975]), atol=1e-9)
    assert difference.low > 0


def test_the_challenge_is_scored_where_its_classes_are():
    rng = np.random.default_rng(2)
    classes = ("extra", *SCORED_CLASSES[::-1])  # another order, and one class more
    val, test = rng.normal(size=(2, NUM, 27))
    val_labels, labels = val > 1, test > 1
    val_labels[:, 5] = False  # never answered
    data = _data(val_labels, labels, classes)
    contestants = _contestants(val, test, noise={"pretrained": 0.2, "random": 2.0})
    found = operate_classes(contestants, data, resamples=100, seed=0)
    assert found.unscored == ()
    columns = [classes.index(name) for name in SCORED_CLASSES]
    for model in found.models:
        answers = np.zeros((NUM, 27), int)
        for column in range(27):
            if column != 5:
                answers[:, column] = _decided(contestants[model.name], data, column)[2]
        expected = estimate(challenge_score(labels[:, columns].astype(int), answers[:, columns]), NUM)
        interval = model.metrics[CHALLENGE]
        assert interval.estimate == pytest.approx(expected, abs=1e-12)
        assert interval.low < interval.estimate < interval.high
    assert found.models[1].differences[CHALLENGE].low > 0
    words = next(block.text for block in class_section(found).blocks if isinstance(block, Paragraph))
    assert "The CinC 2021 score is that of PhysioNet's challenge on its 26 classes" in words


def test_many_classes_are_folded(small):
    found = small[2]
    blocks = class_section(found).blocks
    assert [block.header[0] for block in blocks if isinstance(block, Table)] == ["model", "class", "class"]
    many = class_section(dataclasses.replace(found, classes=found.classes * 7)).blocks
    folded = [block.blocks[0] for block in many if isinstance(block, Folded)]
    assert [len(table.rows) for table in folded] == [35, 35]
    assert [block.header[0] for block in many if isinstance(block, Table)] == ["model"]


def test_no_class_with_both_labels_in_both_splits(small):
    data, contestants, _ = small
    val, test = data.val.labels.copy(), data.test.labels.copy()
    val[:, 0], test[:, 1:] = 0, 0
    found = operate_classes(contestants, _data(val, test, CLASSES), resamples=100, seed=0)
    assert all(not each.metrics and each.reason for each in found.classes)
    assert np.isnan(found.models[0].metrics["macro F1"].estimate)
    assert found.models[0].metrics["macro F1"].reason
    section = class_section(found)
    assert "0 of 5 classes" in section.blocks[1].text
    assert section.blocks[2].header == ("class", "positive in validation / test", "threshold")
    assert section.blocks[3].rows[0][3] == "n/a (validation: none of 300 records is positive)"
