"""Boosted trees of every kind of question: of the best stage on validation, and refused without labels."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score

from data_pipelines.errors import DataError
from ecgjax.evaluation.models import boosted
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import KINDS, NO_MODEL

RNG = np.random.default_rng(0)


def _examples(kind, x, y, *, train, val, classes=()):
    return Examples(kind=KINDS[kind], train=x[train], targets=y[train], val=x[val], val_targets=y[val], classes=classes)


def test_trees_find_what_a_line_cannot_and_are_chosen_on_validation(monkeypatch):
    monkeypatch.setattr(boosted, "_TREES", 40)
    features = RNG.uniform(-1, 1, (800, 3))
    labels = (features[:, 0] * features[:, 1] > 0).astype(np.int64)  # exclusive or
    features[::9, 2] = np.nan
    train, val, test = np.split(np.arange(800), [200, 400])
    trees = fit_boosted(_examples("binary", features, labels, train=train, val=val), seed=0)
    assert roc_auc_score(labels[test], trees.predict(features[test])) > 0.85
    assert trees.val_metric == pytest.approx(roc_auc_score(labels[val], trees.predict(features[val])), abs=1e-12)
    reversed_ = np.where(np.isin(np.arange(800), val), 1 - labels, labels)
    other = fit_boosted(_examples("binary", features, reversed_, train=train, val=val), seed=0)
    assert other.selected != trees.selected, "validation labels decide"
    without = np.r_[np.ones(200, int), labels[200:]]
    with pytest.raises(
        DataError, match="no model can be fitted: all 200 records are positive in the train split"
    ) as caught:
        fit_boosted(_examples("binary", features, without, train=train, val=val), seed=0)
    assert caught.value.reason == NO_MODEL


@pytest.mark.parametrize(("records", "smallest"), [(5, 1), (32, 3), (120, 12), (400, 20)])
def test_leaves_hold_a_tenth_of_few_records_so_that_trees_can_divide_them(monkeypatch, records, smallest):
    monkeypatch.setattr(boosted, "_TREES", 20)
    place = np.arange(records)
    features, labels = place[:, None].astype(float), (place >= records // 2).astype(np.int64)
    trees = fit_boosted(_examples("binary", features, labels, train=place, val=place), seed=0)
    outputs = trees.predict(features)
    assert min(np.unique(outputs, return_counts=True)[1]) >= smallest
    assert roc_auc_score(labels, outputs) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_trees_of_every_kind_are_those_of_the_best_stage(monkeypatch, kind):
    monkeypatch.setattr(boosted, "_TREES", 6)
    x = RNG.uniform(-1, 1, (300, 3))
    hidden = x[:, 0] * x[:, 1]
    lost = np.zeros(300, np.int64)  # a class that no training record has
    lost[200:] = x[200:, 2] > 0
    of_classes = np.stack([hidden > 0, lost, hidden > 0.2], axis=1).astype(np.int64)
    y = {"quantity": hidden, "multilabel": of_classes, "binary": of_classes[:, 0]}[kind]
    train, val = np.split(np.arange(300), [200])
    classes = ("a", "b", "c") if kind == "multilabel" else ()
    probe = fit_boosted(_examples(kind, x, y, train=train, val=val, classes=classes), seed=0)
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
                model = HistGradientBoostingClassifier(max_iter=trees, **settings)
                out[:, column] = model.fit(x[:200], of_classes[:200, column]).decision_function(x[200:])
            out = out if kind == "multilabel" else out[:, 0]
            values[trees, leaves] = roc_auc_score(y[200:], out, average="macro"), out
    (trees, leaves), (best, out) = max(values.items(), key=lambda each: each[1][0])
    assert probe.selected == f"{trees} trees of {leaves} leaves"
    assert probe.val_metric == pytest.approx(best, abs=1e-9)
    np.testing.assert_allclose(probe.predict(x[200:]), out, rtol=1e-9, atol=1e-12)
