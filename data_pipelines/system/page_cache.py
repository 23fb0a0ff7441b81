"""Reads ahead the records of a batch in memory-mapped files, by `posix_fadvise`.

A mapped file that is not in the page cache is read page by page, each when it is accessed: about a thousand random
records of 40 kB a second. With `posix_fadvise` for all records of a batch first, the reads run in parallel, and 20
thousand a second are read. But that costs one system call per record, 40 % of the speed where everything is in memory
already. So a few records are probed, and the batch is read ahead only if one of them is not in memory (measured).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

# One record in so many is probed, which takes 2 % of the time of a read from memory.
_RECORDS_PER_PROBE = 16

Result = TypeVar("Result")

_SUPPORTED = hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")


class ReadAhead:
    """Asks the system to read records into the page cache before they are used; any number of threads may call it.

    It has no effect where the system has no such calls (macOS).
    """

    def __init__(self, paths: Sequence[Path | None], *, first_byte: Sequence[int], record_bytes: int):
        """Opens the files.

        Args:
            paths: Paths of the files; None for a file of which nothing is read.
            first_byte: Position of the first record in each file.
            record_bytes: Size of a record.
        """
        self._paths = paths
        self._first_byte = np.array(first_byte, np.int64)
        self._record_bytes = record_bytes
        # A process may have about a thousand files open by default; files beyond a quarter of the limit are opened when
        # needed.
        num_kept = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4 if _SUPPORTED else 0
        self._handles = [None if path is None else os.open(path, os.O_RDONLY) for path in paths[:num_kept]]

    def __del__(self) -> None:
        for handle in self._handles:
            if handle is not None:
                os.close(handle)

    def __call__(self, files: np.ndarray, positions: np.ndarray) -> None:
        """Starts reading records ahead, unless a probe of some finds them in memory.

        Args:
            files: `int64[n]`, number of the file of each record.
            positions: `int64[n]`, number of each record in its file.
        """
        if not _SUPPORTED:
            return
        offsets = self._first_byte[files] + positions * self._record_bytes
        probed = slice(None, None, _RECORDS_PER_PROBE)
        if all(map(self._in_memory, files[probed].tolist(), offsets[probed].tolist())):
            return
        for file, offset in zip(files.tolist(), offsets.tolist(), strict=True):
            if (path := self._paths[file]) is not None:
                self._with_handle(file, path, self._announce, offset)

    def _in_memory(self, file: int, offset: int) -> bool:
        path = self._paths[file]
        return path is None or self._with_handle(file, path, _can_be_read_at_once, offset)

    def _announce(self, handle: int, offset: int) -> None:
        os.posix_fadvise(handle, offset, self._record_bytes, os.POSIX_FADV_WILLNEED)

    def _with_handle(self, file: int, path: Path, use: Callable[[int, int], Result], offset: int) -> Result:
        kept = self._handles[file] if file < len(self._handles) else None
        if kept is not None:
            return use(kept, offset)
        handle = os.open(path, os.O_RDONLY)
        try:
            return use(handle, offset)
        finally:
            os.close(handle)


def _can_be_read_at_once(handle: int, offset: int) -> bool:
    """Returns whether a byte of a file is in memory; False where the file system cannot tell."""
    try:
        os.preadv(handle, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError:
        return False
    return True
