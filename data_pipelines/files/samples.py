"""Converts samples to float64 when they are accessed: memory follows what is kept of a recording, not its length.

A recording of ten seconds is converted at once. Three hours of twelve leads are 130 MB as 16-bit counts and 520 MB as
float64, of which a build that keeps ten seconds needs half a megabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import truncated_file
from data_pipelines.recording import Samples

#: Number of values (three minutes of 12 leads at 500 Hz, 8 MiB) up to which all are converted at once, since that costs
#: less than converting them piece by piece.
VALUES_AT_ONCE = 2**20


class Matrix(Protocol):
    """Numbers of any type, `[time, lead]` or `[lead, time]`, that are read by slices of rows, such as an array.

    Other matrices keep the position of the numbers in a file, and read them when they are accessed.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Length of both axes."""

    @property
    def ndim(self) -> int:
        """Number of axes; 2, unless a file holds something else in place of samples."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""

    @property
    def T(self) -> Matrix:  # noqa: N802 as NumPy calls it
        """The matrix with its axes exchanged."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Returns some rows.

        Raises:
            RecordError: The file can no longer be read.
        """


class ConvertedSamples:
    """Samples, `[time, channel]`, whose rows are read and converted by a function when they are accessed."""

    dtype = np.dtype(np.float64)
    ndim = 2

    def __init__(self, shape: tuple[int, int], read: Callable[[int, int], np.ndarray]):
        """Makes samples that are not read yet.

        Args:
            shape: Shape `(time, channel)` of the samples.
            read: Function that returns `f64[stop - start, channel]` for the rows from `start` to `stop`.
        """
        self.shape = shape
        self._read = read

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, index: slice | tuple) -> np.ndarray:
        """Returns rows, or some columns of rows, as NumPy does; only these rows are converted.

        Raises:
            TypeError: The rows are no slice that goes forward.
        """
        rows, *columns = index if isinstance(index, tuple) else (index,)
        if not isinstance(rows, slice) or (rows.step or 1) < 1:
            raise TypeError(f"samples are read by slices of rows that go forward, not by {rows!r}")
        start, stop, step = rows.indices(len(self))
        values = self._read(start, max(start, stop))[::step]
        return values[(slice(None), *columns)] if columns else values

    def __mul__(self, factor: float | np.ndarray) -> ConvertedSamples:
        """Returns these samples times a number, or times one number for each channel."""
        return ConvertedSamples(self.shape, lambda start, stop: self._read(start, stop) * factor)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Returns all samples."""
        del copy  # The array is a new one in any case.
        return self[:].astype(dtype or self.dtype, copy=False)


class ReadAhead:
    """Reads more rows than it is asked for, and keeps them for the next call."""

    def __init__(self, shape: tuple[int, int], read: Callable[[int, int], np.ndarray]):
        """Makes a reader that has read nothing yet.

        Args:
            shape: Shape `(time, channel)` of all rows.
            read: Function that returns `f64[stop - start, channel]` for the rows from `start` to `stop`.
        """
        self._num_rows = shape[0]
        self._step = max(1, VALUES_AT_ONCE // max(1, shape[1]))
        self._read = read
        self._first, self._rows = 0, np.empty((0, shape[1]))

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Returns the rows from `start` to `stop`, `f64[stop - start, channel]`; they must not be written to."""
        if start < self._first or stop > self._first + len(self._rows):
            self._rows = self._rows[:0]  # Two blocks are never held at once.
            self._rows = self._read(start, min(self._num_rows, max(stop, start + self._step)))
            self._first = start
        return self._rows[start - self._first : stop - self._first]


def converted(shape: tuple[int, int], read: Callable[[int, int], np.ndarray]) -> Samples:
    """Returns samples: an array where there are few, otherwise a `ConvertedSamples`.

    Args:
        shape: Shape `(time, channel)` of the samples.
        read: Function that returns `f64[stop - start, channel]` for the rows from `start` to `stop`.
    """
    return read(0, shape[0]) if shape[0] * shape[1] <= VALUES_AT_ONCE else ConvertedSamples(shape, read)


def as_float(samples: Matrix) -> Samples:
    """Returns numbers of any type, `[time, channel]`, as samples that are converted to float64 when accessed."""
    return converted(samples.shape, lambda start, stop: samples[start:stop].astype(np.float64))


def row_blocks(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yields the first row, and the last row plus one, of blocks that are small enough to convert one at a time."""
    step = max(1, VALUES_AT_ONCE // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def unreadable(source: str, error: Exception) -> RecordError:
    """Returns the error for samples that could be read when the recording was opened, and no longer can be."""
    return truncated_file(
        f"{source}: its samples cannot be read any more ({error}); was the file changed during the build? Check the "
        "disk, or copy it again"
    )
