"""Reads a freshly written data set back through TFDS and makes its index from what is really there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.builders.base import SPLIT
from data_pipelines.errors import DataError
from data_pipelines.index import Index, Task, duplicates, groups, patient_codes
from data_pipelines.quality import clipped_samples, quality_flags
from data_pipelines.records import LabelSchema, content_hash

_RECORDS_PER_READ = 256


def stored_examples(directory: Path) -> Iterator[dict[str, Any]]:
    """Yields every stored record in order, decoded by TFDS: `signal` is `int16[time, lead]`, texts are bytes.

    Raises:
        DataError: a shard is damaged.
    """
    builder = tfds.builder_from_directory(directory)
    source = builder.as_data_source(SPLIT)
    info = builder.info.splits[SPLIT]
    start = 0
    for shard, length in zip(info.filepaths, info.shard_lengths, strict=True):
        stop = start + length
        for first in range(start, stop, _RECORDS_PER_READ):
            try:
                stored = source.__getitems__(range(first, min(first + _RECORDS_PER_READ, stop)))
            except RuntimeError as error:  # ArrayRecord's own hashes; its message does not always name the file.
                raise DataError(f"{shard}: damaged ({error}); check the disk, then build again") from error
            yield from stored
        start = stop


def index_of_stored(directory: Path, *, num_records: int, schema: LabelSchema, sampling_rate_hz: int) -> Index:
    """Makes the index of a data set from its shards, recomputing every content hash and judging every signal.

    Args:
        directory: the TFDS directory.
        num_records: how many records were written.
        schema: names of its labels.
        sampling_rate_hz: stored rate.

    Returns:
        The index, in memory.

    Raises:
        DataError: a stored record is damaged, two have one id, or their number is not `num_records`.
    """
    record_id, patient_id = [], []
    columns = {
        "fold": np.empty(num_records, np.int16),
        "sex": np.empty(num_records, np.int8),
        "age_years": np.empty(num_records, np.float32),
        "content_hash": np.empty((num_records, 16), np.uint8),
        "valid_start": np.empty(num_records, np.int32),
        "valid_samples": np.empty(num_records, np.int32),
    }
    quality = np.empty(num_records, np.int32)
    clipped = np.empty(num_records, np.int32)
    scalars = {name: np.empty(num_records, np.float32) for name in schema.scalars}
    tasks = {name: np.empty((num_records, len(classes)), np.int8) for name, classes in schema.tasks.items()}
    number = -1
    for number, stored in enumerate(stored_examples(directory)):
        if number >= num_records:
            break
        record_id.append(stored["record_id"].decode())
        patient_id.append(stored["patient_id"].decode())
        if content_hash(stored["signal"]) != stored["content_hash"].tobytes():
            raise DataError(
                f"{directory}: record {number} ('{record_id[-1]}') does not read back as it was written; "
                "check the disk, then build again"
            )
        for name, values in columns.items():
            values[number] = stored[name]
        clipped[number] = clipped_samples(stored["signal"])
        quality[number] = quality_flags(
            stored["signal"],
            sampling_rate_hz=sampling_rate_hz,
            valid_start=int(stored["valid_start"]),
            valid_samples=int(stored["valid_samples"]),
        )
        for name, values in scalars.items():
            values[number] = stored["scalars"][name]
        for name, values in tasks.items():
            values[number] = stored["tasks"][name]
    if number + 1 != num_records:
        raise DataError(f"{directory}: {number + 1} records read back where {num_records} were written; build again")
    ids = np.array(record_id)
    _check_unique(ids, directory)
    patient = patient_codes(np.array(patient_id))
    return Index(
        record_id=ids,
        patient_id=np.array(patient_id),
        patient=patient,
        group=groups(patient, columns["content_hash"]),
        duplicate_of=duplicates(columns["content_hash"]),
        quality=quality,
        clipped_samples=clipped,
        scalars=scalars,
        tasks={name: Task(classes=schema.tasks[name], values=values) for name, values in tasks.items()},
        **columns,
    )


def _check_unique(record_id: np.ndarray, directory: Path) -> None:
    values, counts = np.unique(record_id, return_counts=True)
    twice = values[counts > 1]
    if len(twice):
        raise DataError(
            f"{directory}: {len(twice)} record ids come more than once, first '{twice[0]}'; "
            "the source lists a recording twice: remove the repetition"
        )
