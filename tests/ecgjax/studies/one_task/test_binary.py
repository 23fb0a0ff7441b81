"""A yes or no: decisions at thresholds from validation, net benefit, groups, each on data whose answer is known."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.calibration import expected_calibration_error
from ecgjax.evaluation.metrics.clustered_auroc import clustered_auroc_interval
from ecgjax.evaluation.metrics.weighting import estimate
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.shuffled_labels import shuffle_control
from ecgjax.evaluation.results import Key
from ecgjax.studies.one_task.binary import TREAT_ALL, Binary, benefit_at, calibrated
from ecgjax.studies.one_task.calibrated import RESAMPLES
from ecgjax.studies.one_task.supplement import REST, Report
from tests.support.resampled import bounds

RNG = np.random.default_rng(0)
PARTS = {"train": 200, "val": 200, "test": 400}
TITLE = "lvef<40"
HIDDEN = RNG.normal(-1, 1.5, 800)
LABELS = (RNG.random(800) < 1 / (1 + np.exp(-HIDDEN))).astype(np.int64)


def _data(labels=LABELS):
    ends = np.cumsum([0, *PARTS.values()])
    parts = {
        name: LabelledRecords(
            records=np.arange(start, stop),
            labels=labels[start:stop],
            patients=np.arange(start, stop) // 2,
            unlabelled=0,
        )
        for name, start, stop in zip(PARTS, ends[:-1], ends[1:], strict=True)
    }
    task = BinaryTask(label="lvef", rule="below", threshold=40.0)
    return ProbeData(task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={})


def _models():
    seen = {"pretrained": HIDDEN, "blind": np.random.default_rng(1).normal(size=800)}
    return {name: Answers(outputs=scores[400:], val_outputs=scores[200:400]) for name, scores in seen.items()}


SEX = np.repeat(np.array(["female", "male", "missing"], object), [190, 190, 20])
REPORT = Report(
    resamples=200, seed=0, groups={"sex": SEX}, treat_at=(0.2, 0.4), prevalence=0.02, shuffles=3, progress=False
)
EMBEDDINGS = SplitFeatures(train=HIDDEN[:200, None], val=HIDDEN[200:400, None], test=HIDDEN[400:, None])


@pytest.fixture(scope="module")
def judged():
    data, models = _data(), _models()
    return data, models, *Binary().measure(models, data, REPORT, embeddings=EMBEDDINGS)


def _of(rows, model, metric, **key):
    return rows[Key(model, metric, TITLE, **key)]


def _called(data, models, threshold=None, model="pretrained"):
    used = calibrated(models[model], data)
    return used.probabilities >= (used.threshold if threshold is None else threshold)


def test_thresholds_come_from_validation(judged):
    data, models, rows, facts = judged
    val, labels = HIDDEN[200:400], data.val.labels
    # F1 on validation is best at the threshold chosen, and the test's F1 is at that one and no other.
    best = max(np.unique(val), key=lambda t: (f1_score(labels, val >= t), t))
    found = {metric: _of(rows, "pretrained", metric) for metric in ("F1", "Brier", "slope", "specificity there")}
    assert found["F1"].estimate == pytest.approx(f1_score(data.test.labels, HIDDEN[400:] >= best), abs=1e-12)
    sensitivity = "sensitivity at 0.9"
    assert _of(rows, "pretrained", sensitivity).estimate > _of(rows, "blind", sensitivity).estimate
    assert found["specificity there"].estimate == pytest.approx(0.9, abs=0.08)
    assert found["Brier"].estimate < _of(rows, "blind", "Brier").estimate
    assert found["slope"].low < 1 < found["slope"].high, "calibrated on validation, so on the test records too"
    assert facts["thresholds"] == {name: calibrated(each, data).threshold for name, each in models.items()}


def test_decisions_are_at_the_threshold_of_the_best_f1(judged):
    data, models, rows, _ = judged
    labels, called = data.test.labels, _called(data, models)
    sensitivity, specificity = recall_score(labels, called), recall_score(labels, called, pos_label=0)
    true, p = 0.02 * sensitivity, calibrated(models["pretrained"], data).probabilities
    expected = {
        "sensitivity": sensitivity, "specificity": specificity, "PPV": precision_score(labels, called),
        "NPV": precision_score(labels, called, pos_label=0),
        "PPV at 0.02": true / (true + 0.98 * (1 - specificity)),
        "NPV at 0.02": 0.98 * specificity / (0.98 * specificity + 0.02 - true),
        "Brier": brier_score_loss(labels, p),
        "ECE": estimate(expected_calibration_error(labels, p), 400),
    }  # fmt: skip
    found = {name: _of(rows, "pretrained", name) for name in expected}
    assert {name: interval.estimate for name, interval in found.items()} == pytest.approx(expected, abs=1e-12)
    assert all(each.low < each.estimate < each.high for name, each in found.items() if name != "ECE")
    assert found["PPV at 0.02"].high < found["PPV"].low
    by_hand = bounds(data.test.patients, lambda drawn: precision_score(labels[drawn], called[drawn]))
    np.testing.assert_allclose((found["PPV"].low, found["PPV"].high), by_hand, atol=1e-12)


def test_net_benefit_beside_treating_everybody(judged):
    data, models, rows, _ = judged
    labels, patients = data.test.labels, data.test.patients

    def worth(called, threshold):
        return called * np.where(labels == 1, 1, -threshold / (1 - threshold))

    for threshold in (0.2, 0.4):
        model = worth(_called(data, models, threshold), threshold)
        everybody = worth(np.ones(len(labels)), threshold)
        name = benefit_at(threshold)
        for interval, each in (
            (_of(rows, "pretrained", name), model),
            (_of(rows, "pretrained", name, minus=TREAT_ALL), model - everybody),
            (_of(rows, TREAT_ALL, name), everybody),
        ):
            assert interval.estimate == pytest.approx(each.mean(), abs=1e-12)
            by_hand = bounds(patients, lambda drawn: each[drawn].mean())  # noqa: B023
            np.testing.assert_allclose((interval.low, interval.high), by_hand, atol=1e-12)
    assert _of(rows, "pretrained", benefit_at(0.4)).low > max(0, _of(rows, TREAT_ALL, benefit_at(0.4)).high)
    few = _of(rows, "blind", benefit_at(0.2), minus=TREAT_ALL)
    assert few.low < 0.02, "nothing to be had from a model that sees nothing"
    assert not [key for key in rows if key.model == TREAT_ALL and key.minus]


def test_what_was_not_asked_for_is_not_measured(judged):
    data, models, rows, _ = judged
    plain = dataclasses.replace(REPORT, treat_at=(), prevalence=None)
    found, _ = Binary().measure(models, data, plain, embeddings=EMBEDDINGS)
    assert {key.metric for key in rows} - {key.metric for key in found} == {
        "PPV at 0.02", "NPV at 0.02", benefit_at(0.2), benefit_at(0.4)
    }  # fmt: skip
    assert repr(found) == repr({key: rows[key] for key in found}), "NaN too"


def test_a_yes_or_no_has_a_control_on_shuffled_labels(judged):
    data, _, _, facts = judged
    control = shuffle_control(EMBEDDINGS, data, shuffles=3, seed=0)
    assert facts["shuffled_labels"] == dataclasses.asdict(control)
    assert len(control.aurocs) == 3


def test_slopes_are_of_no_more_resamples_than_take_a_while(judged):
    data, models, _, _ = judged
    many = dataclasses.replace(REPORT, resamples=RESAMPLES + 100, treat_at=(), shuffles=2)
    rows, _ = Binary().measure({"pretrained": models["pretrained"]}, data, many, embeddings=EMBEDDINGS)
    assert {value.resamples for value in rows.values()} == {RESAMPLES}
    groups, _ = Binary().groups(models, data, many)
    assert _of(groups, "pretrained", "sensitivity", part="sex: female").resamples == RESAMPLES


def test_groups_are_measured_at_the_threshold(judged):
    data, models, _, _ = judged
    rows, groups = Binary().groups(models, data, REPORT)
    labels, patients, called = data.test.labels, data.test.patients, _called(data, models)
    p = calibrated(models["pretrained"], data).probabilities
    assert [(group.column, group.group, group.records) for group in groups] == [
        ("sex", "female", 190), ("sex", "male", 190), ("sex", "missing", 20)
    ]  # fmt: skip
    women, group = SEX == "female", groups[0]
    assert (group.patients, group.counted, group.reason) == (95, labels[women].sum(), "")
    metrics = {
        "sensitivity": lambda rows: called[rows][labels[rows] == 1].mean(),
        "false-positive rate": lambda rows: called[rows][labels[rows] == 0].mean(),
        "mean probability minus frequency": lambda rows: (p - labels)[rows].mean(),
    }
    everybody = np.arange(400)
    for name, metric in metrics.items():

        def own(drawn, side=women, metric=metric):
            return metric(drawn[side[drawn]])

        def gap(drawn, metric=metric):
            return metric(drawn[women[drawn]]) - metric(drawn[~women[drawn]])

        for interval, by_hand in (
            (_of(rows, "pretrained", name, part="sex: female"), own),
            (_of(rows, "pretrained", name, part="sex: female", minus=REST), gap),
        ):
            assert interval.estimate == pytest.approx(by_hand(everybody), abs=1e-12)
            np.testing.assert_allclose((interval.low, interval.high), bounds(patients, by_hand), atol=1e-12)
    assert _of(rows, "pretrained", "AUROC", part="sex: female").estimate == pytest.approx(
        roc_auc_score(labels[women], p[women]), abs=1e-12
    )
    assert Key("pretrained", "AUROC", TITLE, part="sex: female", minus=REST) not in rows
    assert {key.model for key in rows} == {"pretrained"}
    assert not [key for key in rows if key.part.startswith("not ")]


def test_small_groups_are_counted_and_not_measured():
    labels = LABELS.copy()
    site = np.array(["A"] * 380 + ["B"] * 20, object)
    for positives, reason in ((9, "9 events, fewer than 10"), (11, "9 records without an event, fewer than 10")):
        labels[780:] = np.arange(20) < positives
        report = dataclasses.replace(REPORT, groups={"site": site})
        rows, (first, second) = Binary().groups(_models(), _data(labels), report)
        assert (second.group, second.records, second.patients, second.counted) == ("B", 20, 10, positives)
        assert second.reason == reason
        assert {key.part for key in rows} == {"site: A"}
        assert (first.reason, first.part) == ("", "site: A")
        # There is nobody to compare with.
        assert not [key for key in rows if key.minus]
        assert {key.metric for key in rows} == {
            "AUROC", "sensitivity", "false-positive rate", "mean probability minus frequency"
        }  # fmt: skip


def test_the_auroc_of_few_patients_has_another_interval():
    data, models = _data(), _models()
    few = np.where(np.arange(400) < 60, "A", "B").astype(object)
    rows, _ = Binary().groups(models, data, dataclasses.replace(REPORT, groups={"site": few}))
    shown = _of(rows, "pretrained", "AUROC", part="site: A")
    p = calibrated(models["pretrained"], data).probabilities
    expected = clustered_auroc_interval(data.test.labels[:60], p[:60], patients=data.test.patients[:60])
    assert (shown.low, shown.high, shown.resamples) == (expected.low, expected.high, 0)
    assert not math.isnan(shown.low)


def test_no_groups_give_no_rows():
    assert Binary().groups(_models(), _data(), dataclasses.replace(REPORT, groups={})) == ({}, [])


@pytest.mark.parametrize("lost", ["outputs", "val_outputs"])
def test_calibration_needs_answers_for_both_sides(lost):
    answers = dataclasses.replace(_models()["pretrained"], **{lost: None})
    with pytest.raises(ValueError, match="needs answers for the validation and for the test records"):
        calibrated(answers, _data())
