"""Baselines, thresholds, groups and neighbours of the report, each on data whose answer is known."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import f1_score, precision_score, r2_score, recall_score, roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.features.measurements import median_beat_features, median_beat_preprocessor
from ecgjax.evaluation.models import boosted
from ecgjax.studies.comparison import Contender
from ecgjax.studies.contenders import boosted_contender
from ecgjax.studies.decision_curve import TREAT_ALL, net_benefits
from ecgjax.studies.neighbourhood import neighbourhoods
from ecgjax.studies.operating import by_group, operate, platt

RNG = np.random.default_rng(0)
PARTS = {"train": 200, "val": 200, "test": 400}


def _data(labels):
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


def _divide(values, data):
    return SplitFeatures(**{name: values[getattr(data, name).records] for name in PARTS})


def test_trees_find_what_a_line_cannot_and_are_chosen_on_validation(monkeypatch):
    monkeypatch.setattr(boosted, "_TREES", 40)
    features = RNG.uniform(-1, 1, (800, 3))
    labels = (features[:, 0] * features[:, 1] > 0).astype(np.int64)  # exclusive or
    features[::9, 2] = np.nan
    data = _data(labels)
    trees = boosted_contender(_divide(features, data), data, title="trees", seed=0)
    assert roc_auc_score(data.test.labels, trees.scores) > 0.85
    assert trees.val_auroc == pytest.approx(roc_auc_score(data.val.labels, trees.val_scores), abs=1e-12)
    reversed_ = _data(np.where(np.isin(np.arange(800), data.val.records), 1 - labels, labels))
    other = boosted_contender(_divide(features, data), reversed_, title="trees", seed=0)
    assert other.selected != trees.selected, "validation labels decide"
    with pytest.raises(DataError, match="no trees can be fitted: all 200 records are positive in the train split"):
        boosted_contender(_divide(features, data), _data(np.r_[np.ones(200, int), labels[200:]]), title="", seed=0)


@pytest.mark.parametrize("kind", ["multilabel", "quantity"])
def test_trees_of_every_kind_are_those_of_the_best_stage(monkeypatch, kind):
    monkeypatch.setattr(boosted, "_TREES", 6)
    x = RNG.uniform(-1, 1, (300, 3))
    hidden = x[:, 0] * x[:, 1]
    lost = np.zeros(300, np.int64)  # a class that no training record has
    lost[200:] = x[200:, 2] > 0
    y = hidden if kind == "quantity" else np.stack([hidden > 0, lost, hidden > 0.2], axis=1).astype(np.int64)
    probe = boosted.fit_boosted(
        kind, x[:200], y[:200], val_features=x[200:], val_targets=y[200:], classes=("a", "b", "c"), seed=0
    )
    values = {}
    for leaves in boosted._LEAVES:
        settings = {"max_leaf_nodes": leaves, "learning_rate": 0.05, "early_stopping": False, "random_state": 0}
        for trees in range(1, 7):
            if kind == "quantity":
                model = HistGradientBoostingRegressor(max_iter=trees, **settings).fit(x[:200], y[:200])
                values[trees, leaves] = r2_score(y[200:], out := model.predict(x[200:])), out
                continue
            out = np.zeros((100, 3))
            for column in (0, 2):
                model = HistGradientBoostingClassifier(max_iter=trees, **settings).fit(x[:200], y[:200, column])
                out[:, column] = model.decision_function(x[200:])
            values[trees, leaves] = roc_auc_score(y[200:], out, average="macro"), out
    (trees, leaves), (best, out) = max(values.items(), key=lambda each: each[1][0])
    assert probe.selected == f"{trees} trees of {leaves} leaves"
    assert probe.val_metric == pytest.approx(best, abs=1e-9)
    np.testing.assert_allclose(probe.predict(x[200:]), out, rtol=1e-9, atol=1e-12)


def test_median_beat_is_reduced_and_the_rate_kept():
    data = _data(np.arange(800) % 2)
    beats, intervals = RNG.normal(size=(800, 12, 8)), RNG.normal(size=(800, 3))
    beats[5] = np.nan
    features = median_beat_features(_divide(beats, data), _divide(intervals, data), rr_column=1)
    np.testing.assert_array_equal(features.test[:, -1], intervals[data.test.records, 1])
    fitted = median_beat_preprocessor(train_records=200).fit(features.train)
    assert fitted.transform(features.test).shape == (400, 41)
    assert np.isfinite(fitted.transform(features.train)).all()
    few = median_beat_preprocessor(train_records=10)
    assert few.fit_transform(features.train[10:20]).shape == (10, 10)


def test_platt_gives_frequencies_and_never_turns_a_ranking_round():
    log_odds = RNG.normal(-1, 1.5, 4000)
    labels = (RNG.random(4000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    found = platt(labels, 0.01 * log_odds + 7)(0.01 * log_odds + 7)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-log_odds)), atol=0.06)
    np.testing.assert_allclose(platt(labels, -log_odds)(log_odds), labels.mean(), atol=1e-12)
    assert 0 < platt(labels, np.zeros(4000))(np.zeros(2))[0] < 1


@pytest.fixture(scope="module")
def judged():
    hidden = RNG.normal(-1, 1.5, 800)
    data = _data((RNG.random(800) < 1 / (1 + np.exp(-hidden))).astype(np.int64))
    contenders = {
        name: Contender(title=name, scores=scores[400:], val_scores=scores[200:400], val_auroc=0.5, selected="")
        for name, scores in {"good": hidden, "blind": RNG.normal(size=800)}.items()
    }
    return data, hidden, operate(contenders, data, resamples=200, seed=0, prevalence=0.02)


def test_thresholds_come_from_validation(judged):
    data, hidden, (good, blind) = judged
    val, labels = hidden[200:400], data.val.labels
    # F1 on validation is best at the threshold chosen, and the test's F1 is at that one and no other.
    best = max(np.unique(val), key=lambda t: (f1_score(labels, val >= t), t))
    assert good.metrics["F1"].estimate == pytest.approx(f1_score(data.test.labels, hidden[400:] >= best), abs=1e-12)
    assert good.metrics["sensitivity"].estimate > blind.metrics["sensitivity"].estimate
    assert good.metrics["specificity"].estimate == pytest.approx(0.9, abs=0.08)
    assert good.metrics["Brier"].estimate < blind.metrics["Brier"].estimate
    low, high = good.metrics["slope"].low, good.metrics["slope"].high
    assert low < 1 < high, "calibrated on validation, so on the test records too"


def test_decisions_are_at_the_threshold_of_the_best_f1(judged):
    data, _, (good, _) = judged
    labels, called = data.test.labels, good.probabilities >= good.threshold
    sensitivity, specificity = recall_score(labels, called), recall_score(labels, called, pos_label=0)
    true = 0.02 * sensitivity
    expected = {
        "sensitivity": sensitivity, "specificity": specificity, "PPV": precision_score(labels, called),
        "NPV": precision_score(labels, called, pos_label=0),
        "PPV at 0.02": true / (true + 0.98 * (1 - specificity)),
        "NPV at 0.02": 0.98 * specificity / (0.98 * specificity + 0.02 - true),
    }  # fmt: skip
    assert {name: interval.estimate for name, interval in good.decisions.items()} == pytest.approx(expected, abs=1e-12)
    assert all(each.low < each.estimate < each.high for each in good.decisions.values())
    assert good.decisions["PPV at 0.02"].high < good.decisions["PPV"].low


def test_net_benefit_beside_treating_everybody(judged):
    data, _, models = judged
    labels, patients = data.test.labels, data.test.patients
    good, blind, everybody = net_benefits(models, data, treat_at=(0.2, 0.4), resamples=200, seed=0)
    assert (good.name, everybody.name, everybody.over_all) == ("good", TREAT_ALL, {})

    def worth(called, threshold):
        return called * np.where(labels == 1, 1, -threshold / (1 - threshold))

    codes = np.unique(patients)
    drawn = codes[np.random.default_rng(0).integers(len(codes), size=(200, len(codes)))]
    rows = [np.concatenate([np.flatnonzero(patients == code) for code in draw]) for draw in drawn]
    for threshold in (0.2, 0.4):
        model = worth(models[0].probabilities >= threshold, threshold)
        over = model - worth(np.ones(len(labels)), threshold)
        assert good.benefits[threshold].estimate == pytest.approx(model.mean(), abs=1e-12)
        assert good.over_all[threshold].estimate == pytest.approx(over.mean(), abs=1e-12)
        for interval, each in ((good.benefits[threshold], model), (good.over_all[threshold], over)):
            bounds = np.quantile([each[row].mean() for row in rows], [0.025, 0.975])
            np.testing.assert_allclose((interval.low, interval.high), bounds, atol=1e-12)
    assert good.benefits[0.4].low > max(0, everybody.benefits[0.4].high)
    assert blind.over_all[0.2].low < 0.02, "nothing to be had from a model that sees nothing"
    assert net_benefits(models, data, treat_at=(), resamples=200, seed=0) == ()


def test_groups_are_measured_at_the_threshold(judged):
    data, _, (good, _) = judged
    sex = np.repeat(np.array(["female", "male", "missing"], object), [190, 190, 20])
    groups = {group.group: group for group in by_group(good, data, groups={"sex": sex}, resamples=200, seed=0)}
    assert {name: group.records for name, group in groups.items()} == {"female": 190, "male": 190, "missing": 20}
    women = sex == "female"
    found = recall_score(data.test.labels[women], good.probabilities[women] >= good.threshold)
    assert groups["female"].metrics["sensitivity"].estimate == pytest.approx(found, abs=1e-12)


def test_neighbours_of_one_patient_and_of_one_label():
    patients, labels = np.repeat(np.arange(40), 2), np.repeat(np.arange(40) % 4 == 0, 2).astype(int)
    of_patient = np.repeat(RNG.normal(size=(40, 8)), 2, axis=0) + 0.01 * RNG.normal(size=(80, 8))
    of_label = RNG.normal(size=(80, 8)) * 0.1 + labels[:, None] * np.eye(8)[0] * 5
    patient, mixed, _, label = neighbourhoods(
        {"identity": of_patient, "diagnosis": of_label}, labels=labels, patients=patients, resamples=200, seed=0
    )
    assert (patient.sought, label.sought) == ("same patient", "positive finds positive")
    assert patient.metrics["recall@1"].estimate == 1
    assert label.metrics["recall@1"].estimate == 1
    assert label.queries == labels.sum()
    assert mixed.metrics["recall@1"].estimate < 0.8
