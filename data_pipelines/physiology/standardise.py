"""Standardises physiology vectors before they are compared, and computes their principal components.

Both are fitted on training records alone. A cosine between raw vectors would be dominated by the measurements in
milliseconds, whose numbers are largest.

  standardizer = Standardizer.fit(physiology.values, train_records, names=physiology.names)
  standard = standardizer.transform(physiology.values[records])
  components = Pca.fit(standardizer.transform(physiology.values[train_records]), num_components=50)
  vectors = components.transform(standard)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError

#: Number of rows read at a time.
_BLOCK = 1 << 16

#: Standard deviation, as a share of the magnitude, below which a measurement varies by rounding only.
CONSTANT = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Fitted:
    """Parameters that were fitted to training records, and are saved as JSON."""

    def save(self, path: Path | str) -> None:
        """Writes the parameters as JSON, without loss of precision."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}
        Path(path).write_text(json.dumps({"kind": type(self).__name__} | plain, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def _saved(cls, path: Path | str) -> dict[str, Any]:
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            fields = {field.name: found[field.name] for field in dataclasses.fields(cls)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: is no saved {cls.__name__} ({error}); fit and save it again") from error
        if found["kind"] != cls.__name__:
            raise DataError(f"{path}: holds a {found['kind']}, not a {cls.__name__}")
        return fields


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Standardizer(_Fitted):
    """Brings every measurement to mean 0 and standard deviation 1 over the training records.

    Attributes:
        names: Names of the measurements that `transform` expects, in column order.
        kept: Names of the measurements that `transform` returns, in column order.
        dropped: Reasons by the names of the other measurements: `constant` or `missing` (in too many training records).
        mean: `f64[kept]`, mean over the training records in which a measurement is not missing.
        sd: `f64[kept]`, standard deviation over the same records.
        max_missing: Largest share of training records that may miss a measurement.
        num_records: Number of training records with any measurement, to which it was fitted.
    """

    names: tuple[str, ...]
    kept: tuple[str, ...]
    dropped: Mapping[str, str]
    mean: np.ndarray
    sd: np.ndarray
    max_missing: float
    num_records: int

    @classmethod
    def fit(
        cls, values: np.ndarray, rows: np.ndarray, *, names: tuple[str, ...], max_missing: float = 0.5
    ) -> Standardizer:
        """Fits a standardiser.

        Args:
            values: `f32[n, measurements]`, NaN where missing; may be memory-mapped.
            rows: `int64[m]`, the training records; no other is read. Those without any measurement do not count.
            names: Names of the measurements, in column order.
            max_missing: Share of training records that may miss a measurement; one that more of them miss is dropped.

        Raises:
            DataError: The names do not fit the values, or nothing is left to standardise.
        """
        _check_width(values, names)
        if not 0 <= max_missing < 1:
            raise DataError(f"max_missing={max_missing} must be at least 0 and less than 1")
        total, num_found, num_records = np.zeros(len(names)), np.zeros(len(names), np.int64), 0
        for block in _blocks(values, rows):
            num_records += len(block)
            num_found += np.isfinite(block).sum(axis=0)
            total += np.nansum(block, axis=0)
        if not num_records:
            raise DataError(f"none of the {len(rows)} training records has a physiology vector; nothing to standardise")
        # The deviations take a second pass, because differences of squared sums lose the digits of a small deviation.
        mean = total / np.maximum(num_found, 1)
        squares = sum(np.nansum((block - mean) ** 2, axis=0) for block in _blocks(values, rows))
        sd = np.sqrt(squares / np.maximum(num_found, 1))
        missing = (num_found < (1 - max_missing) * num_records) | (num_found == 0)
        constant = ~missing & (sd <= CONSTANT * np.abs(mean))
        keep = ~missing & ~constant
        if not keep.any():
            raise DataError("every measurement is constant or missing in the training records; nothing to standardise")
        return cls(
            names=tuple(names),
            kept=tuple(np.array(names)[keep].tolist()),
            dropped={
                name: "missing" if gone else "constant"
                for name, gone, kept in zip(names, missing, keep, strict=True)
                if not kept
            },
            mean=mean[keep],
            sd=sd[keep],
            max_missing=max_missing,
            num_records=num_records,
        )

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Standardises vectors; what is missing becomes 0, the mean of the training records.

        A record without any measurement becomes all zeros, which have no cosine: leave it out, or use `mask`.

        Args:
            values: Measurements, `f32[n, measurements]`, NaN where missing.

        Returns:
            Standardised measurements, `f32[n, kept]`, finite.
        """
        standard = (self._kept(values).astype(np.float64) - self.mean) / self.sd
        return np.where(np.isfinite(standard), standard, 0).astype(np.float32)

    def mask(self, values: np.ndarray) -> np.ndarray:
        """Returns `bool[n, kept]`: True where a measurement was made, False where `transform` gives 0 in its place.

        Args:
            values: Measurements, `f32[n, measurements]`, NaN where missing.
        """
        return np.isfinite(self._kept(values))

    def _kept(self, values: np.ndarray) -> np.ndarray:
        _check_width(values, self.names)
        columns = {name: column for column, name in enumerate(self.names)}
        return np.asarray(values)[:, [columns[name] for name in self.kept]]

    @classmethod
    def load(cls, path: Path | str) -> Standardizer:
        """Reads a standardiser that `save` wrote.

        Raises:
            DataError: There is no such file, or it is damaged.
        """
        found = cls._saved(path)
        return cls(
            **found
            | {name: tuple(found[name]) for name in ("names", "kept")}
            | {name: np.array(found[name], np.float64) for name in ("mean", "sd")}
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pca(_Fitted):
    """Principal components of standardised vectors; not whitened, so that distances keep their meaning.

    Attributes:
        mean: `f64[features]`, mean of the training records.
        components: `f64[components, features]`, orthonormal rows, largest variance first.
        explained: `f64[components]`, share of the training records' variance that each component explains.
    """

    mean: np.ndarray
    components: np.ndarray
    explained: np.ndarray

    @classmethod
    def fit(cls, standard: np.ndarray, *, num_components: int) -> Pca:
        """Fits principal components.

        Args:
            standard: `f32[n, features]`, from `Standardizer.transform`, training records only.
            num_components: Number of components of the result; PhysioCLR takes 50.

        Raises:
            DataError: More components are asked for than there are records or features.
        """
        most = min(standard.shape)
        if not 1 <= num_components <= most:
            raise DataError(
                f"num_components={num_components} must be 1 … {most}: there are {standard.shape[0]} training records "
                f"with {standard.shape[1]} features"
            )
        from sklearn.decomposition import PCA  # Its import takes a second.

        # The solver is exact and has no random start; in float32 the covariance of a large set would lose digits.
        fitted = PCA(num_components, svd_solver="covariance_eigh").fit(standard.astype(np.float64))
        return cls(mean=fitted.mean_, components=fitted.components_, explained=fitted.explained_variance_ratio_)

    def transform(self, standard: np.ndarray) -> np.ndarray:
        """Returns the components, `f32[n, components]`, of standardised vectors, `f32[n, features]`."""
        if standard.ndim != 2 or standard.shape[1] != len(self.mean):
            raise DataError(f"expected [n, {len(self.mean)}] standardised features, got {list(standard.shape)}")
        return ((standard.astype(np.float64) - self.mean) @ self.components.T).astype(np.float32)

    @classmethod
    def load(cls, path: Path | str) -> Pca:
        """Reads components that `save` wrote.

        Raises:
            DataError: There is no such file, or it is damaged.
        """
        return cls(**{name: np.array(value, np.float64) for name, value in cls._saved(path).items()})


def _blocks(values: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the rows that have any measurement, in blocks `f64[m, measurements]`.

    Args:
        values: Measurements, `f32[n, measurements]`, NaN where missing.
        rows: Numbers of the rows to read, `int64[rows]`.
    """
    for start in range(0, len(rows), _BLOCK):
        block = np.asarray(values[rows[start : start + _BLOCK]], np.float64)
        yield block[np.isfinite(block).any(axis=1)]


def _check_width(values: np.ndarray, names: tuple[str, ...]) -> None:
    if values.ndim != 2 or values.shape[1] != len(names):
        raise DataError(f"expected [n, {len(names)}] physiology values, got {list(values.shape)}")
