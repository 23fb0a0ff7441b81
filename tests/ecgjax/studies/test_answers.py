"""The report of a quantity and of several classes: every number against scikit-learn, and what the page says."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score, root_mean_squared_error

from data_pipelines.errors import DataError
from data_pipelines.physiology.median_beat import NAMES as MEASUREMENTS
from ecgjax.data.groups import bands
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask, earlier_task
from ecgjax.evaluation.features import model_inputs as module
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.features.measurements import demographic_features
from ecgjax.evaluation.metrics.clustered_auroc import FEW_PATIENTS, clustered_auroc_interval
from ecgjax.evaluation.models import linear
from ecgjax.pages import write
from ecgjax.pages.images import Image
from ecgjax.studies.answers import BY_CLASS, one_a_patient
from ecgjax.studies.one_task_other import answer
from ecgjax.studies.report.answer_figures import bland_altman_figure, classes_figure, panels_figure, scatter_figure
from ecgjax.studies.report.answers_page import AnswersEvaluation, answers_table, write_answers_report
from ecgjax.studies.report.report import Provenance

RNG = np.random.default_rng(0)
NUM = 320
HIDDEN = RNG.normal(size=(NUM // 2, 2)).repeat(2, axis=0) + 0.2 * RNG.normal(size=(NUM, 2))
PRESSURE = 14 + 5 * HIDDEN[:, 0]
SPLITS = {"train": np.arange(120), "val": np.arange(120, 200), "test": np.arange(200, NUM)}

# The third class has three positive test records, the fourth none, the fifth no training record.
CLASSES = ("af", "lvh", "rare", "gone", "new")
FINDINGS = np.stack([HIDDEN[:, 0] > 0.5, HIDDEN[:, 1] > 0.3, HIDDEN[:, 0] > 1.2, HIDDEN[:, 1] > 0, HIDDEN[:, 0] < 0], 1)
FINDINGS[SPLITS["test"][HIDDEN[200:, 0].argsort()[:-3]], 2] = False
FINDINGS[SPLITS["test"], 3] = False
FINDINGS[SPLITS["train"], 4] = False
GROUPS = {
    "sex": np.where(SPLITS["test"] // 2 % 2, "female", "male").astype(object),
    "age": bands(np.tile([30.0, 30.0, 50.0, 50.0, np.nan, np.nan, 80.0, 80.0], NUM // 8)[SPLITS["test"]], (40, 60, 75)),
}
MODELS = ["pretrained", "nearest", "random", "supervised", "intervals", "median_beat", "demographics", "boosted"]


class _Encoder:
    """Sees what signals hold, their record's number, with so much noise."""

    def __init__(self, noise):
        self._noise = noise

    def embed(self, signals):
        rows = signals[:, 0, 0].astype(np.int64)
        noise = np.random.default_rng(5).normal(size=(NUM, 6))
        return np.c_[HIDDEN + self._noise * noise[:, :2], noise[:, 2:]][rows].astype(np.float32)


class _Network:
    selected = "step 5, best on the validation records"

    def __init__(self, kind):
        self._kind = kind

    def scores(self, signals):
        rows = signals[:, 0, 0].astype(np.int64)
        return (PRESSURE + 1 if self._kind == "quantity" else HIDDEN[:, [0, 1, 0, 1, 0]])[rows]


def _training(seen):
    def train(**given):
        seen.update(given)
        return _Network(given["kind"])

    return train


def _measured(data, **settings):
    parts = {name: len(getattr(data, name).records) for name in SPLITS}
    draw = np.random.default_rng(1)
    values = SplitFeatures(**{name: draw.normal(size=(n, len(MEASUREMENTS))) for name, n in parts.items()})
    beats = SplitFeatures(**{name: draw.normal(size=(n, 6, 8)) for name, n in parts.items()})
    return values, beats, {"no beat found": 2}


