"""Reads the signals of a data set from its own ArrayRecord shards, which are portable and canonical."""

from __future__ import annotations

import itertools
import resource
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.storage.array_record_shard import ArrayRecordShard, why_bad
from data_pipelines.storage.bad_shards import BadRecords, BadShard, refuse
from data_pipelines.storage.read_arguments import checked_arguments
from data_pipelines.storage.stored_example import SignalDecoder

_REMEDY = "restore them from a copy, or build the data set again with --overwrite"

# Opening a file on a mounted bucket takes 50 ms and more; with so many threads 30,000 shards take a minute or two.
_OPENING_THREADS = 32


class ArrayRecordStore:
    """Reads and decodes records of ArrayRecord shards."""

    kind = "array_record"
    num_threads = 1

    def __init__(self, dataset: Dataset, *, allow_bad_shards: bool = False):
        """Opens and checks the shards of a data set.

        Args:
            dataset: Data set whose shards are read.
            allow_bad_shards: Whether shards that are missing, truncated or damaged are accepted, and their records
                reported as not readable.

        Raises:
            DataError: Shards are missing, truncated or damaged, all of them named, or files are no shards of this data
                set.
        """
        self._paths = dataset.shards
        self._bounds = np.concatenate([[0], np.cumsum(dataset.card["shard_lengths"], dtype=np.int64)])
        self.num_records = int(self._bounds[-1])
        self.shape = dataset.format.shape
        self._decoder = SignalDecoder(self.shape)
        _check_no_strangers(dataset)
        if len(bad := _bad_shards(self._paths, self._bounds)) == len(self._paths):
            raise DataError(
                f"{dataset.directory}: none of its {len(bad)} ArrayRecord shards can be read ({bad[0]}); if it was "
                f"staged without them read its packed copy (store 'packed' or 'auto'), else {_REMEDY}"
            )
        if bad and not allow_bad_shards:
            refuse(bad, num_shards=len(self._paths), remedy=_REMEDY)
        self._bad = BadRecords(bad)
        self._open: dict[int, ArrayRecordShard] = {}
        # Every open shard holds a file, and a process may have about a thousand open by default.
        self._max_open = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        # A shard has a position, so each thread would need shards of its own; and reading holds the interpreter's lock,
        # so that two threads are slower than one (21 to 28 thousand ECGs/s, measured).
        self._turn = threading.Lock()

    @property
    def bad_shards(self) -> Sequence[BadShard]:
        """Stretches of records that cannot be read, as far as is known; a record's place is its number."""
        return self._bad.shards

    def read(
        self, record_numbers: np.ndarray, out: np.ndarray | None = None, *, valid: np.ndarray | None = None
    ) -> np.ndarray:
        """Reads signals as `data_pipelines.storage.store.Store.read` describes."""
        numbers, signals = checked_arguments(record_numbers, out, valid=valid, stored=(self.num_records, *self.shape))
        if valid is None:
            self._bad.check(numbers)
        bad = self._bad.among(numbers)
        signals[bad] = 0
        rows = np.flatnonzero(~bad)
        shard_of = np.searchsorted(self._bounds, numbers[rows], side="right") - 1
        positions = numbers[rows] - self._bounds[shard_of]
        with self._turn:
            for row, shard, position in zip(rows.tolist(), shard_of.tolist(), positions.tolist(), strict=True):
                try:
                    self._opened(shard).read_into(position, signals[row])
                except ValueError as error:
                    # Only this record is marked: whether a row is valid must not depend on what else was read before,
                    # so that it is the same for every process, thread and resumed run.
                    number = int(self._bounds[shard]) + position
                    self._bad.add(BadShard(path=self._paths[shard], start=number, stop=number + 1, reason=str(error)))
                    if valid is None:
                        raise DataError(f"{self._paths[shard]}: {error}; {_REMEDY}") from error
                    signals[row] = 0
                    bad[row] = True
        if valid is not None:
            np.logical_not(bad, out=valid)
        return signals

    def in_stored_order(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns record numbers, `int64[n]`, in ascending order, which is that of the shards."""
        return np.sort(record_numbers)

    def announce(self, record_numbers: np.ndarray) -> None:
        """Does nothing: where a compressed record lies in its shard, only the reader of the shard knows."""

    def shard_of(self, record_number: int) -> str:
        """Returns the path of the shard that a record is in, for messages."""
        return str(self._paths[int(np.searchsorted(self._bounds, record_number, side="right")) - 1])

    def _opened(self, shard: int) -> ArrayRecordShard:
        if (opened := self._open.get(shard)) is None:
            if len(self._open) >= self._max_open:
                self._open.pop(next(iter(self._open))).close()
            opened = self._open[shard] = ArrayRecordShard(self._paths[shard], self._decoder)
        return opened


def _bad_shards(paths: Sequence[Path], bounds: np.ndarray) -> list[BadShard]:
    spans = list(itertools.pairwise(bounds.tolist()))
    with ThreadPoolExecutor(min(_OPENING_THREADS, len(paths))) as threads:
        reasons = list(threads.map(why_bad, paths, [stop - start for start, stop in spans]))
    return [
        BadShard(path=path, start=start, stop=stop, reason=reason)
        for path, (start, stop), reason in zip(paths, spans, reasons, strict=True)
        if reason is not None
    ]


def _check_no_strangers(dataset: Dataset) -> None:
    names = {path.name for path in dataset.shards}
    strangers = sorted(path.name for path in dataset.directory.glob("*.array_record-*") if path.name not in names)
    if strangers:
        raise DataError(f"{dataset.directory / strangers[0]}: not a shard of this data set; remove it")
