"""Location and scale of measurements, which a few wrong ones hardly change."""

import numpy as np
import pytest

from data_pipelines.physiology.robust_scale import robust_scale

ROWS = np.arange(0, 3000, 3)


def make_values():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3000, 6)) * [20, 0.1, 1, 0, 1, 1] + [400, 0.3, 0, 7.1, 0, 0]
    values[rng.random(3000) < 0.3, 1] = np.nan
    values[:, 2] = rng.random(3000) < 0.05  # a share that most recordings have at 0
    values[:, 4] = np.nan
    values[:, 5] = np.nan
    values[ROWS[4], 5] = 3
    return values.astype(np.float32)


def test_median_and_winsorised_deviation_of_the_training_rows_alone():
    values = make_values()
    other = values.copy()
    other[np.setdiff1d(np.arange(3000), ROWS)] = 1e9
    found = robust_scale(values, ROWS)
    for mine, again in zip(found, robust_scale(other, ROWS), strict=True):
        np.testing.assert_array_equal(mine, again)
    np.testing.assert_array_equal(found.number, np.isfinite(values[ROWS]).sum(axis=0))
    for column in (0, 1, 2):
        known = sorted(float(x) for x in values[ROWS, column] if np.isfinite(x))
        low, high = np.percentile(known, [1, 99])
        moved = [min(max(x, low), high) for x in known]
        center = sum(moved) / len(moved)
        deviation = (sum((x - center) ** 2 for x in moved) / len(moved)) ** 0.5
        assert found.location[column] == pytest.approx(np.percentile(known, 50), rel=1e-12)
        assert found.scale[column] == pytest.approx(deviation, rel=1e-12)
    assert found.scale[2] > 0.1, "an interquartile range would be 0"
    assert np.isnan(found.scale[3:]).all(), "constant, without a value, and with a single one"
    np.testing.assert_array_equal(found.location[3:], np.float32([7.1, 0, 3]))


def test_a_few_wild_values_change_little():
    values = make_values()
    wild = values.copy()
    wild[ROWS[:8], 0] = 1e7
    plain, found = robust_scale(values, ROWS), robust_scale(wild, ROWS)
    assert found.scale[0] == pytest.approx(plain.scale[0], rel=0.1)
    assert np.std(wild[ROWS, 0]) > 1e4 * plain.scale[0], "the standard deviation is theirs"
    np.testing.assert_array_equal(found.scale[1:3], plain.scale[1:3])
