"""Classes at thresholds: every number against scikit-learn, the challenge's score, and what lacks a label."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import brier_score_loss, f1_score, recall_score, roc_auc_score

from data_pipelines.metadata.snomed import SCORED_CLASSES
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import MultiLabelTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.cinc2021 import challenge_score
from ecgjax.evaluation.metrics.clustered_auroc import clustered_auroc_interval
from ecgjax.evaluation.metrics.weighting import estimate
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import Key
from ecgjax.studies.one_task.calibrated import platt
from ecgjax.studies.one_task.multilabel import BY_CLASS, CHALLENGE, MultiLabel
from ecgjax.studies.one_task.supplement import Report
from tests.support.resampled import auroc_of_pairs, bounds

#: Common, rare in test, absent from test, from validation, and present in every test record.
CLASSES = ("common", "rare", "untested", "unseen", "all")
NUM = 300
TITLE = "findings:*"
METRICS = (
    "F1", "sensitivity", "specificity", "sensitivity at 0.9", "specificity there", "Brier", "slope", "intercept",
)  # fmt: skip
REPORT = Report(resamples=200, seed=0, groups={}, progress=False)


def _part(labels, start):
    records = np.arange(start, start + NUM)
    return LabelledRecords(records=records, labels=labels.astype(np.int64), patients=records // 3, unlabelled=0)


def _data(val, test, classes):
    parts = {"train": _part(val, 0), "val": _part(val, NUM), "test": _part(test, 2 * NUM)}
    return ProbeData(
        task=MultiLabelTask(task="findings"), **parts, train_available=parts["train"], label_fraction=1.0, seed=0,
        excluded={}, classes=classes,
    )  # fmt: skip


def _models(val, test, *, noise):
    rng = np.random.default_rng(1)
    return {
        name: Answers(
            val_outputs=val + much * rng.normal(size=val.shape), outputs=test + much * rng.normal(size=test.shape)
        )
        for name, much in noise.items()
    }


def _measure(models, data, report=REPORT):
    nothing = SplitFeatures(train=np.zeros((0, 1)), val=np.zeros((0, 1)), test=np.zeros((0, 1)))
    return MultiLabel().measure(models, data, report, embeddings=nothing)


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    val, test = rng.normal(size=(2, NUM, 5))
    val_labels, labels = (special.expit(2 * each - 1) > rng.random(each.shape) for each in (val, test))
    labels[:, 1] &= np.arange(NUM) % 50 == 0
    labels[7, 1] = True
    labels[:, 2], val_labels[:, 3], labels[:, 4] = False, False, True
    data = _data(val_labels, labels, CLASSES)
    models = _models(val, test, noise={"pretrained": 0.3, "random": 3.0})
    return data, models, *_measure(models, data)


def _metrics_of(rows, name, model="pretrained"):
    """Returns the decisions on a class, by metric."""
    return {
        key.metric: value
        for key, value in rows.items()
        if (key.part, key.model, key.minus) == (name, model, "") and key.metric != "AUROC"
    }


def _f1(labels, called):
    """As scikit-learn's, in a fraction of the time."""
    return 2 * np.sum(labels * called) / (np.sum(labels) + np.sum(called))


def _decided(answers, data, column):
    """Probabilities and decisions on the test records, by brute force over all thresholds of validation."""
    labels, scores = data.val.labels[:, column], answers.val_outputs[:, column]
    calibrated = platt(labels, scores)
    best = max(np.unique(scores), key=lambda t: (_f1(labels, scores >= t), t))
    strict = min(t for t in np.unique(scores) if np.mean(scores[labels == 0] < t) >= 0.9 - 1e-12)
    test = answers.outputs[:, column]
    return calibrated(test), calibrated(np.array([best]))[0], test >= best, test >= strict


