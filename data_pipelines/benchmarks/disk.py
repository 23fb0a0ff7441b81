"""Measures and controls reads from the disk for benchmarks, on Linux."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.benchmarks.machine import number_of_process

_DISK_BLOCK_BYTES = 2**22


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
            while count := file.readinto(buffer):
                total += count
    return total / (time.perf_counter() - start)


def bytes_from_disk() -> int:
    """Returns the number of bytes that this process has read from the disk; it works on Linux only."""
    return number_of_process("io", "read_bytes")
