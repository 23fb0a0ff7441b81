"""Results for a quantity and for several classes: every number against scikit-learn and resampling by hand."""

import math
import types

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from data_pipelines.errors import DataError
from ecgjax.data.tasks import earlier_task
from ecgjax.evaluation.metrics.clustered_auroc import FEW_PATIENTS, clustered_auroc_interval
from ecgjax.evaluation.results import Key
from ecgjax.studies.one_task.multilabel import BY_CLASS
from ecgjax.studies.one_task.quantity import one_a_patient
from ecgjax.studies.questions import check_answerable
from tests.ecgjax.studies.report.small_tasks import CLASSES, FINDINGS, NUM, PRESSURE, SPLITS, small_data, small_task
from tests.support.resampled import auroc_of_pairs, bounds

TEST = SPLITS["test"]
WOMEN = TEST // 2 % 2 == 1


def test_every_number_of_a_yes_or_no():
    one = small_task("binary")
    labels = one.data.test.labels
    for name, answers in one.models.items():
        auroc = one.value(name, "AUROC")
        assert auroc.estimate == pytest.approx(roc_auc_score(labels, answers.outputs), abs=1e-9)
        expected = average_precision_score(labels, answers.outputs)
        assert one.value(name, "AUPRC").estimate == pytest.approx(expected, abs=1e-9)
        if name != "supervised":  # which is never wrong
            assert auroc.low < auroc.estimate < auroc.high
    assert one.value("pretrained", "AUROC", minus="random").low > 0
    assert len(one.facts["shuffled_labels"]["aurocs"]) == 4


def test_every_number_of_a_quantity():
    one, truth = small_task("quantity"), PRESSURE[TEST]
    assert list(one.models)[-1] == "mean"
    for name, answers in one.models.items():
        predicted, found = answers.outputs, {metric: one.value(name, metric) for metric in ("R²", "RMSE", "MAE")}
        assert found["R²"].estimate == pytest.approx(r2_score(truth, predicted), abs=1e-9)
        assert found["RMSE"].estimate == pytest.approx(root_mean_squared_error(truth, predicted), abs=1e-9)
        assert found["MAE"].estimate == pytest.approx(mean_absolute_error(truth, predicted), abs=1e-9)
        if name != "mean":
            r = np.corrcoef(truth, predicted)[0, 1]
            assert one.value(name, "Pearson's r").estimate == pytest.approx(r, abs=1e-9)
            assert found["R²"].low < found["R²"].estimate < found["R²"].high
    assert one.value("mean", "Pearson's r").reason
    assert one.value("pretrained", "R²", minus="random").low > 0


