"""Patient-level percentile bootstrap of any metrics of the same records, and of their paired differences.

Records of one patient are not independent, so patients are drawn, with all their records (a cluster bootstrap:
Davison and Hinkley 1997, §3.8). Every model is evaluated on the same resamples, so that the difference of two models is
paired, and the noise of the test set that both share cancels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.weighting import Metric, estimate

#: Name of a metric: a string, or a tuple that says what the metric is of.
Name = TypeVar("Name", bound=Hashable)

#: Number of weights held at once: 32 MB of float64, small enough for any host and large enough to keep NumPy busy.
_WEIGHTS_AT_ONCE = 4_000_000

#: An interval from fewer defined resamples than this share of those asked for is not given.
_MIN_DEFINED = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A point estimate on the test records themselves, and its percentile interval over the resamples.

    Attributes:
        estimate: Point estimate, NaN where undefined.
        low: Lower bound, NaN where undefined.
        high: Upper bound, NaN where undefined.
        confidence: Nominal coverage, such as .95.
        resamples: Number of resamples in which the metric is defined.
        reason: Reason why the estimate or the interval is undefined; empty where it is defined.
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan
    confidence: float = 0.95
    resamples: int = 0
    reason: str = ""

    @classmethod
    def alone(cls, estimate: float) -> Interval:
        """Returns an estimate without an interval."""
        reason = "no interval was asked for" if math.isfinite(estimate) else "it is not defined for these records"
        return cls(estimate=estimate, reason=reason)

    @classmethod
    def missing(cls, reason: str) -> Interval:
        """Returns the interval of an estimate that does not exist; its numbers are NaN.

        Args:
            reason: Reason why the estimate does not exist.
        """
        return cls(estimate=math.nan, reason=reason)

    def __str__(self) -> str:
        return self.text()

    def text(self, decimals: int = 3) -> str:
        """Returns estimate and interval as text: `"0.744 [0.705, 0.783]"`.

        Args:
            decimals: Number of decimals.
        """
        return self._text(f"z.{decimals}f")

    def signed(self, decimals: int = 3) -> str:
        """Returns the text of a difference with its signs shown: `"+0.088 [+0.069, +0.107]"`.

        Args:
            decimals: Number of decimals.
        """
        return self._text(f"+z.{decimals}f")

    def _text(self, form: str) -> str:
        # "z" gives a value that rounds to 0 no minus sign.
        if math.isnan(self.estimate):
            return f"n/a ({self.reason})"
        bounds = f"n/a: {self.reason}" if math.isnan(self.low) else f"{self.low:{form}}, {self.high:{form}}"
        return f"{self.estimate:{form}} [{bounds}]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap(Generic[Name]):
    """Metrics on the test records and on every resample of the patients.

    Attributes:
        estimates: Value of each metric on the records as they are, by the metric's name.
        resampled: Values of each metric on the resamples, `f64[resamples]`, NaN where undefined, by the metric's name;
            the resamples are the same for all.
        reason: Reason why the metrics are undefined; empty where they are defined.
        needs: Description of what a resample must have for a metric to be defined, for all metrics or by name.
    """

    estimates: Mapping[Name, float]
    resampled: Mapping[Name, np.ndarray]
    reason: str
    needs: str | Callable[[Name], str] = "records"

    def interval(self, name: Name, *, confidence: float = 0.95) -> Interval:
        """Returns the estimate and percentile interval of one metric."""
        return self._interval(self.estimates[name], self.resampled[name], confidence, names=[name])

    def difference(self, name: Name, other: Name, *, confidence: float = 0.95) -> Interval:
        """Returns the paired difference `name − other` and its percentile interval."""
        return self._interval(
            self.estimates[name] - self.estimates[other],
            self.resampled[name] - self.resampled[other],
            confidence,
            names=[name, other],
        )

    def mean_of(self, sums: Sequence[Sequence[tuple[int, Name]]], *, confidence: float = 0.95) -> Interval:
        """Returns the mean of signed sums of metrics and its percentile interval.

        Args:
            sums: Signed names of the metrics of each sum, such as the difference `((1, name), (-1, other))` for each
                seed.
            confidence: Nominal coverage, in (0, 1).
        """
        values = [sum(sign * self.estimates[name] for sign, name in parts) for parts in sums]
        resampled = [sum((sign * self.resampled[name] for sign, name in parts), np.zeros(())) for parts in sums]
        names = [name for parts in sums for _, name in parts]
        return self._interval(float(np.mean(values)), np.mean(resampled, axis=0), confidence, names=names)

    def _interval(self, value: float, values: np.ndarray, confidence: float, *, names: Sequence[Name]) -> Interval:
        defined = values[np.isfinite(values)]
        reason = self.reason or ("" if math.isfinite(value) else f"it needs {self._needs(names)}")
        if not reason and len(defined) < _MIN_DEFINED * len(values):
            reason = f"only {len(defined)} of {len(values)} resamples have {self._needs(names)}"
        low, high = math.nan, math.nan
        if not reason:
            tail = (1 - confidence) / 2
            low, high = (float(bound) for bound in np.quantile(defined, (tail, 1 - tail)))
        return Interval(
            estimate=value, low=low, high=high, confidence=confidence, resamples=len(defined), reason=reason
        )

    def _needs(self, names: Sequence[Name]) -> str:
        """Returns the needs of the metric that is defined in the fewest resamples."""
        if isinstance(self.needs, str):
            return self.needs
        return self.needs(min(names, key=lambda name: np.count_nonzero(np.isfinite(self.resampled[name]))))


def resample_patients(patients: np.ndarray, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draws patients with replacement, as many as there are, once for every resample.

    Args:
        patients: Patient (or group) code of each record, `int[n]`.
        resamples: Number of resamples.
        seed: Seed of the draw; equal seeds and patients give equal resamples.

    Yields:
        The number of times that each record is in each resample, `int64[block, n]`, in blocks of resamples.
    """
    codes, record_code = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    block = max(1, _WEIGHTS_AT_ONCE // max(1, len(patients)))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(len(codes), size=(rows, len(codes)))
        # One bincount for the block: each row counts into its own range of bins.
        bins = drawn + np.arange(rows)[:, None] * len(codes)
        counts = np.bincount(bins.ravel(), minlength=rows * len(codes)).reshape(rows, len(codes))
        yield counts[:, record_code]


def bootstrap_metrics(
    metrics: Mapping[Name, Metric],
    *,
    patients: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    needs: str | Callable[[Name], str] = "records",
) -> Bootstrap[Name]:
    """Computes metrics on bootstrap resamples of the patients, all on the same resamples.

    Args:
        metrics: Metrics by name, of one or several models; each is a function of weights on the records.
        patients: Patient (or group) code of each record, `int[n]`. Codes of records instead would pretend that the
            records of a patient are independent, and give intervals that are too short.
        resamples: Number of resamples, at least 100.
        seed: Seed of the resampling.
        needs: Description of what a resample must have for a metric to be defined, for all metrics or by name.

    Raises:
        DataError: There are too few resamples.
    """
    if resamples < 100:
        raise DataError(f"a percentile interval needs at least 100 bootstrap resamples, not {resamples}")
    estimates = {name: estimate(metric, len(patients)) for name, metric in metrics.items()}
    if len(np.unique(patients)) < 2:
        # Every resample would hold the same records, and the interval would have no width.
        reason = "all records are of one patient" if len(patients) else "no records"
        return _undefined(estimates, resamples, reason)
    blocks: dict[Name, list[np.ndarray]] = {name: [] for name in metrics}
    for counts in resample_patients(patients, resamples=resamples, seed=seed):
        # The counts are converted once for all metrics, which are matrix products of float64.
        weights = counts.astype(np.float64)
        for name, metric in metrics.items():
            blocks[name].append(metric(weights))
    resampled = {name: np.concatenate(values) for name, values in blocks.items()}
    return Bootstrap(estimates=estimates, resampled=resampled, reason="", needs=needs)


def _undefined(estimates: Mapping[Name, float], resamples: int, reason: str) -> Bootstrap[Name]:
    nothing = np.full(resamples, math.nan)
    return Bootstrap(estimates=estimates, resampled=dict.fromkeys(estimates, nothing), reason=reason)
