"""Batch arrays whose memory is reused once nothing refers to it any more.

Batches are tens of megabytes. Fresh memory for each costs the kernel its zeroing and glibc its mapping: at 1,024
ten-second recordings (40 MB) the packed store gives 148 instead of 94 thousand ECGs/s to one thread and 214 instead of
144 thousand to two (measured on 2 cores).
"""

from __future__ import annotations

import math
import sys
import threading

import numpy as np

# JAX takes memory over as it is, without a copy, where it begins at a multiple of 64 bytes; a whole page is no worse.
_ALIGNMENT = 4096


class BatchBuffers:
    """Arrays of one shape that begin at memory pages.

    Each is given out again only when every reference to it, views included, is gone.

    A view of a NumPy array refers to the array that owns the memory, and so does whoever was handed the memory through
    the buffer protocol or DLPack, JAX included (on CPU its arrays may be the memory itself). So the reference count of
    the owning array shows whether the memory is in use.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike):
        """Starts without any memory; as many arrays are made as are in use at the same time."""
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._num_bytes = math.prod(shape) * self._dtype.itemsize
        self._lock = threading.Lock()
        # The bytes that own the memory of each array.
        self._arrays = [np.empty(0, np.uint8)]
        # The reference count of an array that only the list refers to depends on the Python version.
        self._idle_count = self._count(0)
        self._arrays.clear()

    def take(self) -> np.ndarray:
        """Returns an array that nothing else refers to; its contents are arbitrary."""
        with self._lock:
            for number in range(len(self._arrays)):
                if self._count(number) == self._idle_count:
                    return self._aligned(self._arrays[number])
            self._arrays.append(np.empty(self._num_bytes + _ALIGNMENT, np.uint8))
            return self._aligned(self._arrays[-1])

    def _aligned(self, owner: np.ndarray) -> np.ndarray:
        start = -owner.ctypes.data % _ALIGNMENT
        return owner[start : start + self._num_bytes].view(self._dtype).reshape(self._shape)

    def _count(self, number: int) -> int:
        return sys.getrefcount(self._arrays[number])