def test_agreement_takes_one_record_a_patient():
    one = small_task("quantity")
    rows = one_a_patient(TEST // 2)
    np.testing.assert_array_equal(rows, np.arange(0, 120, 2))
    agreement = one.facts["agreement"]["supervised"]  # off by 1 and nothing else
    assert (agreement.number, agreement.bias) == (60, pytest.approx(1))
    assert agreement.upper - agreement.lower == pytest.approx(0, abs=1e-9)
    difference = (one.models["pretrained"].outputs - PRESSURE[TEST])[rows]
    assert one.facts["agreement"]["pretrained"].bias == pytest.approx(difference.mean())


def test_errors_by_group():
    one = small_task("quantity")
    groups = {group.group: group for group in one.groups}
    assert list(groups) == ["female", "male", "below 40", "40 to 60", "75 and more", "missing"]
    error = one.models["pretrained"].outputs - PRESSURE[TEST]
    young = np.arange(120) % 8 < 2
    group = groups["below 40"]
    assert (group.records, group.patients) == (young.sum(), young.sum() // 2)
    mae = one.value("pretrained", "MAE", part="age: below 40")
    assert mae.estimate == pytest.approx(np.abs(error[young]).mean())
    gap = one.value("pretrained", "bias", part="age: below 40", minus="all other records")
    assert gap.estimate == pytest.approx(error[young].mean() - error[~young].mean())


def test_every_class_and_what_is_left_out():
    one, labels = small_task("multilabel"), FINDINGS[TEST]
    by_name = {each.name: each for each in one.facts["classes"]}
    assert list(by_name) == list(CLASSES)
    for column, each in enumerate(one.facts["classes"]):
        assert each.positives == labels[:, column].sum()
        assert each.train_positives == FINDINGS[SPLITS["train"], column].sum()
        if each.name == "gone":
            assert each.reason == "none of 120 records is positive"
            assert not any(key.part == "gone" for key in one.results)
            continue
        for model in BY_CLASS:
            expected = roc_auc_score(labels[:, column], one.models[model].outputs[:, column])
            assert one.value(model, "AUROC", part=each.name).estimate == pytest.approx(expected, abs=1e-9)
    assert by_name["af"].patients == len(np.unique((TEST // 2)[labels[:, 0]]))
    for name, answers in one.models.items():
        of_class = {c: roc_auc_score(labels[:, c], answers.outputs[:, c]) for c in (0, 1, 2, 4)}
        assert one.value(name, "macro AUROC").estimate == pytest.approx(np.mean(list(of_class.values())), abs=1e-9)
        common = [of_class[column] for column in (0, 1, 4)]  # not the rare one
        assert one.value(name, "macro AUROC of 3 classes").estimate == pytest.approx(np.mean(common), abs=1e-9)
    # The rare class leaves the mean over all without an interval, and is not compared.
    assert one.compared == "macro AUROC of 3 classes"
    of = {name: one.value(name, one.compared).estimate for name in one.models}
    for name in list(one.models)[1:]:
        difference = one.value("pretrained", one.compared, minus=name)
        assert difference.estimate == pytest.approx(of["pretrained"] - of[name], abs=1e-12)
        assert not math.isnan(difference.low)


def test_intervals_are_over_patients_and_differences_are_paired():
    one, patients, truth = small_task("quantity"), TEST // 2, PRESSURE[TEST]
    ours, theirs = (one.models[name].outputs for name in ("pretrained", "random"))
    error = np.abs(ours - truth)
    expected = {
        Key("pretrained", "R²", "wedge_pressure"): lambda rows: r2_score(truth[rows], ours[rows]),
        Key("pretrained", "R²", "wedge_pressure", minus="random"): (
            lambda rows: r2_score(truth[rows], ours[rows]) - r2_score(truth[rows], theirs[rows])
        ),
        Key("pretrained", "MAE", "wedge_pressure", minus="all other records", part="sex: female"): (
            lambda rows: error[rows][WOMEN[rows]].mean() - error[rows][~WOMEN[rows]].mean()
        ),
    }
    for key, metric in expected.items():
        np.testing.assert_allclose((one.results[key].low, one.results[key].high), bounds(patients, metric), atol=1e-9)


def test_intervals_of_classes_are_over_patients():
    one, patients, labels = small_task("multilabel"), TEST // 2, FINDINGS[TEST]
    ours, theirs = (one.models[name].outputs for name in ("pretrained", "random"))

    def of_women(rows):
        women = rows[WOMEN[rows]]
        return np.mean([auroc_of_pairs(labels[women, column], ours[women, column]) for column in (0, 1, 4)])

    def difference(rows):
        return np.subtract(*(auroc_of_pairs(labels[rows, 0], scores[rows, 0]) for scores in (ours, theirs)))

    assert next(group for group in one.groups if group.group == "female").counted == 3
    found = {
        of_women: one.value("pretrained", "macro AUROC", part="sex: female"),
        difference: one.value("pretrained", "AUROC", minus="random", part="af"),
    }
    for metric, interval in found.items():
        np.testing.assert_allclose((interval.low, interval.high), bounds(patients, metric), atol=1e-9)
    # Of so few patients that resamples of them would be too much alike.
    assert len(np.unique(patients[labels[:, 0]])) <= FEW_PATIENTS
    of_few = clustered_auroc_interval(labels[:, 0].astype(int), ours[:, 0], patients=patients)
    shown = one.value("pretrained", "AUROC", part="af")
    assert (shown.low, shown.high, shown.resamples, shown.reason) == (of_few.low, of_few.high, 0, "")
    assert shown.estimate == pytest.approx(roc_auc_score(labels[:, 0], ours[:, 0]), abs=1e-12)


def test_what_cannot_be_judged_is_refused():
    data = small_data("quantity")
    data.test.labels[:] = 14.0
    index = types.SimpleNamespace(label=lambda name: PRESSURE, fold=np.ones(NUM, np.int64))
    with pytest.raises(DataError, match="all 120 records have the same value on the test side"):
        check_answerable(data, index)


def test_questions_of_older_configs_are_lines():
    assert earlier_task(label="lvef", rule="values", threshold=None) == "lvef"
    assert earlier_task(label="grade", rule="classes", threshold=None) == "grade"
    assert earlier_task(label="form:*", rule="present", threshold=None) == "form:*"
    assert earlier_task(label="superdiagnostic:NORM", rule="present", threshold=None) == "superdiagnostic:NORM"
    assert earlier_task(label="sex", rule="present", threshold=None) == "sex=1"
    assert earlier_task(label="lvef", rule="below", threshold=40.0) == "lvef<40"
    assert earlier_task(label="", rule="present", threshold=None) == ""
