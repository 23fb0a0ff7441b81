"""Reads records of files that are not in memory yet, many at a time, and asks beforehand for those to come.

A mapped file that is not in the page cache is read page by page, each when it is accessed: about a thousand random
records of 40 kB a second. A disk gives what it can when many reads are under way at once; so records are read by many
threads, each waiting for one, straight into the memory that they are wanted in. Where everything is in memory already
that costs more than copying from the map: so a few records are probed first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.system.reader_threads import ReaderThreads

#: Number of reads under way at once; more gave no more on the disks that were measured, and 4 half as much.
READS_AT_ONCE = 32

# One record in so many is probed, which takes 2 % of the time of a read from memory.
_RECORDS_PER_PROBE = 16

# So many bytes are asked for beforehand by one call.
_ANNOUNCED_BYTES = 2**22

_SUPPORTED = hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")


class RecordFiles:
    """Records of equal size in several files; any number of threads may use it.

    Where the system cannot tell what is in memory (macOS), everything counts as being there.
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
        self._threads = ReaderThreads(READS_AT_ONCE)
        # A process may have about a thousand files open by default; files beyond a quarter of the limit are opened when
        # needed.
        num_kept = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4 if _SUPPORTED else 0
        self._handles = [None if path is None else os.open(path, os.O_RDONLY) for path in paths[:num_kept]]

    def __del__(self) -> None:
        for handle in self._handles:
            if handle is not None:
                os.close(handle)

    def in_memory(self, files: np.ndarray, positions: np.ndarray) -> bool:
        """Returns whether a probe of some records finds them in memory.

        Args:
            files: `int64[n]`, number of the file of each record.
            positions: `int64[n]`, number of each record in its file.
        """
        if not _SUPPORTED:
            return True
        probed = files[::_RECORDS_PER_PROBE]
        offsets = self._offsets(probed, positions[::_RECORDS_PER_PROBE])
        return all(map(self._is_in_memory, probed.tolist(), offsets.tolist()))

    def read(self, files: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        """Reads records into an array; what belongs to a file without a path is left as it is.

        Args:
            files: `int64[n]`, number of the file of each record.
            positions: `int64[n]`, number of each record in its file.
            out: Array whose n rows are filled, C-contiguous, each of the size of a record.

        Raises:
            OSError: A file ends too early or cannot be read; the error names it.
        """
        # Threads go through the files side by side, so that those that wait at the same time wait for neighbours.
        order = np.lexsort((positions, files))
        offsets = self._offsets(files, positions)
        parts = [order[first::READS_AT_ONCE] for first in range(min(READS_AT_ONCE, len(order)))]
        tasks = [self._threads.submit(self._read_rows, files[part], offsets[part], out, part) for part in parts]
        for task in tasks:
            task.result()

    def announce(self, files: np.ndarray, positions: np.ndarray) -> None:
        """Asks the system to read records into memory, those that follow each other in one stretch.

        Args:
            files: `int64[n]`, number of the file of each record.
            positions: `int64[n]`, number of each record in its file.
        """
        if not _SUPPORTED or not len(files):
            return
        apart = np.flatnonzero((np.diff(files) != 0) | (np.diff(positions) != 1)) + 1
        bounds = [0, *apart.tolist(), len(files)]
        offsets = self._offsets(files, positions).tolist()
        for first, stop in itertools.pairwise(bounds):
            if (path := self._paths[files[first]]) is not None:
                end = offsets[stop - 1] + self._record_bytes
                with self._handle(int(files[first]), path) as handle:
                    for start in range(offsets[first], end, _ANNOUNCED_BYTES):
                        length = min(_ANNOUNCED_BYTES, end - start)
                        os.posix_fadvise(handle, start, length, os.POSIX_FADV_WILLNEED)

    def _offsets(self, files: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return self._first_byte[files] + positions * self._record_bytes

    def _is_in_memory(self, file: int, offset: int) -> bool:
        if (path := self._paths[file]) is None:
            return True
        if file < len(self._handles) and (kept := self._handles[file]) is not None:
            return _can_be_read_at_once(kept, offset)  # A context would take half as long as the probe.
        with self._handle(file, path) as handle:
            return _can_be_read_at_once(handle, offset)

    def _read_rows(self, files: np.ndarray, offsets: np.ndarray, out: np.ndarray, rows: np.ndarray) -> None:
        for file, offset, row in zip(files.tolist(), offsets.tolist(), rows.tolist(), strict=True):
            if (path := self._paths[file]) is not None:
                with self._handle(file, path) as handle:
                    _read_whole(handle, path, offset, memoryview(out[row]).cast("B"))

    @contextlib.contextmanager
    def _handle(self, file: int, path: Path) -> Iterator[int]:
        if file < len(self._handles) and (kept := self._handles[file]) is not None:
            yield kept
            return
        handle = os.open(path, os.O_RDONLY)
        try:
            yield handle
        finally:
            os.close(handle)


def _read_whole(handle: int, path: Path, offset: int, into: memoryview) -> None:
    while len(into):
        if not (count := os.preadv(handle, [into], offset)):
            raise OSError(f"{path}: ends at byte {offset}, where a record should be")
        into, offset = into[count:], offset + count


def _can_be_read_at_once(handle: int, offset: int) -> bool:
    """Returns whether a byte of a file is in memory; False where the file system cannot tell."""
    try:
        os.preadv(handle, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError:
        return False
    return True
