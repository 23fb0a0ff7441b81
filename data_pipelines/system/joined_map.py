"""Maps files into one contiguous range of addresses, so that one array spans all of them.

NumPy gathers rows of one array in one call that holds no lock; rows of several arrays take a call each. So a range of
addresses is reserved and the files are mapped into it one behind the other, which is possible where all but the last
fill whole memory pages. Python's `mmap` cannot be told where to map; the C library's can.
"""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

_MAP_FIXED = 0x10  # It is the same on Linux and macOS; Python does not name it.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A range of bytes of a file to be mapped, or as many zeros.

    Attributes:
        path: Path of the file; None for zeros.
        offset: Position of the first byte in the file.
        num_bytes: Number of bytes.
    """

    path: Path | None
    offset: int
    num_bytes: int


def can_join(pieces: Sequence[Piece]) -> bool:
    """Returns whether all pieces start and end at the boundaries of memory pages, except for the end of the last."""
    page = mmap.ALLOCATIONGRANULARITY
    return all(each.offset % page == 0 for each in pieces) and all(each.num_bytes % page == 0 for each in pieces[:-1])


def join_pieces(pieces: Sequence[Piece]) -> np.ndarray:
    """Maps pieces of files one behind the other.

    Args:
        pieces: Pieces for which `can_join` holds, each within its file.

    Returns:
        `uint8[sum of num_bytes]`, read-only; the range is released with the last array that refers to it.

    Raises:
        OSError: A file cannot be opened or mapped.
    """
    # The reserved range reads as zeros and takes no memory until it is read.
    reserved = mmap.mmap(
        -1, sum(piece.num_bytes for piece in pieces), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ
    )
    joined = np.frombuffer(reserved, np.uint8)
    map_at = _map_function()
    position = joined.ctypes.data
    for piece in pieces:
        if piece.path is not None:
            _map_piece(map_at, piece.path, piece, address=position)
        position += piece.num_bytes
    return joined


def _map_function() -> Callable[..., int | None]:
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]  # off_t is ssize_t.
    return function


def _map_piece(map_at: Callable[..., int | None], path: Path, piece: Piece, *, address: int) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        # The mapping lies within the reserved range, whose release takes it along.
        flags = mmap.MAP_SHARED | _MAP_FIXED
        if map_at(address, piece.num_bytes, mmap.PROT_READ, flags, handle, piece.offset) != address:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
    finally:
        os.close(handle)
