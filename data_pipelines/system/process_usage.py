"""Memory and reads of this process, as the system counts them."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Returns the largest resident memory of this process so far, in bytes, mapped files included."""
    unit = 1 if sys.platform == "darwin" else 1024  # `getrusage` counts bytes on macOS and KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def own_memory_bytes() -> int:
    """Returns the bytes of memory that are this process's own, without mapped files; it works on Linux only."""
    return 1024 * _in_proc("status", "RssAnon")


def bytes_from_disk() -> int:
    """Returns the number of bytes that this process has read from the disk; it works on Linux only."""
    return _in_proc("io", "read_bytes")


def _in_proc(file: str, field: str) -> int:
    for line in Path("/proc/self", file).read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/{file} has no {field}: this benchmark needs Linux")
