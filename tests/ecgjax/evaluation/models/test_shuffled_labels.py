"""The control on shuffled labels: a half where nothing leaks, more where patients are on two sides."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.models.kinds import Binary
from ecgjax.evaluation.models.shuffled_labels import shuffle_control


def _identity_features(seed, *, patients, visits, dimensions=40):
    """Features that know the patient and nothing else, split by patient into train, val and test."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), visits)
    features = rng.normal(size=(patients, dimensions))[patient] + 0.3 * rng.normal(size=(len(patient), dimensions))
    features[rng.random(len(patient)) < 0.05] *= 5  # outlying records, which shuffled labels must not turn into a trend
    return patient, (rng.random(patients) < 0.2).astype(np.int64)[patient], features


@pytest.fixture(autouse=True)
def _few_strengths(monkeypatch):
    monkeypatch.setattr(Binary, "strengths", (1e-4, 1e-2, 1.0))


def _control(patient, labels, features, sides, *, shuffles=30):
    parts = {
        name: LabelledRecords(records=np.flatnonzero(rows), labels=labels[rows], patients=patient[rows], unlabelled=0)
        for name, rows in sides.items()
    }
    task = BinaryTask(label="lvef", rule="below", threshold=40.0)
    data = ProbeData(task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={})
    of_sides = SplitFeatures(**{name: features[rows] for name, rows in sides.items()})
    return shuffle_control(of_sides, data, shuffles=shuffles, seed=0)


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
        _control(patient, labels, features, sides, shuffles=1)
