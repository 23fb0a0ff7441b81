"""Checks the arguments of `Store.read` for all stores."""

from __future__ import annotations

import numpy as np


def checked_numbers(record_numbers: np.ndarray, num_records: int) -> np.ndarray:
    """Returns record numbers as `int64[n]`.

    Raises:
        IndexError: A number lies outside 0 … num_records − 1.
    """
    numbers = np.asarray(record_numbers)
    if numbers.ndim != 1 or not (np.issubdtype(numbers.dtype, np.integer) or numbers.size == 0):
        raise TypeError(f"record numbers are a vector of integers, got {numbers.dtype}{numbers.shape}")
    numbers = numbers.astype(np.int64)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < num_records):
        raise IndexError(
            f"record numbers {numbers.min()} … {numbers.max()} asked for, the store holds 0 … {num_records - 1}"
        )
    return numbers


def checked_out(out: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the array of a shape to read into, which is `out` where it is given.

    Raises:
        ValueError: `out` is not C-contiguous `int16` of that shape.
    """
    if out is None:
        return np.empty(shape, np.int16)
    if out.shape != shape or out.dtype != np.int16 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous int16{shape}, got {out.dtype}{out.shape}")
    return out


def check_valid(valid: np.ndarray | None, num_rows: int) -> None:
    """Raises `ValueError` if `valid` is an array, but not `bool[num_rows]`."""
    if valid is not None and (valid.shape != (num_rows,) or valid.dtype != np.bool_):
        raise ValueError(f"valid must be bool({num_rows},), got {valid.dtype}{valid.shape}")
