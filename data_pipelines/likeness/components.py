"""Principal components of records, fitted to a stream of training records that need not fit in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from data_pipelines.errors import DataError

#: Most components of a record: more would take longer to search, and say little more.
NUM_COMPONENTS = 64

#: Function that begins a stream of vectors anew, `f32[n, samples, lead]` each.
Stream = Callable[[], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """Principal components of records whose leads have deviation 1; not whitened, so that distances keep their meaning.

    Attributes:
        lead_scale: Deviation of every lead over all training records in mV, `f64[lead]`; 1 for one that never varies.
        mean: Mean of the scaled training records, `f64[features]`.
        axes: Orthonormal axes, that of the largest variance first, `f64[components, features]`.
        explained: Share of the training records' variance that each component explains, `f64[components]`.
    """

    lead_scale: np.ndarray
    mean: np.ndarray
    axes: np.ndarray
    explained: np.ndarray

    @classmethod
    def fit(cls, stream: Stream, *, num_components: int = NUM_COMPONENTS) -> Components:
        """Fits components by three passes over training records.

        The passes are one for the leads' deviations, one for the mean, and one for the covariance about it, since
        differences of squared sums would lose digits.

        Args:
            stream: Function that begins a stream of the training records, of which all have a place in the space; NaN
                where nothing was recorded.
            num_components: Most components; there are fewer where there are fewer records or features.

        Raises:
            DataError: There are fewer than two records, or they do not vary.
        """
        squares, known, number = _lead_sums(stream())
        if number < 2:
            raise DataError(f"{number} training records have a place in this space; neighbours need two or more")
        deviation = np.sqrt(squares / np.maximum(known, 1))
        lead_scale = np.where(deviation > 0, deviation, 1.0)
        mean = np.asarray(sum(_scaled(block, lead_scale).sum(axis=0) for block in stream())) / number
        covariance = np.zeros((len(mean), len(mean)))
        for block in stream():
            centred = _scaled(block, lead_scale) - mean
            covariance += centred.T @ centred
        variances, axes = np.linalg.eigh(covariance / number)
        if (total := variances.sum()) <= 0:
            raise DataError(f"the {number} training records of this space are all alike; there are no neighbours")
        chosen = np.argsort(-variances, kind="stable")[: min(num_components, number, len(mean))]
        return cls(lead_scale=lead_scale, mean=mean, axes=axes[:, chosen].T, explained=variances[chosen] / total)

    def transform(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the components of records, `f32[n, components]`.

        Args:
            vectors: Records, `f32[n, samples, lead]`, in mV; what was not recorded, NaN, counts as the lead's mean.
        """
        return ((_scaled(vectors, self.lead_scale) - self.mean) @ self.axes.T).astype(np.float32)


def _lead_sums(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the squares of each lead and their number, `f64[lead]` and `int64[lead]`, and the number of records."""
    squares, known, number = np.zeros(()), np.zeros((), np.int64), 0
    for block in blocks:
        squares = squares + np.nansum(np.square(block, dtype=np.float64), axis=(0, 1))
        known = known + np.isfinite(block).sum(axis=(0, 1))
        number += len(block)
    return squares, known, number


def _scaled(vectors: np.ndarray, lead_scale: np.ndarray) -> np.ndarray:
    """Returns records with scaled leads as `f64[n, features]`; 0, which is a lead's mean, where nothing is known."""
    scaled = np.nan_to_num(vectors.astype(np.float64), nan=0.0) / lead_scale
    return scaled.reshape(len(vectors), -1)
