"""Yields this process's rows of every global batch, from a given step on, read ahead by Grain.

The records of a global batch follow from the step alone (`sampler.py`), and each process reads its rows of the batch.
Therefore a row has the same content for any number of processes, and a resumed run continues with the same batches.

A large batch is read by several threads at once, each a part of its rows, straight into the memory of the batch. While
they gather rows they hold no lock of the interpreter. Record numbers are drawn for many steps at a time, because a
step's own take as long as a quarter of its reading where batches are small.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from typing import Any

import grain
import numpy as np

from data_pipelines.storage.store import Store
from data_pipelines.streaming.announcer import Announcer
from data_pipelines.streaming.sampler import Sampler
from data_pipelines.system.buffers import BatchBuffers
from data_pipelines.system.reader_threads import ReaderThreads

#: Number of batches that are ready ahead.
BATCHES_AHEAD = 3

#: A batch is divided among threads into parts of at least so many bytes, so that calls cost little beside copying.
_PART_BYTES = 4 * 2**20

#: Number of records that are drawn at a time, about.
_RECORDS_DRAWN = 4096

#: Function of a step and of rows of the global batch, `int[n]`, that returns a value for each row, `[n, …]`.
Choice = Callable[[int, np.ndarray], np.ndarray]


def batches(
    store: Store,
    sampler: Sampler,
    *,
    rows: np.ndarray,
    start_step: int = 0,
    columns: Mapping[str, np.ndarray] | None = None,
    chosen: Mapping[str, Choice] | None = None,
    num_threads: int | None = None,
    allow_bad_shards: bool = False,
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields this process's part of the global batches of steps `start_step`, `start_step` + 1, … without end.

    Args:
        store: Store of the signals.
        sampler: Sampler that says which records a step's global batch holds.
        rows: `int[local]`, global rows of this process, in the order wanted.
        start_step: Step of the first batch.
        columns: Arrays over all records of the data set (such as `patient`), of which a batch gets its records' values.
        chosen: Further arrays of a batch that are no properties of a record, each as a pure function of step and rows.
        num_threads: Number of threads that read batches; None for as many as suit the store.
        allow_bad_shards: Whether rows whose shard is damaged are marked, instead of ending the stream with an error.

    Yields:
        Batches with `signal` `int16[local, time, 8]` in µV, `valid` `bool[local]` (False, and the signal zero, where
        the shard is damaged), `row` `int32[local]` (row in the global batch), `record` `int32[local]` (record number),
        and `[local, ...]` for every name of `columns` and `chosen`. The memory of `signal` is reused when nothing
        refers to it any more.

    Raises:
        ValueError: Rows lie outside of the global batch, or a column is not over all records.
        DataError: A shard is damaged, unless that is allowed; it is raised while iterating.
    """
    rows, columns, chosen = np.asarray(rows), dict(columns or {}), dict(chosen or {})
    _check(store, sampler, rows, start_step, columns)
    num_threads = num_threads or store.num_threads
    source = _StepSource(
        store, sampler, rows, start_step, columns=columns, chosen=chosen, marks=allow_bad_shards, count=num_threads
    )
    read_options = grain.ReadOptions(num_threads=source.num_streams, prefetch_buffer_size=source.ahead)
    return _closing(iter(grain.MapDataset.source(source).to_iter_dataset(read_options)), source)


