"""Measures and controls reads from the disk for benchmarks, on Linux."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

_DISK_BLOCK_BYTES = 2**22

# So many blocks are asked for before they are read, which keeps the disk busy while one is copied.
_BLOCKS_AHEAD = 8


def drop_from_page_cache(files: Sequence[Path]) -> None:
    """Drops files from the page cache, so that the next read of them comes from the disk."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # Pages that are not on the disk yet cannot be dropped.
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def disk_bytes_per_second(files: Sequence[Path]) -> float:
    """Reads files from start to end, and returns the speed in bytes per second."""
    buffer = bytearray(_DISK_BLOCK_BYTES)
    start, total = time.perf_counter(), 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            ahead = 0
            while count := file.readinto(buffer):
                total += count
                while ahead < file.tell() + _BLOCKS_AHEAD * _DISK_BLOCK_BYTES:
                    os.posix_fadvise(file.fileno(), ahead, _DISK_BLOCK_BYTES, os.POSIX_FADV_WILLNEED)
                    ahead += _DISK_BLOCK_BYTES
    return total / (time.perf_counter() - start)