def test_every_number_of_a_class_equals_scikit_learn(small):
    data, models, rows, facts = small
    assert [each.name for each in facts["classes"]] == list(CLASSES)
    for column in (0, 1):
        each, labels = facts["classes"][column], data.test.labels[:, column]
        p, threshold, called, strictly = _decided(models["pretrained"], data, column)
        assert (each.positives, each.val_positives) == (labels.sum(), data.val.labels[:, column].sum())
        assert each.train_positives == data.train.labels[:, column].sum()
        assert each.patients == len(np.unique(data.test.patients[labels == 1]))
        assert each.threshold == pytest.approx(threshold, abs=1e-12)
        expected = {
            "F1": f1_score(labels, called),
            "sensitivity": recall_score(labels, called),
            "specificity": recall_score(labels, called, pos_label=0),
            "sensitivity at 0.9": recall_score(labels, strictly),
            "specificity there": recall_score(labels, strictly, pos_label=0),
            "Brier": brier_score_loss(labels, p),
        }
        found = _metrics_of(rows, each.name)
        assert tuple(found) == METRICS
        assert {name: found[name].estimate for name in expected} == pytest.approx(expected, abs=1e-9)
        assert _metrics_of(rows, each.name, "random") == {}
    common = _metrics_of(rows, "common")
    assert common["slope"].low < 1 < common["slope"].high, "calibrated on validation, so on the test records too"
    assert common["intercept"].low < 0 < common["intercept"].high
    rare = _metrics_of(rows, "rare")["intercept"]
    assert rare.estimate < -1, "rarer than on validation"
    assert "resamples have positive and negative records" in rare.reason, "and in too many resamples not there at all"


def test_what_lacks_a_label_is_counted_and_said(small):
    data, _, rows, facts = small
    classes = {each.name: each for each in facts["classes"]}
    for name, undecided, reason, positives in (
        ("untested", "test: none of 300 records is positive", "none of 300 records is positive", 0),
        ("unseen", "validation: none of 300 records is positive", "", data.test.labels[:, 3].sum()),
        ("all", "test: all 300 records are positive", "all 300 records are positive", 300),
        ("common", "", "", data.test.labels[:, 0].sum()),
    ):
        each = classes[name]
        assert (each.undecided, each.reason, each.positives) == (undecided, reason, positives)
        assert bool(_metrics_of(rows, name)) == (name == "common")
        assert (Key("pretrained", "AUROC", TITLE, part=name) in rows) == (not reason)
    assert classes["unseen"].threshold is None
    assert 0 < classes["untested"].threshold < 1


def test_the_auroc_of_every_class_has_its_interval_and_difference(small):
    data, models, rows, _ = small
    patients = data.test.patients
    for column, name in ((0, "common"), (3, "unseen")):
        labels = data.test.labels[:, column]
        ours, theirs = (models[model].outputs[:, column] for model in ("pretrained", "random"))

        def auroc(scores, labels=labels):
            return lambda drawn: auroc_of_pairs(labels[drawn], scores[drawn])

        def difference(drawn, auroc=auroc, ours=ours, theirs=theirs):
            return auroc(ours)(drawn) - auroc(theirs)(drawn)

        for model, other, by_hand in (
            ("pretrained", "", auroc(ours)), ("random", "", auroc(theirs)), ("pretrained", "random", difference)
        ):  # fmt: skip
            interval = rows[Key(model, "AUROC", TITLE, part=name, minus=other)]
            assert interval.estimate == pytest.approx(by_hand(np.arange(NUM)), abs=1e-12)
            np.testing.assert_allclose((interval.low, interval.high), bounds(patients, by_hand), atol=1e-9)
    # Few patients have the rare class.
    labels, scores = data.test.labels[:, 1], models["random"].outputs[:, 1]
    shown = rows[Key("random", "AUROC", TITLE, part="rare")]
    of_few = clustered_auroc_interval(labels, scores, patients=patients)
    assert (shown.low, shown.high, shown.resamples) == (of_few.low, of_few.high, 0)
    assert shown.estimate == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_the_auroc_of_classes_is_told_of_few_models(small):
    data, models, _, _ = small
    more = {**models, "supervised": models["random"], "intervals": models["random"]}
    rows, _ = _measure(more, data)
    with_auroc = {key.model for key in rows if key.metric == "AUROC"}
    assert with_auroc == set(BY_CLASS) == {"pretrained", "random", "supervised"}
    assert {key.minus for key in rows if key.metric == "AUROC"} == {"", "random"}
    assert {key.minus for key in rows if key.metric == "macro F1"} == {"", "random", "supervised", "intervals"}


def test_macro_f1_is_over_classes_with_both_labels_and_paired(small):
    data, models, rows, _ = small
    assert not [key for key in rows if key.minus and key.model != "pretrained"]
    called = {
        name: np.stack([_decided(answers, data, column)[2] for column in (0, 1)], axis=1)
        for name, answers in models.items()
    }
    labels = data.test.labels[:, :2]
    for name, each in called.items():
        value = rows[Key(name, "macro F1", TITLE)].estimate
        assert value == pytest.approx(f1_score(labels, each, average="macro"), abs=1e-12)
        of_common = rows[Key(name, "macro F1 of 1 classes", TITLE)].estimate
        assert of_common == pytest.approx(f1_score(labels[:, 0], each[:, 0]), abs=1e-12)
    difference = rows[Key("pretrained", "macro F1 of 1 classes", TITLE, minus="random")]

    def by_hand(row):
        ours, theirs = (called[name][row, 0] for name in ("pretrained", "random"))
        return _f1(labels[row, 0], ours) - _f1(labels[row, 0], theirs)

    np.testing.assert_allclose((difference.low, difference.high), bounds(data.test.patients, by_hand), atol=1e-9)
    assert difference.low > 0


