"""Location and scale of measurements of which some are badly wrong, as waves that were bounded in noise are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipelines.physiology.standardise import CONSTANT

# Values beyond these quantiles count as the quantiles themselves.
_WINSORISED = (0.01, 0.99)


class RobustScale(NamedTuple):
    """Location and scale of every measurement.

    Attributes:
        location: Median, `f64[measurements]`; 0 where there is no value.
        scale: Winsorised standard deviation, `f64[measurements]`; NaN where a measurement has fewer than two values, or
            the same one from its first to its last percentile.
        number: Number of values, `int64[measurements]`.
    """

    location: np.ndarray
    scale: np.ndarray
    number: np.ndarray


def robust_scale(values: np.ndarray, rows: np.ndarray) -> RobustScale:
    """Returns median and winsorised standard deviation of every measurement.

    The values below the first and above the last percentile are moved to these before the standard deviation is
    computed, so that a few wrong ones, however large, change it little. The interquartile range would be 0 of a
    measurement that most recordings have the same value of, such as the share of long PR intervals.

    Args:
        values: Measurements, `f32[n, measurements]`, NaN where missing; may be memory-mapped.
        rows: Numbers of the rows that count, `int64[m]`; no other is read.
    """
    # One column is copied at a time: of millions of recordings, all of them in float64 would be gigabytes.
    found = [_of_column(values[rows, column]) for column in range(values.shape[1])]
    return RobustScale(*map(np.array, zip(*found, strict=True)))


def _of_column(column: np.ndarray) -> tuple[float, float, int]:
    known = column[np.isfinite(column)].astype(np.float64)
    if not len(known):
        return 0.0, np.nan, 0
    low, median, high = np.quantile(known, (_WINSORISED[0], 0.5, _WINSORISED[1]))
    scale = float(np.std(np.clip(known, low, high)))
    constant = len(known) < 2 or scale <= CONSTANT * abs(median)
    return float(median), np.nan if constant else scale, len(known)
