"""What a packed copy is written from: a reader of signals in ascending order, each checked against the index."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.records import content_hash

#: Function that is told how many further records are done, those of an interrupted run included.
Progress = Callable[[int], None]

#: Number of records that are read, checked and written at a time.
RECORDS_PER_READ = 256

# So much is left free on the disk beyond what is written.
_SPARE_BYTES = 2**28


class SignalSource(Protocol):
    """Reader of the signals for a packed copy."""

    def read(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns the signals, `int16[n, time, 8]`, of consecutive record numbers; calls are in ascending order."""
        ...

    def shard_of(self, record_number: int) -> str:
        """Returns the name of the shard that a record is in, for messages."""
        ...


def no_progress(num_records: int) -> None:
    """Shows nothing of how many further records are done."""


def read_checked(dataset: Dataset, source: SignalSource, numbers: np.ndarray) -> np.ndarray:
    """Reads signals and compares each with its hash in the index.

    Args:
        dataset: Data set of the records.
        source: Source of the signals.
        numbers: Record numbers that follow each other, `int64[n]`.

    Returns:
        The signals as they are stored, little-endian `int16[n, time, 8]`.

    Raises:
        DataError: A signal is not what the index says; the message names its shard.
    """
    signals = source.read(numbers).astype("<i2", copy=False)
    if (wrong := first_other(dataset, numbers, signals)) is not None:
        raise DataError(
            f"{source.shard_of(wrong)}: record {wrong} ('{dataset.index.record_id[wrong]}') is not what the "
            "index says (damaged); restore this shard from a copy, or build the data set again with --overwrite"
        )
    return signals


def first_other(dataset: Dataset, numbers: np.ndarray, signals: np.ndarray) -> int | None:
    """Returns the number of the first record whose signal is not what the index says; None where all are.

    Args:
        dataset: Data set of the records.
        numbers: Record numbers, `int64[n]`.
        signals: Signals of these records, `int16[n, time, 8]`.
    """
    hashes = dataset.index.content_hash
    for number, signal in zip(numbers.tolist(), signals, strict=True):
        if content_hash(signal) != hashes[number].tobytes():
            return number
    return None


def check_free_space(folder: Path, num_bytes: int) -> None:
    """Raises `DataError` where a disk has no room for so many further bytes of a packed copy.

    Args:
        folder: Folder of the copy.
        num_bytes: Number of bytes that are still to be written.
    """
    needed, free = num_bytes + _SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder.parent}: the packed copy needs {needed / 1e9:.2f} GB more and {free / 1e9:.2f} GB are free; make "
            "room, choose a larger disk, or read the ArrayRecord shards, which needs no copy"
        )
