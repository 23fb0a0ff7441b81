"""Writing of metrics beside the training, which no disk can stop: full, read-only, removed, or without an answer.

Records go to a thread of their own. What cannot be written is kept, up to a limit, and written once that is possible
again; what is lost is counted.
"""

from __future__ import annotations

import collections
import contextlib
import math
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.system.visible_text import visible
from ecgjax.system.files import append_whole
from ecgjax.system.machine_faults import cause_of, remedy_of
from ecgjax.system.terminal import warn

#: Records of a file that are kept while it cannot be written: some megabytes.
MOST_KEPT = 4096

#: Seconds that the training waits for a disk that gives no answer, once: until it has answered nobody waits again.
PATIENCE_S = 5.0

#: Seconds for which nothing more is said of a file: a disk that is all but full takes some records and refuses others.
SILENCE_S = 600.0

#: Seconds that the end of a run waits for such a disk.
LAST_PATIENCE_S = 10.0


class GrowingFile:
    """A file that grows by whole records, which are kept while it cannot be written.

    Args:
        path: Path of the file.
        header: Bytes that the file begins with.
    """

    def __init__(self, path: Path, *, header: bytes = b""):
        self.path = path
        self._header = header
        self._kept: collections.deque[bytes] = collections.deque()
        self._cause = ""
        self._written = 0
        self._told_at = -math.inf
        self._told = False

    def add(self, record: bytes) -> None:
        """Writes a record and those kept from before, or keeps it where that fails; says once that it does."""
        self._kept.append(record)
        if len(self._kept) > MOST_KEPT:
            self._kept.popleft()
        self.write()

    def write(self) -> None:
        """Writes the records that were kept, as far as that is possible."""
        try:
            while self._kept:
                append_whole(self.path, self._kept[0], header=self._header)
                self._kept.popleft()
                self._written += 1
        except Exception as error:  # Whatever it is, metrics are not worth a run.
            self._tell_failure(error)
            return
        if self._cause and self._told:
            warn(f"{visible(str(self.path))} is written again, with the records that were kept")
        self._cause, self._told = "", False

    def _tell_failure(self, error: Exception) -> None:
        first, self._cause = not self._cause, cause_of(error)
        if not first or time.monotonic() < self._told_at + SILENCE_S:
            return
        self._told_at, self._told = time.monotonic(), True
        remedy = remedy_of(error)
        warn(
            f"{visible(str(self.path))} cannot be written ({self._cause}); training goes on, and up to {MOST_KEPT:,} "
            "records are kept for it" + (f": {remedy}" if remedy else "")
        )

    def loss(self, records: int) -> str:
        """Returns a sentence on the records that were not written, or nothing where all were.

        Args:
            records: Number of all records that were meant for this file.
        """
        lost = records - self._written
        why = f" ({self._cause})" if self._cause else ""
        return f"{lost:,} records of {visible(str(self.path))} were not written{why}" if lost else ""


class MetricWriter:
    """Writes records to files from a thread of its own; no call of it fails, or waits for long.

    Args:
        files: Files that records go to, in the order of a record's parts.
        patience_s: Seconds that the training waits for a disk that gives no answer, once; 0 to wait for no record.
        last_patience_s: Seconds that the end of a run waits for such a disk.
    """

    def __init__(
        self,
        files: Sequence[GrowingFile],
        *,
        patience_s: float | None = None,
        last_patience_s: float | None = None,
    ):
        self._files = files
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._last_patience_s = LAST_PATIENCE_S if last_patience_s is None else last_patience_s
        self._queue: queue.Queue[tuple[Sequence[bytes | None], threading.Event] | None] = queue.Queue(MOST_KEPT)
        self._records = [0] * len(files)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def put(self, parts: Sequence[bytes | None]) -> None:
        """Writes a record; on return it is written, or kept for later, unless the disk gives no answer in time.

        Args:
            parts: Bytes for each file; None for a file that the record is not meant for.
        """
        self._records = [records + (part is not None) for records, part in zip(self._records, parts, strict=True)]
        answering = not self._queue.unfinished_tasks
        done = threading.Event()
        try:
            self._queue.put_nowait((parts, done))
        except queue.Full:
            return
        if answering and self._patience_s and not done.wait(self._patience_s):
            folder = visible(str(self._files[0].path.parent))
            warn(
                f"the disk of {folder} has not answered for {self._patience_s:g} s; training goes on and no longer "
                "waits for its metrics"
            )

    def close(self) -> None:
        """Writes what was kept, as far as that is possible, and says how many records were not written."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=self._last_patience_s)
            self._thread.join(self._last_patience_s)
        for loss in filter(None, map(GrowingFile.loss, self._files, self._records)):
            warn(loss)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            parts, done = record
            for file, part in zip(self._files, parts, strict=True):
                if part is not None:
                    file.add(part)
            self._queue.task_done()  # First, so that the next record finds the disk answering.
            done.set()
        for file in self._files:
            file.write()
        self._queue.task_done()
