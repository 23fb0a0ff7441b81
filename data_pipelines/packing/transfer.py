"""Downloads ArrayRecord shards of a remote data set one after the other, while they are read."""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.buckets.timed_task import Task
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.storage.array_record_shard import ArrayRecordShard, why_bad
from data_pipelines.storage.stored_example import SignalDecoder


@contextlib.contextmanager
def shards_of(
    remote: RemoteFolder, dataset: Dataset, scratch: Path, downloaded: Callable[[int], None]
) -> Iterator[RemoteShards]:
    """Yields a reader of the shards of a remote data set, and removes all of them from the local disk afterwards.

    Args:
        remote: Folder of the data set.
        dataset: Data set whose card and index are local already.
        scratch: Local directory for shards; it is emptied before and removed afterwards.
        downloaded: Function that is called with the number of bytes of every part that arrived.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    shards = RemoteShards(remote, dataset, scratch, downloaded)
    try:
        yield shards
    finally:
        shards.close()
        shutil.rmtree(scratch)


class RemoteShards:
    """Signals of a remote data set in stored order; one shard is on the local disk while the next is downloaded."""

    def __init__(self, remote: RemoteFolder, dataset: Dataset, scratch: Path, downloaded: Callable[[int], None]):
        self._remote, self._scratch, self._downloaded = remote, scratch, downloaded
        # Each shard is a file below the remote folder too: the names are checked for it as they are for local ones.
        self._names = [path.name for path in dataset.shards]
        self._bounds = list(itertools.accumulate(dataset.card["shard_lengths"], initial=0))
        self._shape = dataset.format.shape
        self._decoder = SignalDecoder(self._shape)
        self._number = -1  # This is the number of the open shard.
        self._opened: ArrayRecordShard | None = None
        self._path: Path | None = None
        self._coming: dict[int, Task[Path]] = {}
        self._closing = threading.Event()

    def scratch_bytes(self) -> int:
        """Returns an upper bound of the size of the scratch directory, which is that of two shards."""
        if self._remote.local is not None:
            return 0
        longest = np.diff(self._bounds).max()
        # Shards are compressed, but their records hold labels and a report beside the signal.
        return 2 * int(longest) * (2 * math.prod(self._shape) + 4096)

    def shard_of(self, record_number: int) -> str:
        """Returns the address of the shard that a record is in."""
        return f"{self._remote.url}/{self._names[self._shard_number(record_number)]}"

    def read(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns the signals, `int16[n, time, 8]`, of consecutive record numbers; calls are in ascending order.

        Args:
            record_numbers: Record numbers, `int64[n]`.

        Raises:
            DataError: A shard is missing, truncated or damaged; the message names it.
        """
        signals = np.empty((len(record_numbers), *self._shape), np.int16)
        for signal, record_number in zip(signals, record_numbers.tolist(), strict=True):
            shard, opened = self._shard_number(record_number), self._opened
            if opened is None or shard != self._number:
                opened = self._open(shard)
            try:
                opened.read_into(record_number - self._bounds[shard], signal)
            except ValueError as error:
                raise self._bad(record_number, str(error)) from error
        return signals

    def close(self) -> None:
        """Ends the current download and removes the open shard."""
        self._closing.set()
        for task in self._coming.values():
            with contextlib.suppress(DataError, OSError):  # The shard is no longer wanted.
                task.result()
        self._leave()

    def _shard_number(self, record_number: int) -> int:
        return int(np.searchsorted(self._bounds, record_number, side="right")) - 1

    def _open(self, shard: int) -> ArrayRecordShard:
        self._leave()
        path = (self._coming.pop(shard, None) or self._bring(shard)).result()
        # The next one is asked for only now, so that the scratch directory never holds more than two.
        if shard + 1 < len(self._names):
            self._coming[shard + 1] = self._bring(shard + 1)
        if (reason := why_bad(path, self._bounds[shard + 1] - self._bounds[shard])) is not None:
            raise self._bad(self._bounds[shard], reason)
        self._opened, self._path, self._number = ArrayRecordShard(path, self._decoder), path, shard
        return self._opened

    def _leave(self) -> None:
        if self._opened is not None:
            self._opened.close()
            if self._remote.local is None and self._path is not None:
                self._path.unlink(missing_ok=True)
        self._opened, self._number = None, -1

    def _bring(self, shard: int) -> Task[Path]:
        if (local := self._remote.local) is not None:
            return Task(lambda: local / self._names[shard])

        def download() -> Path:
            path = self._scratch / self._names[shard]
            self._remote.download(self._names[shard], path, progress=self._downloaded, cancelled=self._closing.is_set)
            return path

        return Task(download)

    def _bad(self, record_number: int, reason: str) -> DataError:
        return DataError(
            f"{self.shard_of(record_number)}: {reason}; restore this shard from a copy, or build the data set again"
        )