def test_the_challenge_is_scored_where_its_classes_are(small):
    assert small[3]["unscored"] == SCORED_CLASSES
    assert CHALLENGE not in {key.metric for key in small[2]}
    rng = np.random.default_rng(2)
    classes = ("extra", *SCORED_CLASSES[::-1])  # another order, and one class more
    val, test = rng.normal(size=(2, NUM, 27))
    val_labels, labels = val > 1, test > 1
    val_labels[:, 5] = False  # never answered
    data = _data(val_labels, labels, classes)
    models = _models(val, test, noise={"pretrained": 0.2, "random": 2.0})
    rows, facts = _measure(models, data, dataclasses.replace(REPORT, resamples=100))
    assert facts["unscored"] == ()
    columns = [classes.index(name) for name in SCORED_CLASSES]
    for name, each in models.items():
        answers = np.zeros((NUM, 27), int)
        for column in range(27):
            if column != 5:
                answers[:, column] = _decided(each, data, column)[2]
        expected = estimate(challenge_score(labels[:, columns].astype(int), answers[:, columns]), NUM)
        interval = rows[Key(name, CHALLENGE, TITLE)]
        assert interval.estimate == pytest.approx(expected, abs=1e-12)
        assert interval.low < interval.estimate < interval.high
    assert rows[Key("pretrained", CHALLENGE, TITLE, minus="random")].low > 0


def test_no_class_with_both_labels_in_both_splits(small):
    data, models, _, _ = small
    val, test = data.val.labels.copy(), data.test.labels.copy()
    val[:, 0], test[:, 1:] = 0, 0
    rows, facts = _measure(models, _data(val, test, CLASSES), dataclasses.replace(REPORT, resamples=100))
    assert all(each.undecided and not _metrics_of(rows, each.name) for each in facts["classes"])
    macro = rows[Key("pretrained", "macro F1", TITLE)]
    assert math.isnan(macro.estimate)
    assert macro.reason
    assert facts["classes"][0].threshold is None


def test_groups_are_of_the_classes_that_are_common_in_them(small):
    data, models, _, _ = small
    site = np.where(np.arange(NUM) < 200, "A", np.where(np.arange(NUM) < 280, "B", "C")).astype(object)
    rows, groups = MultiLabel().groups(models, data, dataclasses.replace(REPORT, groups={"site": site}))
    labels, scores, patients = data.test.labels, models["pretrained"].outputs, data.test.patients
    assert [(group.group, group.records) for group in groups] == [("A", 200), ("B", 80), ("C", 20)]
    for group in groups[:2]:
        own = site == group.group
        enough = [
            column for column in range(5) if min(labels[own, column].sum(), (1 - labels[own, column]).sum()) >= 10
        ]
        assert group.counted == len(enough) > 0
        assert group.patients == len(np.unique(patients[own]))

        def by_hand(drawn, own=own, enough=enough):
            drawn = drawn[own[drawn]]
            return np.mean([auroc_of_pairs(labels[drawn, column], scores[drawn, column]) for column in enough])

        interval = rows[Key("pretrained", "macro AUROC", TITLE, part=group.part)]
        assert interval.estimate == pytest.approx(by_hand(np.arange(NUM)), abs=1e-12)
        np.testing.assert_allclose((interval.low, interval.high), bounds(patients, by_hand), atol=1e-9)
    assert (groups[2].counted, groups[2].reason) == (0, "too few records")
    assert {(key.part, key.metric, key.minus) for key in rows} == {
        (f"site: {name}", "macro AUROC", "") for name in "AB"
    }


@pytest.mark.parametrize("lost", ["outputs", "val_outputs"])
def test_calibration_needs_answers_for_both_sides(small, lost):
    data, models, _, _ = small
    with pytest.raises(ValueError, match="needs answers for the validation and for the test records"):
        _measure({"pretrained": dataclasses.replace(models["pretrained"], **{lost: None})}, data)