class _StepSource:
    """Grain source whose element i is the local batch of step `start_step` + i.

    Grain asks for the batches in their order, by one thread or, where batches are small, by several. Each reads a part
    of its batch itself; the other parts, and the record numbers of later steps, are tasks of further threads.
    """

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        rows: np.ndarray,
        start_step: int,
        *,
        columns: Mapping[str, np.ndarray],
        chosen: Mapping[str, Choice],
        marks: bool,
        count: int,
    ):
        self._store, self._sampler, self._rows, self._start_step = store, sampler, rows, start_step
        self._columns, self._chosen, self._marks = columns, chosen, marks
        self._buffers = BatchBuffers((len(rows), *store.shape), np.int16)
        num_bytes = len(rows) * store.shape[0] * store.shape[1] * np.dtype(np.int16).itemsize
        num_parts = max(1, min(count, len(rows), num_bytes // _PART_BYTES))
        bounds = np.linspace(0, len(rows), num_parts + 1).astype(int).tolist()
        self._parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
        self.num_streams = -(-count // num_parts)
        self.ahead = max(BATCHES_AHEAD, self.num_streams)
        self._threads = ReaderThreads(max(1, count - self.num_streams))
        self._numbers = _DrawnAhead(
            self._draw, max(1, _RECORDS_DRAWN // len(rows)), threads=self._threads, behind=self.num_streams
        )
        self._announcer = None
        if (blocks := sampler.blocks) is not None:
            self._announcer = Announcer(store, sampler, blocks, rows, start_step=start_step)

    def __len__(self) -> int:
        """Returns a length that no training reaches, because training decides where to stop."""
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns the batch of step `start_step` + `index`."""
        step = self._start_step + int(index)
        if self._announcer is not None:
            self._announcer.announce(step)
        records, signal, valid = self._numbers.at(int(index)), self._buffers.take(), np.ones(len(self._rows), bool)

        def read(part: slice) -> None:
            self._store.read(records[part], signal[part], **({"valid": valid[part]} if self._marks else {}))

        first, *others = self._parts
        tasks = [self._threads.submit(read, part) for part in others]
        read(first)
        for task in tasks:
            task.result()
        return {
            "signal": signal,
            "valid": valid,
            "row": self._rows.astype(np.int32),
            "record": records.astype(np.int32),
            **{name: np.asarray(values[records]) for name, values in self._columns.items()},
            **{name: choose(step, self._rows) for name, choose in self._chosen.items()},
        }

    def close(self) -> None:
        """Lets the source's own threads end."""
        self._threads.close()

    def _draw(self, index: int, count: int) -> np.ndarray:
        return self._sampler.record_numbers_of(self._start_step + index, count, self._rows)


class _DrawnAhead:
    """Record numbers of steps, drawn for several steps at a time, and those of the next steps ahead of time."""

    def __init__(self, draw: Callable[[int, int], np.ndarray], count: int, *, threads: ReaderThreads, behind: int):
        self._draw, self._count, self._threads, self._behind = draw, count, threads, behind
        self._lock = threading.Lock()
        self._drawn: dict[int, Future[np.ndarray]] = {}

    def at(self, index: int) -> np.ndarray:
        """Returns the record numbers of one step, counted from the first; steps are asked for about in order."""
        group, place = divmod(index, self._count)
        with self._lock:
            for number in (group, group + 1):
                if number not in self._drawn:
                    self._drawn[number] = self._threads.submit(self._draw, number * self._count, self._count)
            drawn = self._drawn[group]
            # As many threads as there are may still be at steps before this one.
            self._drawn = {number: kept for number, kept in self._drawn.items() if number >= group - self._behind}
        return drawn.result()[place]


def _check(store: Store, sampler: Sampler, rows: np.ndarray, start: int, columns: Mapping[str, np.ndarray]) -> None:
    if start < 0:
        raise ValueError(f"steps count from 0, got start_step={start}")
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"rows are integers, got {rows.dtype}")
    if rows.ndim != 1 or len(rows) == 0 or rows.min() < 0 or rows.max() >= sampler.batch_size:
        raise ValueError(f"rows must be a vector of rows of a global batch of {sampler.batch_size}, got {rows}")
    if store.num_records > np.iinfo(np.int32).max:
        raise ValueError(f"record numbers of a batch are int32, {store.num_records} records do not fit")
    for name, values in columns.items():
        if name in ("signal", "valid", "row", "record") or len(values) != store.num_records:
            raise ValueError(f"column '{name}' must be over all {store.num_records} records and have a name of its own")


def _closing(iterator: grain.DatasetIterator, source: _StepSource) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields from an iterator, and ends its threads when the caller closes the stream or an error ends it."""
    try:
        yield from iterator
    finally:
        iterator.close()
        source.close()
