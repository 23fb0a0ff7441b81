"""Reads a freshly written data set back through TFDS and makes its index from what is really there."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.builders.base import SPLIT
from data_pipelines.errors import DataError
from data_pipelines.index import Index, Task, duplicates, groups, patient_codes
from data_pipelines.quality import clipped_samples, quality_flags
from data_pipelines.records import LabelSchema, content_hash
from data_pipelines.signature import signature
from data_pipelines.workers import map_ordered

_RECORDS_PER_READ = 256

# A new process takes as long to import TFDS as this many records take to read and judge.
_RECORDS_WORTH_A_PROCESS = 2000

# Columns taken as they are stored.
_STORED_COLUMNS = {
    "fold": np.int16,
    "sex": np.int8,
    "age_years": np.float32,
    "valid_start": np.int32,
    "valid_samples": np.int32,
}


def stored_examples(directory: Path) -> Iterator[dict[str, Any]]:
    """Yields every stored record in order, decoded by TFDS: `signal` is `int16[time, lead]`, texts are bytes.

    Raises:
        DataError: a shard is damaged.
    """
    for block in _blocks(directory):
        yield from _read(directory, block)


def index_of_stored(
    directory: Path,
    *,
    num_records: int,
    schema: LabelSchema,
    sampling_rate_hz: int,
    num_workers: int = 1,
    progress: Callable[[Iterator, int], Iterator] = lambda blocks, total: blocks,
) -> Index:
    """Makes the index of a data set from its shards, recomputing every content hash and judging every signal.

    Args:
        directory: the TFDS directory.
        num_records: how many records were written.
        schema: names of its labels.
        sampling_rate_hz: stored rate.
        num_workers: processes that read; fewer are started where they would not pay.
        progress: wraps the iterator of blocks of records, given their total.

    Returns:
        The index, in memory.

    Raises:
        DataError: a stored record is damaged, two have one id, or their number is not `num_records`.
    """
    blocks = _blocks(directory)
    work = functools.partial(_columns_of_block, directory, schema=schema, sampling_rate_hz=sampling_rate_hz)
    num_workers = min(num_workers, num_records // _RECORDS_WORTH_A_PROCESS)
    parts = list(progress(map_ordered(work, blocks, num_workers=num_workers, chunk_size=1), len(blocks)))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found = len(columns["record_id"])
    if found != num_records:
        raise DataError(f"{directory}: {found} records read back where {num_records} were written; build again")
    _check_unique(columns["record_id"], directory)
    patient = patient_codes(columns["patient_id"])
    scalars = {name: columns.pop(f"scalars/{name}") for name in schema.scalars}
    tasks = {name: Task(classes=schema.tasks[name], values=columns.pop(f"tasks/{name}")) for name in schema.tasks}
    return Index(
        patient=patient,
        group=groups(patient, columns["content_hash"]),
        duplicate_of=duplicates(columns["content_hash"]),
        scalars=scalars,
        tasks=tasks,
        **columns,
    )


def _blocks(directory: Path) -> list[tuple[int, int, str]]:
    """Returns first and last-plus-one record of every block of records, none across shards, and the shard's path."""
    info = _source(directory)[1]
    bounds = list(itertools.accumulate(info.shard_lengths, initial=0))
    return [
        (first, min(first + _RECORDS_PER_READ, stop), str(shard))
        for shard, (start, stop) in zip(info.filepaths, itertools.pairwise(bounds), strict=True)
        for first in range(start, stop, _RECORDS_PER_READ)
    ]


def _source(directory: Path) -> tuple[Sequence, Any]:
    builder = tfds.builder_from_directory(directory)
    return builder.as_data_source(SPLIT), builder.info.splits[SPLIT]


def _read(directory: Path, block: tuple[int, int, str]) -> list[dict[str, Any]]:
    first, stop, shard = block
    try:
        return _source(directory)[0].__getitems__(range(first, stop))
    except RuntimeError as error:  # ArrayRecord's own hashes; its message does not always name the file.
        raise DataError(f"{shard}: damaged ({error}); check the disk, then build again") from error


def _columns_of_block(
    directory: Path, block: tuple[int, int, str], /, *, schema: LabelSchema, sampling_rate_hz: int
) -> dict[str, np.ndarray]:
    """Returns the columns of the index that follow from single records."""
    examples = _read(directory, block)
    columns = {name: np.array([stored[name] for stored in examples], dtype) for name, dtype in _STORED_COLUMNS.items()}
    columns["record_id"] = np.array([stored["record_id"].decode() for stored in examples])
    columns["patient_id"] = np.array([stored["patient_id"].decode() for stored in examples])
    columns["content_hash"] = np.stack([_checked_hash(stored, directory) for stored in examples])
    columns["clipped_samples"] = np.array([clipped_samples(stored["signal"]) for stored in examples], np.int32)
    columns["quality"] = np.array([_quality(stored, sampling_rate_hz) for stored in examples], np.int32)
    columns["signature"] = np.stack([_signature(stored, sampling_rate_hz) for stored in examples])
    for name in schema.scalars:
        columns[f"scalars/{name}"] = np.array([stored["scalars"][name] for stored in examples], np.float32)
    for name in schema.tasks:
        columns[f"tasks/{name}"] = np.stack([stored["tasks"][name] for stored in examples]).astype(np.int8)
    return columns


def _checked_hash(stored: dict[str, Any], directory: Path) -> np.ndarray:
    if content_hash(stored["signal"]) != stored["content_hash"].tobytes():
        raise DataError(
            f"{directory}: record '{stored['record_id'].decode()}' does not read back as it was written; "
            "check the disk, then build again"
        )
    return stored["content_hash"]


def _quality(stored: dict[str, Any], sampling_rate_hz: int) -> int:
    return quality_flags(
        stored["signal"],
        sampling_rate_hz=sampling_rate_hz,
        valid_start=int(stored["valid_start"]),
        valid_samples=int(stored["valid_samples"]),
    )


def _check_unique(record_id: np.ndarray, directory: Path) -> None:
    values, counts = np.unique(record_id, return_counts=True)
    twice = values[counts > 1]
    if len(twice):
        raise DataError(
            f"{directory}: {len(twice)} record ids come more than once, first '{twice[0]}'; "
            "the source lists a recording twice: remove the repetition"
        )


def _signature(stored: dict[str, Any], sampling_rate_hz: int) -> np.ndarray:
    return signature(
        stored["signal"],
        sampling_rate_hz=sampling_rate_hz,
        valid_start=int(stored["valid_start"]),
        valid_samples=int(stored["valid_samples"]),
    )
