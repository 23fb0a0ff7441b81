"""Probes of every kind of question on embeddings: what they find, that validation alone decides, what is refused."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from ecgjax.evaluation.features.measurements import interval_preprocessor
from ecgjax.evaluation.metrics.ranking import auroc
from ecgjax.evaluation.models import linear
from ecgjax.evaluation.models.fitted import Examples
from ecgjax.evaluation.models.kinds import KINDS, NO_MODEL, Binary
from ecgjax.evaluation.models.linear import fit_linear, fit_nearest

CLASSES = ("a", "b")


def _data(kind, seed, n=300):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 12)) * np.linspace(0.1, 10, 12) + 3
    hidden = (features - 3) / np.linspace(0.1, 10, 12) @ np.eye(12)[:, -2:] + 0.5 * rng.normal(size=(n, 2))
    if kind == "quantity":
        return features.astype(np.float32), 20 + 5 * hidden[:, 0]
    labels = (hidden > 0.5).astype(np.int64)
    return features.astype(np.float32), labels[:, 0] if kind == "binary" else labels


def _examples(kind, **changes):
    (x, y), (v, w) = _data(kind, 0), _data(kind, 1)
    given = {"train": x, "targets": y, "val": v, "val_targets": w, "classes": CLASSES if kind == "multilabel" else ()}
    return Examples(kind=KINDS[kind], **{**given, **changes})


def _scaled(x, z):
    scaler = StandardScaler().fit(x.astype(np.float64))
    return scaler.transform(x.astype(np.float64)), scaler.transform(z.astype(np.float64))


@pytest.mark.parametrize("fit", [fit_linear, fit_nearest])
@pytest.mark.parametrize("kind", KINDS)
def test_finds_what_is_there(kind, fit):
    probe = fit(_examples(kind))
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
    probe = fit_linear(_examples("quantity"))
    (x, y), (z, _) = _data("quantity", 0), _data("quantity", 2)
    train, test = _scaled(x, z)
    plain = Ridge(alpha=0.3 * len(x)).fit(train, y)
    np.testing.assert_allclose(probe.predict(z), plain.predict(test), rtol=1e-9)


def test_one_versus_rest_equals_scikit_learn(monkeypatch):
    monkeypatch.setattr(type(KINDS["multilabel"]), "strengths", (0.1,))
    probe = fit_linear(_examples("multilabel"))
    (x, y), (z, _) = _data("multilabel", 0), _data("multilabel", 2)
    train, test = _scaled(x, z)
    for column in range(2):
        expected = LogisticRegression(C=0.1).fit(train, y[:, column]).decision_function(test)
        np.testing.assert_allclose(probe.predict(z)[:, column], expected, rtol=1e-6, atol=1e-6)


def test_ridge_penalty_is_the_best_on_validation():
    values = []
    for penalty in linear._PENALTIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear, "_PENALTIES", (penalty,))
            values.append(fit_linear(_examples("quantity")).val_metric)
    assert fit_linear(_examples("quantity")).val_metric == max(values)
    assert len(set(values)) == len(values)


def test_a_class_that_training_records_lack_is_scored_alike():
    _, y = _data("multilabel", 0)
    y[:, 1] = 0
    v, w = _data("multilabel", 1)
    scores = fit_linear(_examples("multilabel", targets=y)).predict(v)
    assert not scores[:, 1].any()
    assert roc_auc_score(w[:, 0], scores[:, 0]) > 0.9


def test_neighbours_are_as_many_as_there_can_be():
    x, y = _data("binary", 0, n=30)
    few = _examples("binary", train=x, targets=y)
    assert fit_nearest(few).selected.endswith("of 4")
    with pytest.raises(DataError, match="none of k = 40 neighbours is among 30 records"):
        fit_nearest(few, ks=(40,))


def test_of_equally_good_numbers_of_neighbours_the_largest_is_kept():
    # Two clusters, one of each label: any number of neighbours up to their size tells them apart.
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 50)
    features = np.eye(4)[labels] + 0.01 * rng.normal(size=(100, 4))
    probe = fit_nearest(_examples("binary", train=features, targets=labels, val=features, val_targets=labels))
    assert (probe.selected, probe.val_metric) == ("k = 50 of 6", 1.0)


@pytest.mark.parametrize("fit", [fit_linear, fit_nearest])
@pytest.mark.parametrize("kind", ["multilabel", "quantity"])
def test_nothing_to_choose_by_is_an_error(kind, fit):
    _, w = _data(kind, 1)
    with pytest.raises(DataError, match="in the validation split") as caught:
        fit(_examples(kind, val_targets=np.zeros_like(w)))
    assert caught.value.reason == NO_MODEL
    bad = _data(kind, 1)[0]
    bad[3, 2] = np.nan
    with pytest.raises(DataError, match="1 of 7200 numbers of embeddings are not finite"):
        fit(_examples(kind, val=bad))


# A yes or no: labels spread over several features, among many of noise, at very different scales and offsets.


def _features(seed, n, *, dimensions=32, signal=0.5):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int64)
    features = rng.normal(size=(n, dimensions)) + signal * labels[:, None] * (np.arange(dimensions) < 8)
    scales = np.logspace(-3, 3, dimensions)
    return (features * scales + 10 * scales).astype(np.float32), labels


class _Seen(Binary):
    """Notes the value of every strength that is tried."""

    def __init__(self, *strengths):
        self.strengths, self.seen = strengths or Binary.strengths, []

    def value(self, *args, **kwargs):
        self.seen.append(super().value(*args, **kwargs))
        return self.seen[-1]


def _fit(*, kind=None, preprocessor=None, **changes):
    (train, labels), (val, val_labels) = _features(0, 300), _features(1, 400)
    given = {"train": train, "targets": labels, "val": val, "val_targets": val_labels, **changes}
    return fit_linear(Examples(kind=kind or KINDS["binary"], **given), preprocessor=preprocessor)


def test_learns_what_is_spread_over_features():
    test, test_labels = _features(2, 2000)
    assert auroc(test_labels, _fit().predict(test)) > 0.75


def test_strength_is_the_best_on_validation():
    kind = _Seen()
    probe = _fit(kind=kind)
    assert len(kind.seen) == len(Binary.strengths) == 13
    assert probe.val_metric == max(kind.seen)
    best = Binary.strengths[int(np.argmax(kind.seen))]
    assert probe.selected == f"C = {best:.2g} of 13"
    val, val_labels = _features(1, 400)
    assert auroc(val_labels, probe.predict(val)) == probe.val_metric


def test_selection_follows_the_validation_labels():
    """With validation labels reversed the choice changes: they, and no others, decide."""
    train, train_labels = _features(0, 60)
    _, val_labels = _features(1, 400)
    right, reversed_ = (
        _fit(kind=_Seen(1e-4, 1e-2, 1.0, 100.0), train=train, targets=train_labels, val_targets=labels)
        for labels in (val_labels, 1 - val_labels)
    )
    assert right.selected != reversed_.selected


def test_ties_keep_the_strongest_regularisation():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 50)
    features = (labels * 10 + rng.normal(size=100))[:, None]
    # In whatever order the strengths are named.
    for kind in (KINDS["binary"], _Seen(*Binary.strengths[::-1])):
        probe = _fit(kind=kind, train=features, targets=labels, val=features, val_targets=labels)
        assert probe.val_metric == 1.0
        assert probe.selected == "C = 1e-05 of 13, at the edge of the sweep"


def test_equals_scikit_learn_on_standardised_features():
    probe = _fit(kind=_Seen(0.1))
    train, train_labels = _features(0, 300)
    test, _ = _features(2, 50)
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, sd = train.mean(axis=0), train.std(axis=0)
    plain = LogisticRegression(C=0.1, max_iter=2000).fit((train - mean) / sd, train_labels)
    np.testing.assert_allclose(probe.predict(test), plain.decision_function((test - mean) / sd), rtol=1e-6, atol=1e-6)


def test_scaling_a_feature_changes_nothing():
    train, _ = _features(0, 300)
    val, _ = _features(1, 400)
    test, _ = _features(2, 100)
    scale = np.exp(np.random.default_rng(0).normal(size=32)).astype(np.float32)
    plain, scaled = _fit(), _fit(train=train * scale, val=val * scale)
    assert plain.selected == scaled.selected
    np.testing.assert_allclose(plain.predict(test), scaled.predict(test * scale), atol=1e-3)


def test_constant_features_are_harmless():
    train, _ = _features(0, 300)
    val, _ = _features(1, 400)
    with_constant = lambda x, value=7.0: np.c_[x, np.full(len(x), value, np.float32)]  # noqa: E731
    probe = _fit(train=with_constant(train), val=with_constant(val))
    assert np.isfinite(probe.predict(with_constant(val))).all()
    np.testing.assert_array_equal(probe.predict(with_constant(val, 9.0)), probe.predict(with_constant(val)))


@pytest.mark.parametrize("fit", [fit_linear, fit_nearest])
@pytest.mark.parametrize("side", ["train", "validation"])
@pytest.mark.parametrize("value", [0, 1])
def test_refuses_a_split_without_both_classes(side, value, fit):
    name, size = {"train": ("targets", 300), "validation": ("val_targets", 300)}[side]
    with pytest.raises(DataError, match=f"no model can be fitted: .* 300 records .*in the {side} split") as caught:
        fit(_examples("binary", **{name: np.full(size, value)}))
    assert "label_fraction" in str(caught.value)
    assert caught.value.reason == NO_MODEL


@pytest.mark.parametrize("side", ["train", "val"])
def test_refuses_embeddings_that_are_not_finite(side):
    features, _ = _features(*{"train": (0, 300), "val": (1, 400)}[side])
    features[5, 3] = np.nan
    with pytest.raises(DataError, match=f"1 of {700 * 32} numbers of embeddings are not finite"):
        _fit(**{side: features})


class _Noted(TransformerMixin, BaseEstimator):
    """Remembers what it was fitted on."""

    def fit(self, features, labels=None):
        self.seen = features.copy()
        return self

    def transform(self, features):
        return features - self.seen.mean(axis=0)


def test_a_preprocessor_is_fitted_on_training_records_alone():
    train, _ = _features(0, 300)
    noted = _Noted()
    _fit(preprocessor=noted)
    np.testing.assert_array_equal(noted.seen, train.astype(np.float64))


def test_a_preprocessor_may_take_what_is_missing():
    train, labels = _features(0, 300)
    test, test_labels = _features(2, 2000)
    train[::7, 0] = np.nan
    test[::5, 0] = np.nan
    probe = _fit(train=train, preprocessor=interval_preprocessor(), kind=_Seen(0.1))
    fitted = interval_preprocessor().fit(train.astype(np.float64))
    plain = LogisticRegression(C=0.1, max_iter=2000).fit(fitted.transform(train.astype(np.float64)), labels)
    expected = plain.decision_function(fitted.transform(test.astype(np.float64)))
    np.testing.assert_allclose(probe.predict(test), expected, rtol=1e-6, atol=1e-6)
    assert auroc(test_labels, probe.predict(test)) > 0.75
