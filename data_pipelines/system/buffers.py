"""Batch arrays whose memory is reused once nothing refers to it any more.

Batches are tens of megabytes. Fresh memory for each costs the kernel its zeroing and glibc its mapping: at 1,024
ten-second recordings (40 MB) the packed store gives 148 instead of 94 thousand ECGs/s to one thread and 214 instead of
144 thousand to two (measured on 2 cores).
"""

from __future__ import annotations

import sys
import threading

import numpy as np


class BatchBuffers:
    """Arrays of one shape; each is given out again only when every reference to it, views included, is gone.

    A view of a NumPy array refers to the array that owns the memory, and so does whoever was handed the memory through
    the buffer protocol or DLPack, JAX included (on CPU its arrays may be the memory itself). So the reference count of
    the owning array shows whether the memory is in use.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike):
        """Starts without any memory; as many arrays are made as are in use at the same time."""
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._lock = threading.Lock()
        self._arrays = [np.empty(0, self._dtype)]
        # The reference count of an array that only the list refers to depends on the Python version.
        self._idle_count = self._count(0)
        self._arrays.clear()

    def take(self) -> np.ndarray:
        """Returns an array that nothing else refers to; its contents are arbitrary."""
        with self._lock:
            for number in range(len(self._arrays)):
                if self._count(number) == self._idle_count:
                    return self._arrays[number]
            self._arrays.append(np.empty(self._shape, self._dtype))
            return self._arrays[-1]

    def _count(self, number: int) -> int:
        return sys.getrefcount(self._arrays[number])
