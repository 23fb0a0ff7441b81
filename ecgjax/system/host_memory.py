"""Settings of how this process reuses freed memory."""

from __future__ import annotations

import ctypes
import platform

# Parameters of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8

_MOST = 2**31 - 1
_GROW_BY = 128 * 2**20


def keep_freed_memory() -> bool:
    """Lets the C library keep large freed blocks for the next requests.

    On a CPU, XLA requests a step's temporary memory anew at every step. By default glibc gets such blocks from the
    system and returns them, so that each page is zeroed at its first use in every step, which takes up to 40 % of a
    small encoder's processor time (docs/speed.md). After this call the process keeps the most memory that it ever
    needed. The call must come before the first thread is started: that thread would have a memory pool of its own,
    which JAX's later threads would share, and what does not fit into this pool comes from the system whatever is set.
    Importing pandas is enough to start a thread, so that commands call this before their other imports.

    Returns:
        Whether the settings were made; they cannot be made with another C library than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Large blocks come from the heap and not by mmap, the heap's end is never given back, it grows by so much at once
    # that the system is rarely asked, and all threads share it.
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _MOST, _TOP_PAD: _GROW_BY, _ARENA_MAX: 1}
    return all(mallopt(parameter, value) for parameter, value in settings.items())
