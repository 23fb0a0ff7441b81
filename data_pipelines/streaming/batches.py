"""Yields this process's rows of every global batch, from a given step on, read ahead by several threads.

The records of a global batch follow from the step alone (`sampler.py`), and each process reads its rows of the batch.
Therefore a row has the same content for any number of processes, and a resumed run continues with the same batches.

A large batch is read by several threads at once, each a part of its rows, straight into the memory of the batch. While
they gather rows they hold no lock of the interpreter. Record numbers are drawn for many steps at a time, because a
step's own take as long as a quarter of its reading where batches are small.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from typing import Any

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
    stream = _Stream(
        store,
        sampler,
        rows,
        columns=columns,
        chosen=chosen,
        marks=allow_bad_shards,
        count=num_threads or store.num_threads,
    )
    return stream.batches(start_step)


class _Stream:
    """Batches of one process, each begun some steps before it is asked for."""

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        rows: np.ndarray,
        *,
        columns: Mapping[str, np.ndarray],
        chosen: Mapping[str, Choice],
        marks: bool,
        count: int,
    ):
        self._store, self._sampler, self._rows = store, sampler, rows
        self._columns, self._chosen, self._marks = columns, chosen, marks
        self._threads = ReaderThreads(count)
        self._buffers = BatchBuffers((len(rows), *store.shape), np.int16)
        num_bytes = len(rows) * store.shape[0] * store.shape[1] * np.dtype(np.int16).itemsize
        num_parts = max(1, min(count, len(rows), num_bytes // _PART_BYTES))
        bounds = np.linspace(0, len(rows), num_parts + 1).astype(int).tolist()
        self._parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
        self._ahead = max(BATCHES_AHEAD, -(-count // num_parts))
        self._steps_drawn = max(1, _RECORDS_DRAWN // len(rows))

    def batches(self, start_step: int) -> Generator[dict[str, np.ndarray], None, None]:
        """Yields the batches from a step on; its threads end when it is closed or dropped, and with an error."""
        begun: collections.deque[Callable[[], dict[str, np.ndarray]]] = collections.deque()
        steps = self._begin(start_step)
        try:
            while True:
                while len(begun) < self._ahead:
                    begun.append(next(steps))
                # The batch gets no name here, so that its memory is free as soon as the caller drops it.
                yield begun.popleft()()
        finally:
            self._threads.close()

    def _begin(self, start_step: int) -> Generator[Callable[[], dict[str, np.ndarray]], None, None]:
        """Begins a batch whenever it is asked for the next; yields functions that wait for one and return it."""
        blocks, announcer = self._sampler.blocks, None
        if blocks is not None:
            announcer = Announcer(self._store, self._sampler, blocks, self._rows, start_step=start_step)
        step = start_step
        while True:
            # Tasks begin in the order of their submission, so none waits for numbers that nobody is drawing.
            drawn = self._threads.submit(self._sampler.record_numbers_of, step, self._steps_drawn, self._rows)
            for place in range(self._steps_drawn):
                if announcer is not None and (announced := announcer.due(step + place)) is not None:
                    self._threads.submit(announced)
                yield self._begin_step(step + place, drawn, place)
            step += self._steps_drawn

    def _begin_step(self, step: int, drawn: Future[np.ndarray], place: int) -> Callable[[], dict[str, np.ndarray]]:
        signal, valid = self._buffers.take(), np.ones(len(self._rows), bool)
        first, *parts = self._parts

        def read(part: slice) -> np.ndarray:
            records = drawn.result()[place]
            self._store.read(records[part], signal[part], **({"valid": valid[part]} if self._marks else {}))
            return records

        def read_first() -> dict[str, Any]:
            return self._others(step, read(first))

        # The rest of a batch comes with its first part, because a task of its own would cost as much again.
        with_others = self._threads.submit(read_first)
        tasks = [self._threads.submit(read, part) for part in parts]

        def finish() -> dict[str, np.ndarray]:
            others = with_others.result()
            for task in tasks:
                task.result()
            return {"signal": signal, "valid": valid, **others}

        return finish

    def _others(self, step: int, records: np.ndarray) -> dict[str, Any]:
        """Returns everything of a batch but its signals, for the record numbers of its rows."""
        return {
            "row": self._rows.astype(np.int32),
            "record": records.astype(np.int32),
            **{name: np.asarray(values[records]) for name, values in self._columns.items()},
            **{name: choose(step, self._rows) for name, choose in self._chosen.items()},
        }


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
