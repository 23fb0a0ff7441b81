"""Yields this process's rows of every global batch, from a given step on, read ahead by Grain.

The records of a global batch follow from the step alone (`sampler.py`), and each process reads its rows of the batch.
Therefore a row has the same content for any number of processes, and a resumed run continues with the same batches.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any

import grain
import numpy as np

from data_pipelines.storage.store import Store
from data_pipelines.streaming.sampler import Sampler
from data_pipelines.system.buffers import BatchBuffers

#: Number of batches that are ready ahead. Grain's defaults suit elements of one record; here an element is a batch of
#: megabytes.
BATCHES_AHEAD = 3


#: Function of a step and of rows of the global batch, `int[n]`, that returns a value for each row, `[n, …]`.
Choice = Callable[[int, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _StepSource:
    """Grain source whose element i is the local batch of step `start_step + i`."""

    store: Store
    sampler: Sampler
    rows: np.ndarray
    start_step: int
    columns: Mapping[str, np.ndarray]
    chosen: Mapping[str, Choice]
    allow_bad_shards: bool
    buffers: BatchBuffers

    def __len__(self) -> int:
        return sys.maxsize  # Training decides where to stop.

    def __getitem__(self, index: int) -> dict[str, Any]:
        step = self.start_step + int(index)
        records = self.sampler.record_numbers(step, self.rows)
        valid = np.ones(len(records), bool)
        marks = {"valid": valid} if self.allow_bad_shards else {}
        return {
            "signal": self.store.read(records, self.buffers.take(), **marks),
            "valid": valid,
            "row": self.rows.astype(np.int32),
            "record": records.astype(np.int32),
            **{name: np.asarray(values[records]) for name, values in self.columns.items()},
            **{name: choose(step, self.rows) for name, choose in self.chosen.items()},
        }


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
    buffers = BatchBuffers((len(rows), *store.shape), np.int16)
    source = _StepSource(store, sampler, rows, start_step, columns, chosen, allow_bad_shards, buffers)
    read_options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=max(BATCHES_AHEAD, num_threads))
    return _closing(iter(grain.MapDataset.source(source).to_iter_dataset(read_options)))


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


def _closing(iterator: grain.DatasetIterator) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields from an iterator, and ends its reading threads when the caller closes the stream or an error ends it."""
    try:
        yield from iterator
    finally:
        iterator.close()
