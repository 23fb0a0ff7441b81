"""What this process does with memory that was freed."""

from __future__ import annotations

import ctypes
import platform

# Parameters of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8

_MOST = 2**31 - 1
_GROW_BY = 128 * 2**20


def keep_freed_memory() -> bool:
    """Lets the C library keep large blocks that were freed, for the next that is asked for.

    XLA asks for a step's temporary memory anew at every step on a CPU. glibc gets such blocks from the system and gives
    them back, so that each page is zeroed at its first use, step after step: up to 40 % of a small encoder's processor
    time (docs/speed.md). Afterwards the process keeps the most that it ever needed. Call it before the first thread is
    started, which would have a memory pool of its own, and JAX's later ones would share it: what does not fit in there
    comes from the system, whatever is set. Importing pandas is enough to start one, so commands call this before their
    other imports.

    Returns:
        Whether there was anything to set: not with another C library than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _MOST, _TOP_PAD: _GROW_BY, _ARENA_MAX: 1}
    return all(mallopt(parameter, value) for parameter, value in settings.items())
