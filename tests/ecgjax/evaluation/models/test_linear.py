"""Probes of every kind of task on embeddings: what they find, and that validation alone decides."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from ecgjax.evaluation.models import linear
from ecgjax.evaluation.models.linear import fit_linear, fit_nearest

KINDS = ("binary", "multilabel", "quantity")
CLASSES = ("a", "b")


def _data(kind, seed, n=300):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 12)) * np.linspace(0.1, 10, 12) + 3
    hidden = (features - 3) / np.linspace(0.1, 10, 12) @ np.eye(12)[:, -2:] + 0.5 * rng.normal(size=(n, 2))
    if kind == "quantity":
        return features.astype(np.float32), 20 + 5 * hidden[:, 0]
    labels = (hidden > 0.5).astype(np.int64)
    return features.astype(np.float32), labels[:, 0] if kind == "binary" else labels


def _fit(kind, fit, **changes):
    (x, y), (v, w) = _data(kind, 0), _data(kind, 1)
    arguments = {"val_features": v, "val_targets": w, "classes": CLASSES if kind == "multilabel" else (), **changes}
    return fit(kind, x, y, **arguments)


@pytest.mark.parametrize("fit", [fit_linear, fit_nearest])
@pytest.mark.parametrize("kind", KINDS)
def test_finds_what_is_there(kind, fit):
    probe = _fit(kind, fit)
    features, targets = _data(kind, 2)
    predicted = probe.predict(features)
    assert predicted.shape == targets.shape
    if kind == "quantity":
        assert r2_score(targets, predicted) > (0.7 if fit is fit_linear else 0.1)
    else:
        assert roc_auc_score(targets, predicted) > (0.9 if fit is fit_linear else 0.6)
    val, val_targets = _data(kind, 1)
    metric = r2_score if kind == "quantity" else roc_auc_score
    assert probe.val_metric == pytest.approx(metric(val_targets, probe.predict(val)), abs=1e-9)


def test_ridge_equals_scikit_learn(monkeypatch):
    monkeypatch.setattr(linear, "_PENALTIES", (0.3,))
    probe = _fit("quantity", fit_linear)
    (x, y), (z, _) = _data("quantity", 0), _data("quantity", 2)
    scaler = StandardScaler().fit(x.astype(np.float64))
    plain = Ridge(alpha=0.3 * len(x)).fit(scaler.transform(x.astype(np.float64)), y)
    np.testing.assert_allclose(probe.predict(z), plain.predict(scaler.transform(z.astype(np.float64))), rtol=1e-9)


def test_one_versus_rest_equals_scikit_learn(monkeypatch):
    monkeypatch.setattr(linear, "_STRENGTHS", (0.1,))
    probe = _fit("multilabel", fit_linear)
    (x, y), (z, _) = _data("multilabel", 0), _data("multilabel", 2)
    scaler = StandardScaler().fit(x.astype(np.float64))
    for column in range(2):
        plain = LogisticRegression(C=0.1).fit(scaler.transform(x.astype(np.float64)), y[:, column])
        expected = plain.decision_function(scaler.transform(z.astype(np.float64)))
        np.testing.assert_allclose(probe.predict(z)[:, column], expected, rtol=1e-6, atol=1e-6)


def test_ridge_penalty_is_the_best_on_validation(monkeypatch):
    values = []
    for penalty in linear._PENALTIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear, "_PENALTIES", (penalty,))
            values.append(_fit("quantity", fit_linear).val_metric)
    assert _fit("quantity", fit_linear).val_metric == max(values)
    assert len(set(values)) == len(values)


def test_a_class_that_training_records_lack_is_scored_alike():
    x, y = _data("multilabel", 0)
    y[:, 1] = 0
    v, w = _data("multilabel", 1)
    probe = fit_linear("multilabel", x, y, val_features=v, val_targets=w, classes=CLASSES)
    scores = probe.predict(v)
    assert not scores[:, 1].any()
    assert roc_auc_score(w[:, 0], scores[:, 0]) > 0.9


def test_neighbours_are_as_many_as_there_can_be():
    x, y = _data("binary", 0, n=30)
    v, w = _data("binary", 1)
    assert fit_nearest("binary", x, y, val_features=v, val_targets=w).selected.endswith("of 4")
    with pytest.raises(DataError, match="none of k = 40 neighbours is among 30 records"):
        fit_nearest("binary", x, y, val_features=v, val_targets=w, ks=(40,))


@pytest.mark.parametrize("kind", ["multilabel", "quantity"])
def test_nothing_to_choose_by_is_an_error(kind):
    _, w = _data(kind, 1)
    with pytest.raises(DataError, match="in the validation split"):
        _fit(kind, fit_linear, val_targets=np.zeros_like(w))
    bad = _data(kind, 1)[0]
    bad[3, 2] = np.nan
    with pytest.raises(DataError, match="1 of 7200 numbers of embeddings are not finite"):
        _fit(kind, fit_linear, val_features=bad)
