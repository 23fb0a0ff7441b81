"""Measured features: what is asked for is none, what is missing is imputed, the median beat is reduced."""

import types

import numpy as np
import pytest

from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.features.measurements import (
    demographic_columns,
    interval_preprocessor,
    median_beat_preprocessor,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("task", "columns", "title"),
    [
        (QuantityTask(label="age_years"), [1], "sex"),
        (BinaryTask(label="sex", rule="present"), [0], "age"),
        (BinaryTask(label="age_years", rule="above", threshold=55.0), [1], "sex"),
        (QuantityTask(label="lvef"), [0, 1], "age and sex"),
        (MultiLabelTask(task="findings"), [0, 1], "age and sex"),
    ],
)
def test_what_is_asked_for_is_no_feature(task, columns, title):
    values = np.arange(20.0).reshape(10, 2)
    index = types.SimpleNamespace(label={"age_years": values[:, 0], "sex": values[:, 1]}.__getitem__)
    recordings = types.SimpleNamespace(
        index=index, store=types.SimpleNamespace(read=None), split=types.SimpleNamespace(train=np.arange(2))
    )
    features = LabelledFeatures(recordings, np.array([7, 2, 3]))
    np.testing.assert_array_equal(features.demographics(task), values[[7, 2, 3]][:, columns])
    assert " and ".join(name for _, name in demographic_columns(task)) == title


def test_median_beat_is_reduced_and_the_rate_kept():
    beats = np.c_[RNG.normal(size=(800, 12 * 8)), RNG.normal(size=800)]
    beats[5, :-1] = np.nan
    train, test = beats[:200], beats[400:]
    fitted = median_beat_preprocessor(train_records=200).fit(train)
    found = fitted.transform(test)
    assert found.shape == (400, 41)
    rate = (test[:, -1] - train[:, -1].mean()) / train[:, -1].std()
    np.testing.assert_allclose(found[:, -1], rate, atol=1e-12)
    assert np.isfinite(fitted.transform(train)).all()
    few = median_beat_preprocessor(train_records=10)
    assert few.fit_transform(train[10:20]).shape == (10, 10)


def test_missing_intervals_become_training_medians_and_are_marked():
    train, test = RNG.normal(size=(50, 3)), RNG.normal(size=(4, 3))
    train[:5, 0] = np.nan
    test[2, 0] = np.nan
    fitted = interval_preprocessor().fit(train)
    filled = np.where(np.isnan(test), np.nanmedian(train, axis=0), test)
    of_train = np.where(np.isnan(train), np.nanmedian(train, axis=0), train)
    expected = (filled - of_train.mean(axis=0)) / of_train.std(axis=0)
    found = fitted.transform(test)
    np.testing.assert_allclose(found[:, :3], expected, atol=1e-12)
    assert found.shape == (4, 4)
    assert len(set(found[[0, 1, 3], 3])) == 1
    assert found[2, 3] > found[0, 3]
