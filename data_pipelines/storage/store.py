"""Stores, which read signals by record number: `open_store(directory).read(record_numbers)`.

Two stores hold the same records under the same numbers: the ArrayRecord shards of the data set itself
(`array_record_store.py`), where they lie by number, and a packed copy for fast local reading (`packed_store.py`), where
they lie by number or with patients shuffled.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.storage.array_record_store import ArrayRecordStore
from data_pipelines.storage.bad_shards import BadShard
from data_pipelines.storage.packed_format import PACKED_DIR
from data_pipelines.storage.packed_store import PackedStore

#: Kinds that `open_store` takes; `auto` is the packed copy where there is one, else the ArrayRecord shards.
STORE_KINDS = ("auto", "packed", "array_record")


class Store(Protocol):
    """Signals of a data set by record number; `read` may be called by several threads at once.

    Attributes:
        kind: Kind of the store, such as `packed` or `array_record`.
        num_records: Number of records; record numbers lie in 0 … num_records − 1.
        shape: Shape `(time, lead)` of a record.
        num_threads: Number of threads with which reading is fastest.
        bad_shards: Places of records that cannot be read; the list grows where damage is met while reading.
    """

    kind: str
    num_records: int
    shape: tuple[int, int]
    num_threads: int

    @property
    def bad_shards(self) -> Sequence[BadShard]: ...  # noqa: D102 (among the attributes)

    def read(
        self, record_numbers: np.ndarray, out: np.ndarray | None = None, *, valid: np.ndarray | None = None
    ) -> np.ndarray:
        """Reads signals.

        Which records can be read depends on the files alone, not on what was read before or by whom.

        Args:
            record_numbers: `int64[n]`, in any order, repeats allowed.
            out: `int16[n, time, 8]`, C-contiguous, to read into; None to make an array.
            valid: `bool[n]` to fill, with False where a record cannot be read, whose signal is then zeros and never
                another record's. Without it such a record is an error.

        Returns:
            Signals in µV, which belong to the caller: `out`, or a new array.

        Raises:
            IndexError: A number lies outside of the store.
            ValueError: The array `out` or `valid` has another shape, type or order.
            DataError: A record cannot be read, and there is no `valid`; the message names the shard.
        """

    def in_stored_order(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns record numbers, `int64[n]`, sorted by where the records lie, so that neighbours follow each other."""

    def announce(self, record_numbers: np.ndarray) -> None:
        """Announces that records will be read soon, which may change how fast they are read and nothing else.

        Args:
            record_numbers: `int64[n]`, best in stored order.
        """


def open_store(
    directory: Path | str, *, kind: str = "auto", verify: bool = False, allow_bad_shards: bool = False
) -> Store:
    """Opens the signals of a prepared data set and checks its shards; it never makes a packed copy.

    Args:
        directory: Directory of the data set.
        kind: Kind of the store, one of `STORE_KINDS`.
        verify: Whether the hash of every packed shard is checked even where that takes long (below 2 GiB it always is).
        allow_bad_shards: Whether the store opens also where shards, though not all, are missing, truncated or damaged;
            they are then listed in `bad_shards` and their records are read as `Store.read` says.

    Raises:
        DataError: The data set or its packed copy is missing, unfinished or stale; or shards are bad, each named.
    """
    if kind not in STORE_KINDS:
        raise DataError(f"there is no store '{kind}'; choose one of {', '.join(STORE_KINDS)}")
    dataset = open_dataset(directory)
    if kind == "packed" or (kind == "auto" and (dataset.directory / PACKED_DIR).exists()):
        return PackedStore(dataset, verify=verify, allow_bad_shards=allow_bad_shards)
    return ArrayRecordStore(dataset, allow_bad_shards=allow_bad_shards)


@functools.lru_cache(maxsize=1)
def opened_once(directory: Path, fingerprint: str) -> tuple[Dataset, Store]:
    """Opens a data set and its store once in a worker process, for all of its tasks.

    Args:
        directory: Directory of the data set.
        fingerprint: Fingerprint of the data set; another one opens them again.

    Raises:
        DataError: The data set or its packed copy is missing, unfinished or stale; or shards are bad, each named.
    """
    return open_dataset(directory), open_store(directory)