def _data(kind):
    task = QuantityTask(label="wedge_pressure") if kind == "quantity" else MultiLabelTask(task="findings")
    labels = PRESSURE if kind == "quantity" else FINDINGS.astype(np.int64)
    parts = {
        name: LabelledRecords(records=records, labels=labels[records], patients=records // 2, unlabelled=1)
        for name, records in SPLITS.items()
    }
    return ProbeData(
        task=task, **parts, train_available=parts["train"], label_fraction=1.0, seed=0, excluded={"duplicate": 4},
        classes=CLASSES if kind == "multilabel" else (),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """Kind → its evaluation, and what the network was trained with."""
    age = np.tile([30.0, 30.0, 50.0, 50.0, np.nan, np.nan, 80.0, 80.0], NUM // 8)
    demographics = np.stack([age, np.arange(NUM) // 2 % 2], axis=1).astype(np.float32)
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "interval_features", _measured)
        patch.setattr(linear, "_STRENGTHS", (1e-3, 0.1))
        for kind in ("quantity", "multilabel"):
            seen = {}
            result = answer(
                _data(kind), read=lambda records: np.broadcast_to(records[:, None, None], (len(records), 4, 8)),
                sampling_rate_hz=100, demographics=demographics, pretrained=_Encoder(0.3), random=_Encoder(3.0),
                train_supervised=_training(seen), groups=GROUPS,
                bootstrap=200, seed=0, progress=False,
            )  # fmt: skip
            provenance = Provenance(
                data="cohort", fingerprint="abc123", simulated=True, encoder="resnet18", checkpoint_step=12,
                config={"seed": 0}, command="python -m ecgjax.evaluate", cautions=("A caution.",),
            )  # fmt: skip
            unit = "mmHg" if kind == "quantity" else ""
            evaluation = AnswersEvaluation(answers=result, data=_data(kind), unit=unit, provenance=provenance)
            out[kind] = evaluation, seen
    return out


def test_every_number_of_a_quantity(found):
    evaluation, seen = found["quantity"]
    answers, truth = evaluation.answers, PRESSURE[SPLITS["test"]]
    assert [row.name for row in answers.rows] == [*MODELS, "mean"]
    assert seen["kind"] == "quantity"
    np.testing.assert_array_equal(seen["train_patients"], SPLITS["train"] // 2)
    for row in answers.rows:
        predicted = answers.outputs[row.name]
        assert row.metrics["R²"].estimate == pytest.approx(r2_score(truth, predicted), abs=1e-9)
        assert row.metrics["RMSE"].estimate == pytest.approx(root_mean_squared_error(truth, predicted), abs=1e-9)
        assert row.metrics["MAE"].estimate == pytest.approx(mean_absolute_error(truth, predicted), abs=1e-9)
        if row.name != "mean":
            r = np.corrcoef(truth, predicted)[0, 1]
            assert row.metrics["Pearson's r"].estimate == pytest.approx(r, abs=1e-9)
            assert row.metrics["R²"].low < row.metrics["R²"].estimate < row.metrics["R²"].high
    assert answers.row("mean").metrics["Pearson's r"].reason
    assert answers.row("random").difference.low > 0
    np.testing.assert_array_equal(answers.outputs["mean"], PRESSURE[SPLITS["train"]].mean())


def test_agreement_takes_one_record_a_patient(found):
    answers = found["quantity"][0].answers
    rows = one_a_patient(SPLITS["test"] // 2)
    np.testing.assert_array_equal(rows, np.arange(0, 120, 2))
    agreement = answers.agreement["labels only, end to end"]  # off by 1 and nothing else
    assert (agreement.number, agreement.bias) == (60, pytest.approx(1))
    assert agreement.upper - agreement.lower == pytest.approx(0, abs=1e-9)
    difference = (answers.outputs["pretrained"] - PRESSURE[SPLITS["test"]])[rows]
    assert answers.agreement["pretrained, linear probe"].bias == pytest.approx(difference.mean())


def test_errors_by_group(found):
    answers = found["quantity"][0].answers
    groups = {group.group: group for group in answers.groups}
    assert list(groups) == ["female", "male", "below 40", "40 to 60", "75 and more", "missing"]
    error = answers.outputs["pretrained"] - PRESSURE[SPLITS["test"]]
    young = np.arange(120) % 8 < 2
    group = groups["below 40"]
    assert (group.records, group.patients) == (young.sum(), young.sum() // 2)
    assert group.metrics["MAE"].estimate == pytest.approx(np.abs(error[young]).mean())
    assert group.gaps["bias"].estimate == pytest.approx(error[young].mean() - error[~young].mean())


def test_every_class_and_what_is_left_out(found):
    answers = found["multilabel"][0].answers
    labels = FINDINGS[SPLITS["test"]]
    by_name = {each.name: each for each in answers.classes}
    assert list(by_name) == list(CLASSES)
    for column, each in enumerate(answers.classes):
        assert each.positives == labels[:, column].sum()
        assert each.train_positives == FINDINGS[SPLITS["train"], column].sum()
        if each.name == "gone":
            assert (each.aurocs, each.difference) == ({}, None)
            assert each.reason == "none of 120 records is positive"
            continue
        for model in BY_CLASS:
            expected = roc_auc_score(labels[:, column], answers.outputs[model][:, column])
            assert each.aurocs[model].estimate == pytest.approx(expected, abs=1e-9)
    assert by_name["af"].patients == len(np.unique((SPLITS["test"] // 2)[labels[:, 0]]))
    for row in answers.rows:
        metrics, outputs = row.metrics, answers.outputs[row.name]
        of_class = {c: roc_auc_score(labels[:, c], outputs[:, c]) for c in (0, 1, 2, 4)}
        assert metrics["macro AUROC"].estimate == pytest.approx(np.mean(list(of_class.values())), abs=1e-9)
        common = [of_class[column] for column in (0, 1, 4)]  # not the rare one
        assert metrics["macro AUROC of 3 classes"].estimate == pytest.approx(np.mean(common), abs=1e-9)
    # The rare class leaves the mean over all without an interval, and is not compared.
    assert answers.compared == "macro AUROC of 3 classes"
    of = {row.name: row.metrics[answers.compared].estimate for row in answers.rows}
    for row in answers.rows[1:]:
        assert row.difference.estimate == pytest.approx(of["pretrained"] - of[row.name], abs=1e-12)
        assert not math.isnan(row.difference.low)


@pytest.mark.parametrize("kind", ["quantity", "multilabel"])
def test_the_page_and_its_files(found, kind, tmp_path, monkeypatch):
    blank = Image(data=b"", kind="png", width=1, height=1)
    monkeypatch.setattr(write, "image_of", lambda picture: blank)  # drawing takes far longer than all else
    evaluation, _ = found[kind]
    report = write_answers_report(evaluation, tmp_path, default_config={"seed": 0})
    html, markdown = (path.read_text(encoding="utf-8") for path in (report.html, report.markdown))
    parts = ["SIMULATED DATA", "A caution.", "abc123", "all training labels", "no beat found", "step 12", "female"]
    if kind == "quantity":
        parts += ["RMSE, mmHg", "Limits of agreement", "Bland–Altman", "mean of the training labels", "bias, mmHg"]
    else:
        parts += [
            "gone (none of 120 records is positive)", "Fewer than 10 positive test records, which tell little: rare",
            "Without a positive training record, hence not learned: new", "4 of 5 classes", "positive for any class",
            "gone (test: none of 120 records is positive)", "macro F1 of 3 classes",
            "No CinC 2021 score: its classes AF, AFL, BBB and others are not in this task (26 of 26).",
            str(evaluation.answers.operating.classes[0].metrics["slope"]),
            evaluation.answers.operating.models[2].differences["macro F1"].signed(),
        ]  # fmt: skip
    parts += [str(row.metrics[next(iter(row.metrics))]) for row in evaluation.answers.rows]
    for part in parts:
        assert part in html
        assert part in markdown
    results = json.loads((report.html.parent / "results.json").read_text(encoding="utf-8"))
    assert results["task"]["kind"] == kind
    assert list(results["models"]) == [row.name for row in evaluation.answers.rows]
    if kind == "multilabel":
        stored = results["operating"]
        assert list(stored["models"]) == MODELS
        expected = evaluation.answers.operating
        assert stored["models"]["random"]["metrics"]["macro F1"]["low"] == expected.models[2].metrics["macro F1"].low
        assert [each["threshold"] for each in stored["classes"]] == [each.threshold for each in expected.classes]
    else:
        assert results["operating"] == {}
    stored = np.load(report.html.parent / "scores.npz")
    np.testing.assert_array_equal(stored["scores_random"], evaluation.answers.outputs["random"])
    assert len(answers_table(evaluation).rows) == len(evaluation.answers.rows)


def _resampled(test, *metrics, seed=0, resamples=200):
    """Percentiles of metrics, functions of record numbers of the test part, over test patients drawn by hand."""
    patients = np.unique(test.patients)
    drawn = np.random.default_rng(seed).integers(len(patients), size=(resamples, len(patients)))
    rows = [np.concatenate([np.flatnonzero(test.patients == patients[code]) for code in draw]) for draw in drawn]
    return [np.nanquantile([metric(each) for each in rows], [0.025, 0.975]) for metric in metrics]


def _auroc(labels, scores):
    return roc_auc_score(labels, scores) if len(np.unique(labels)) == 2 else np.nan


def test_intervals_are_over_patients_and_differences_are_paired(found):
    evaluation, test = found["quantity"][0], _data("quantity").test
    answers = evaluation.answers
    truth, ours, theirs = PRESSURE[SPLITS["test"]], answers.outputs["pretrained"], answers.outputs["random"]
    women = np.arange(NUM)[SPLITS["test"]] // 2 % 2 == 1
    error = np.abs(ours - truth)
    expected = _resampled(
        test,
        lambda rows: r2_score(truth[rows], ours[rows]),
        lambda rows: r2_score(truth[rows], ours[rows]) - r2_score(truth[rows], theirs[rows]),
        lambda rows: error[rows][women[rows]].mean() - error[rows][~women[rows]].mean(),
    )
    female = next(group for group in answers.groups if (group.column, group.group) == ("sex", "female"))
    of_classes = found["multilabel"][0].answers
    labels, test = FINDINGS[SPLITS["test"]], _data("multilabel").test
    ours, theirs = (of_classes.outputs[name][:, 0] for name in ("pretrained", "random"))
    all_ours = of_classes.outputs["pretrained"]
    expected += _resampled(
        test,
        lambda rows: roc_auc_score(labels[rows, 0], ours[rows]) - roc_auc_score(labels[rows, 0], theirs[rows]),
        lambda rows: np.mean([
            _auroc(labels[rows[women[rows]], column], all_ours[rows[women[rows]], column]) for column in (0, 1, 4)
        ]),
    )  # fmt: skip
    women_s = next(group for group in of_classes.groups if (group.column, group.group) == ("sex", "female"))
    assert women_s.classes == 3
    af = of_classes.classes[0]
    intervals = (
        answers.row("pretrained").metrics["R²"], answers.row("random").difference, female.gaps["MAE"],
        af.difference, women_s.metrics["macro AUROC"],
    )  # fmt: skip
    for interval, bounds in zip(intervals, expected, strict=True):
        np.testing.assert_allclose((interval.low, interval.high), bounds, atol=1e-9)
    # Of so few patients that resamples of them would be too much alike.
    assert len(np.unique(test.patients[labels[:, 0] == 1])) <= FEW_PATIENTS
    of_few = clustered_auroc_interval(labels[:, 0], ours, patients=test.patients)
    shown = af.aurocs["pretrained"]
    assert (shown.low, shown.high, shown.resamples, shown.reason) == (of_few.low, of_few.high, 0, "")
    assert shown.estimate == pytest.approx(roc_auc_score(labels[:, 0], ours), abs=1e-12)


def test_what_is_asked_for_is_no_feature():
    values = SplitFeatures(**{name: np.arange(6.0).reshape(3, 2) for name in SPLITS})
    for task, columns, title in (
        (QuantityTask(label="age_years"), [1], "sex"),
        (BinaryTask(label="sex", rule="present"), [0], "age"),
        (BinaryTask(label="age_years", rule="above", threshold=55.0), [1], "sex"),
        (QuantityTask(label="lvef"), [0, 1], "age and sex"),
        (MultiLabelTask(task="findings"), [0, 1], "age and sex"),
    ):
        kept, name = demographic_features(values, task)
        assert name == title
        np.testing.assert_array_equal(kept.test, values.test[:, columns])


def test_figures_show_what_they_say(found):
    evaluation, truth = found["quantity"][0], PRESSURE[SPLITS["test"]]
    answers = evaluation.answers
    predicted = answers.outputs["pretrained"]
    (axes,) = scatter_figure(truth, predicted, name="p (mmHg)", title="x").axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.c_[truth, predicted])
    assert axes.get_xlim() == axes.get_ylim()
    agreement = answers.agreement["pretrained, linear probe"]
    (axes,) = bland_altman_figure(
        truth, predicted, agreement=agreement, name="p (mmHg)", unit="mmHg", title="x"
    ).axes  # fmt: skip
    assert [line.get_ydata()[0] for line in axes.lines] == [agreement.bias, agreement.upper, agreement.lower]
    assert axes.get_ylabel() == "predicted minus true (mmHg)"
    panels = panels_figure(truth, {row.title: answers.outputs[row.name] for row in answers.rows}, name="p (mmHg)")
    shown = [panel.get_title().replace(",\n", ", ") for panel in panels.axes if panel.get_visible()]
    assert shown == [row.title for row in answers.rows]
    (axes,) = classes_figure(found["multilabel"][0].answers.classes).axes
    assert [text.get_text().split()[0] for text in axes.get_yticklabels()] == ["af", "lvh", "rare", "new"]


def test_what_cannot_be_judged_is_refused():
    data = _data("quantity")
    data.test.labels[:] = 14.0
    with pytest.raises(DataError, match="all 120 records have the same value in the test split"):
        answer(
            data, read=None, sampling_rate_hz=100, demographics=None, pretrained=None, random=None,
            train_supervised=None, bootstrap=100, seed=0, groups={},
        )  # fmt: skip


def test_questions_of_older_configs_are_lines():
    assert earlier_task(label="lvef", rule="values", threshold=None) == "lvef"
    assert earlier_task(label="grade", rule="classes", threshold=None) == "grade"
    assert earlier_task(label="form:*", rule="present", threshold=None) == "form:*"
    assert earlier_task(label="superdiagnostic:NORM", rule="present", threshold=None) == "superdiagnostic:NORM"
    assert earlier_task(label="sex", rule="present", threshold=None) == "sex=1"
    assert earlier_task(label="lvef", rule="below", threshold=40.0) == "lvef<40"
    assert earlier_task(label="", rule="present", threshold=None) == ""
