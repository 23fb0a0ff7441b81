"""Signals by record number: `open_store(directory).read(record_numbers)`, whichever way they are kept.

Two stores hold the same records in the same order: the ArrayRecord shards of the data set itself
(`array_record_store.py`) and a packed copy of them for fast local reading (`packed_store.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.array_record_store import ArrayRecordStore
from data_pipelines.storage.bad_shards import BadShard
from data_pipelines.storage.packed_format import PACKED_DIR
from data_pipelines.storage.packed_store import PackedStore

#: What `open_store` takes; `auto` is the packed copy where there is one, else the ArrayRecord shards.
STORE_KINDS = ("auto", "packed", "array_record")


class Store(Protocol):
    """Signals of a data set by record number; `read` may be called by several threads at once.

    Attributes:
        kind: `packed` or `array_record`.
        num_records: record numbers lie in 0 … num_records − 1.
        shape: `(time, lead)` of a record.
        num_threads: how many threads read fastest.
        bad_shards: what cannot be read; grows where damage is met while reading.
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
            out: `int16[n, time, 8]`, C-contiguous, to read into; without, an array is made.
            valid: `bool[n]` to fill: False where a record cannot be read, whose signal is zeros then, never another
                record's. Without, such a record is an error.

        Returns:
            `out`, or the array made: signals in µV, the caller's own.

        Raises:
            IndexError: a number outside the store.
            ValueError: `out` or `valid` has another shape, type or order.
            DataError: a record cannot be read, and there is no `valid`; names the shard.
        """
        ...


def open_store(
    directory: Path | str, *, kind: str = "auto", verify: bool = False, allow_bad_shards: bool = False
) -> Store:
    """Opens the signals of a prepared data set and checks its shards; never makes a packed copy.

    Args:
        directory: of the data set.
        kind: one of `STORE_KINDS`.
        verify: check the hash of every packed shard, also where that takes long (it is done in any case below 2 GiB).
        allow_bad_shards: open also where shards, though not all, are missing, truncated or damaged; they are in
            `bad_shards` and their records are read as `Store.read` says.

    Raises:
        DataError: the data set or its packed copy is missing, unfinished or stale; or shards are bad, each named.
    """
    if kind not in STORE_KINDS:
        raise DataError(f"there is no store '{kind}'; choose one of {', '.join(STORE_KINDS)}")
    dataset = open_dataset(directory)
    if kind == "packed" or (kind == "auto" and (dataset.directory / PACKED_DIR).exists()):
        return PackedStore(dataset, verify=verify, allow_bad_shards=allow_bad_shards)
    return ArrayRecordStore(dataset, allow_bad_shards=allow_bad_shards)
