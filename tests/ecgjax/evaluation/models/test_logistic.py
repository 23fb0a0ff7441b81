"""The linear probe: chosen on validation alone, refusing what cannot be fitted, and its shuffled control."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.ranking import auroc
from ecgjax.evaluation.models.logistic import STRENGTHS, fit_linear_probe, shuffle_control


def _features(seed, n, *, dimensions=32, signal=0.5):
    """Labels spread over several features, among many of noise, at very different scales and offsets."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int64)
    features = rng.normal(size=(n, dimensions)) + signal * labels[:, None] * (np.arange(dimensions) < 8)
    scales = np.logspace(-3, 3, dimensions)
    return (features * scales + 10 * scales).astype(np.float32), labels


def _fit(**changes):
    train, train_labels = _features(0, 300)
    val, val_labels = _features(1, 400)
    arguments = {
        "train_features": train,
        "train_labels": train_labels,
        "val_features": val,
        "val_labels": val_labels,
        **changes,
    }
    return fit_linear_probe(**arguments)


def test_learns_and_reports_what_it_was_fitted_on():
    probe = _fit()
    test, test_labels = _features(2, 2000)
    _, train_labels = _features(0, 300)
    _, val_labels = _features(1, 400)
    assert auroc(test_labels, probe.scores(test)) > 0.75
    assert (probe.train_records, probe.train_positives) == (300, train_labels.sum())
    assert (probe.val_records, probe.val_positives) == (400, val_labels.sum())
    assert probe.num_features == 32


def test_strength_is_the_best_on_validation():
    probe = _fit()
    best = max(probe.sweep, key=lambda point: point.val_auroc)
    assert len(probe.sweep) == len(STRENGTHS)
    assert probe.val_auroc == best.val_auroc
    assert probe.c == best.c
    val, val_labels = _features(1, 400)
    assert auroc(val_labels, probe.scores(val)) == probe.val_auroc


def test_selection_follows_the_validation_labels():
    """With validation labels reversed the choice changes: they, and no others, decide."""
    strengths = (1e-4, 1e-2, 1.0, 100.0)
    train, train_labels = _features(0, 60)
    val, val_labels = _features(1, 400)
    right, reversed_ = (
        fit_linear_probe(train, train_labels, val_features=val, val_labels=labels, strengths=strengths)
        for labels in (val_labels, 1 - val_labels)
    )
    assert right.c != reversed_.c


def test_ties_keep_the_strongest_regularisation():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 50)
    features = (labels * 10 + rng.normal(size=100))[:, None]
    probe = fit_linear_probe(features, labels, val_features=features, val_labels=labels)
    assert probe.val_auroc == 1.0
    assert probe.c == min(STRENGTHS)


def test_equals_scikit_learn_on_standardised_features():
    probe = _fit(strengths=(0.1,))
    train, train_labels = _features(0, 300)
    test, _ = _features(2, 50)
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, sd = train.mean(axis=0), train.std(axis=0)
    plain = LogisticRegression(C=0.1, max_iter=2000).fit((train - mean) / sd, train_labels)
    np.testing.assert_allclose(probe.scores(test), plain.decision_function((test - mean) / sd), rtol=1e-6, atol=1e-6)


def test_scaling_a_feature_changes_nothing():
    train, train_labels = _features(0, 300)
    val, val_labels = _features(1, 400)
    test, _ = _features(2, 100)
    scale = np.exp(np.random.default_rng(0).normal(size=32)).astype(np.float32)
    plain = fit_linear_probe(train, train_labels, val_features=val, val_labels=val_labels)
    scaled = fit_linear_probe(train * scale, train_labels, val_features=val * scale, val_labels=val_labels)
    assert plain.c == scaled.c
    np.testing.assert_allclose(plain.scores(test), scaled.scores(test * scale), atol=1e-3)


def test_constant_features_are_harmless():
    train, train_labels = _features(0, 300)
    val, val_labels = _features(1, 400)
    constant = lambda x: np.c_[x, np.full(len(x), 7.0, np.float32)]  # noqa: E731
    probe = fit_linear_probe(constant(train), train_labels, val_features=constant(val), val_labels=val_labels)
    assert np.isfinite(probe.scores(constant(val))).all()
    assert probe.classifier.coef_[0, -1] == 0


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("value", [0, 1])
def test_refuses_a_split_without_both_classes(split, value):
    size = {"train": 300, "val": 400}[split]
    name = {"train": "train", "val": "validation"}[split]
    with pytest.raises(DataError, match=f"in the {name} split") as error:
        _fit(**{f"{split}_labels": np.full(size, value)})
    assert "label_fraction" in str(error.value)


def test_refuses_embeddings_that_are_not_finite():
    train, _ = _features(0, 300)
    train[5, 3] = np.nan
    with pytest.raises(DataError, match="1 of 300 embeddings of the train split are not finite"):
        _fit(train_features=train)


def _identity_features(seed, *, patients, visits, dimensions=40):
    """Features that know the patient and nothing else, split by patient into train, val and test."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), visits)
    features = rng.normal(size=(patients, dimensions))[patient] + 0.3 * rng.normal(size=(len(patient), dimensions))
    features[rng.random(len(patient)) < 0.05] *= 5  # outlying records, which shuffled labels must not turn into a trend
    return patient, (rng.random(patients) < 0.2).astype(np.int64)[patient], features


def _control(patient, labels, features, sides):
    pick = lambda values: {name: values[rows] for name, rows in sides.items()}  # noqa: E731
    return shuffle_control(
        pick(features), pick(labels), patients=pick(patient), shuffles=30, seed=0, strengths=(1e-4, 1e-2, 1.0)
    )


def test_shuffled_labels_give_a_half():
    patient, labels, features = _identity_features(0, patients=300, visits=3)
    sides = {"train": patient < 100, "val": (patient >= 100) & (patient < 150), "test": patient >= 150}
    control = _control(patient, labels, features, sides)
    assert len(set(control.aurocs)) == 30
    assert control.low < 0.5 < control.high
    assert control.high - control.low < 0.06
    assert control.mean == pytest.approx(np.mean(control.aurocs))


def test_shuffled_labels_betray_patients_on_two_sides():
    patient, labels, features = _identity_features(0, patients=40, visits=9)
    visit = np.arange(len(patient)) % 9
    sides = {"train": visit < 4, "val": (visit >= 4) & (visit < 6), "test": visit >= 6}
    assert _control(patient, labels, features, sides).low > 0.6


def test_control_needs_patients_of_both_classes():
    patient, labels, features = np.arange(90), np.zeros(90, np.int64), np.random.default_rng(0).normal(size=(90, 3))
    labels[[0, 31]] = 1
    sides = {"train": patient < 30, "val": (patient >= 30) & (patient < 60), "test": patient >= 60}
    with pytest.raises(DataError, match="too few patients of one class"):
        _control(patient, labels, features, sides)
    with pytest.raises(DataError, match="at least 2 shuffles"):
        shuffle_control({}, {}, patients={}, shuffles=1, seed=0)
