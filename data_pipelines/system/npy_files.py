"""Writes arrays: an `.npy` file piece by piece, and an `.npz` file by names that are not known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np


def write_npy(
    path: Path, pieces: Iterable[np.ndarray], *, dtype: np.dtype, shape: tuple[int | None, *tuple[int, ...]]
) -> int:
    """Writes an array piece by piece, so that only one piece is in memory at a time.

    It does not use a memory map: on a disk that gets full, storing to one ends the process by SIGBUS, without a
    message.

    Args:
        path: Path of the file, which is overwritten.
        pieces: Consecutive parts along the first axis, cast to `dtype`.
        dtype: Type of the array.
        shape: Shape of the whole array; None for a first axis as long as the pieces together.

    Returns:
        Length of the first axis.

    Raises:
        ValueError: The pieces do not add up to the shape.
        OSError: The disk is full, or cannot be written.
    """
    rows = 0
    with path.open("wb") as file:
        begin = _write_header(file, dtype, (shape[0] or 0, *shape[1:]))
        for piece in pieces:
            if piece.shape[1:] != shape[1:]:
                raise ValueError(f"{path}: a piece of shape {piece.shape} for an array of shape {shape}")
            file.write(np.ascontiguousarray(piece, dtype).data)
            rows += len(piece)
        if shape[0] is None:
            file.seek(0)
            # NumPy leaves room in a header for the first axis to grow.
            if _write_header(file, dtype, (rows, *shape[1:])) != begin:
                raise ValueError(f"{path}: a header of {rows} rows has no room before the array")
    if shape[0] not in (None, rows):
        raise ValueError(f"{path}: pieces of {rows} rows for an array of shape {shape}")
    return rows


def _write_header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Writes the header of an array, and returns where it ends."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def write_npz(file: IO[bytes], arrays: Mapping[str, np.ndarray], *, compressed: bool) -> None:
    """Writes arrays to an `.npz` file as NumPy does.

    Args:
        file: File that is open for writing.
        arrays: Arrays by name; no name may be `file` or `allow_pickle`.
        compressed: Whether the arrays are compressed.
    """
    save = np.savez_compressed if compressed else np.savez
    save(file, **arrays)  # type: ignore[arg-type]  # NumPy's types take each name for `allow_pickle`, which is a bool.
