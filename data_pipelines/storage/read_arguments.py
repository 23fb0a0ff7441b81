"""Checks the arguments of `Store.read` for all stores."""

from __future__ import annotations

import numpy as np


def checked_arguments(
    record_numbers: np.ndarray, out: np.ndarray | None, *, valid: np.ndarray | None, stored: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns record numbers as `int64[n]`, and the array to read into, which is `out` where it is given.

    Args:
        record_numbers: Numbers of the records to read.
        out: `int16[n, time, lead]`, C-contiguous, or None.
        valid: `bool[n]`, or None.
        stored: Number of records in the store, and shape of each.

    Raises:
        IndexError: A number lies outside 0 … num_records − 1.
        TypeError: The numbers are no vector of integers.
        ValueError: `out` or `valid` is no array of its type and shape.
    """
    numbers = np.asarray(record_numbers)
    # An empty list has become a vector of floats.
    if numbers.ndim != 1 or not (np.issubdtype(numbers.dtype, np.integer) or numbers.size == 0):
        raise TypeError(f"record numbers are a vector of integers, got {numbers.dtype}{numbers.shape}")
    numbers = numbers.astype(np.int64)
    # Negative numbers would count from the end, as NumPy does, and read other records in silence.
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < stored[0]):
        message = f"record numbers {numbers.min()} … {numbers.max()} asked for, the store holds 0 … {stored[0] - 1}"
        raise IndexError(message)
    wanted = (len(numbers), *stored[1:])
    if out is not None and (out.shape != wanted or out.dtype != np.int16 or not out.flags.c_contiguous):
        raise ValueError(f"out must be C-contiguous int16{wanted}, got {out.dtype}{out.shape}")
    if valid is not None and (valid.shape != numbers.shape or valid.dtype != np.bool_):
        raise ValueError(f"valid must be bool{numbers.shape}, got {valid.dtype}{valid.shape}")
    return numbers, np.empty(wanted, np.int16) if out is None else out
