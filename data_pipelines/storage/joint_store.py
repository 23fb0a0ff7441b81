"""Joins several stores into one: the record numbers of each follow those of the one before."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.storage.bad_shards import BadShard
from data_pipelines.storage.read_arguments import checked_arguments
from data_pipelines.storage.store import Store

# So many records are read at a time where their rows do not follow each other. They are enough to keep a disk busy, and
# few enough to be still in the processor's cache when they are moved to their rows (68 % of the speed of one store,
# warm; all at once 51 %).
_RECORDS_A_MOVE = 64


class JointStore:
    """Reads records of several stores whose records have one shape."""

    kind = "joint"

    def __init__(self, stores: Sequence[Store]):
        """Keeps the stores.

        Args:
            stores: Stores whose records have one shape; the record numbers of each follow those of the one before.

        Raises:
            ValueError: There are no stores, or their records have different shapes.
        """
        if len(shapes := {store.shape for store in stores}) != 1:
            raise ValueError(f"stores of one shape of record can be joined, got {sorted(shapes) or 'none'}")
        self._stores = tuple(stores)
        self._starts = list(itertools.accumulate((store.num_records for store in stores), initial=0))
        self.num_records = self._starts[-1]
        (self.shape,) = shapes
        # The smallest number is taken, since each thread of a batch reads from all stores.
        self.num_threads = min(store.num_threads for store in stores)

    @property
    def bad_shards(self) -> Sequence[BadShard]:
        """Stretches of places whose records cannot be read, as far as is known; places of each store follow on."""
        return tuple(
            dataclasses.replace(shard, start=start + shard.start, stop=start + shard.stop)
            for start, store in zip(self._starts, self._stores, strict=False)
            for shard in store.bad_shards
        )

    def read(
        self, record_numbers: np.ndarray, out: np.ndarray | None = None, *, valid: np.ndarray | None = None
    ) -> np.ndarray:
        """Reads signals as `data_pipelines.storage.store.Store.read` describes."""
        numbers, signals = checked_arguments(record_numbers, out, valid=valid, stored=(self.num_records, *self.shape))
        store_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for number, store in enumerate(self._stores):
            rows = np.flatnonzero(store_of == number)
            own = numbers[rows] - self._starts[number]
            if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
                there = slice(rows[0], rows[-1] + 1)
                store.read(own, signals[there], **({} if valid is None else {"valid": valid[there]}))
            else:
                _read_apart(store, own, rows, signals, valid)
        return signals

    def in_stored_order(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns record numbers, `int64[n]`, store by store, each in the order in which it stores them."""
        parts = [store.in_stored_order(own) + start for store, start, own in self._by_store(record_numbers)]
        return np.concatenate(parts)

    def announce(self, record_numbers: np.ndarray) -> None:
        """Announces records as `data_pipelines.storage.store.Store.announce` describes."""
        for store, _, own in self._by_store(record_numbers):
            store.announce(own)

    def _by_store(self, record_numbers: np.ndarray) -> Iterator[tuple[Store, int, np.ndarray]]:
        """Yields each store, the number of its first record, and which of its own records are among some."""
        store_of = np.searchsorted(self._starts, record_numbers, side="right") - 1
        for number, store in enumerate(self._stores):
            start = self._starts[number]
            yield store, start, np.asarray(record_numbers)[store_of == number] - start


def _read_apart(
    store: Store, numbers: np.ndarray, rows: np.ndarray, signals: np.ndarray, valid: np.ndarray | None
) -> None:
    """Reads records of one store into rows that do not follow each other, through a small buffer.

    Args:
        store: Store to read from.
        numbers: Record numbers within the store, `int64[m]`.
        rows: Row of `signals` for each record, `int64[m]`.
        signals: Array to fill, `int16[n, time, lead]`.
        valid: Array to fill with whether each row could be read, `bool[n]`; None where unreadable records are errors.
    """
    between = np.empty((min(len(rows), _RECORDS_A_MOVE), *store.shape), np.int16)
    marks = np.empty(len(between), bool)
    for start in range(0, len(rows), _RECORDS_A_MOVE):
        there = rows[start : start + _RECORDS_A_MOVE]
        part, marked = between[: len(there)], marks[: len(there)]
        own = numbers[start : start + _RECORDS_A_MOVE]
        if valid is None:
            store.read(own, part)
        else:
            store.read(own, part, valid=marked)
            valid[there] = marked
        signals[there] = part
