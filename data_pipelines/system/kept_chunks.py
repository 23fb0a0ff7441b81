"""Chunks of a long computation over records, each kept in a file once it is done, so that a later run goes on there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.system.atomic_directory import clear_staging, written_whole
from data_pipelines.system.npy_files import write_npz
from data_pipelines.system.workers import map_ordered

_REQUEST_FILE = "request.json"

#: Results for consecutive records: arrays `[n, …]`, in the order of a chunk's names.
Results = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class KeptChunk:
    """Consecutive records and the file that keeps what was computed of them.

    Attributes:
        path: Path of the file.
        records: Numbers of the records.
        names: Names of the arrays that are kept.
    """

    path: Path
    records: range
    names: tuple[str, ...]

    def load(self) -> Results | None:
        """Returns the arrays, each `[n, …]`; None if the file is missing or incomplete."""
        try:
            # NumPy leaves a file open that it opened itself and finds to be damaged.
            with self.path.open("rb") as file, np.load(file) as kept:
                arrays = tuple(kept[name] for name in self.names)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return arrays if all(len(array) == len(self.records) for array in arrays) else None

    def reload(self) -> Results:
        """Returns the arrays of a chunk that is done.

        Raises:
            DataError: The file is missing or damaged.
        """
        if (kept := self.load()) is None:
            raise DataError(f"{self.path}: does not read back as it was written; check the disk, then run again")
        return kept

    def save(self, arrays: Results) -> None:
        """Stores the arrays; the file appears whole or not at all."""
        with written_whole(self.path, making=self.path.with_suffix(".tmp")) as file:
            write_npz(file, dict(zip(self.names, arrays, strict=True)), compressed=False)


def begin_or_go_on(staging: Path, request: Mapping[str, Any]) -> None:
    """Clears a staging directory, unless what lies there was computed for the same request.

    Args:
        staging: Staging directory that this process has locked.
        request: Everything that the results depend on, as values of JSON.
    """
    path = staging / _REQUEST_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != json.dumps(request):
        clear_staging(staging)
        path.write_text(json.dumps(request), encoding="utf-8")


def chunks_of(
    staging: Path, *, num_records: int, records_per_chunk: int, names: tuple[str, ...], prefix: str = "chunk"
) -> list[KeptChunk]:
    """Returns the chunks of a computation.

    Args:
        staging: Directory in which the chunks are kept.
        num_records: Number of records.
        records_per_chunk: Number of records of every chunk but the last.
        names: Names of the arrays that are kept.
        prefix: Beginning of the files' names.
    """
    return [
        KeptChunk(
            staging / f"{prefix}-{start:012d}.npz", range(start, min(start + records_per_chunk, num_records)), names
        )
        for start in range(0, num_records, records_per_chunk)
    ]


def compute_rest(
    chunks: Sequence[KeptChunk],
    work: Callable[[range], Results],
    *,
    records_per_task: int,
    num_workers: int,
    progress: Callable[[int], None],
) -> None:
    """Computes and keeps the chunks that are not done yet.

    Args:
        chunks: Chunks in order.
        work: Function of consecutive record numbers that returns their results; it can be pickled.
        records_per_task: Number of records that a worker computes at a time.
        num_workers: Number of processes; 1 computes in this one.
        progress: Function that is called with the number of records that were done since its last call, those of an
            interrupted run included.

    Raises:
        DataError: A worker died.
    """
    pending = []
    for chunk in chunks:
        if chunk.load() is None:
            pending.append(chunk)
        else:
            progress(len(chunk.records))
    tasks = [_tasks(chunk.records, records_per_task) for chunk in pending]
    flat = [task for of_chunk in tasks for task in of_chunk]
    with contextlib.closing(map_ordered(work, flat, num_workers=num_workers, chunk_size=1)) as results:
        for chunk, of_chunk in zip(pending, tasks, strict=True):
            computed = list(_counted(results, of_chunk, progress))
            chunk.save(tuple(np.concatenate(parts) for parts in zip(*computed, strict=True)))


def _tasks(records: range, records_per_task: int) -> list[range]:
    return [records[start : start + records_per_task] for start in range(0, len(records), records_per_task)]


def _counted(results: Iterator[Results], tasks: Sequence[range], progress: Callable[[int], None]) -> Iterator[Results]:
    for task in tasks:
        yield next(results)
        progress(len(task))
