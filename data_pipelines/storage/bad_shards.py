"""Keeps the places of records that cannot be read, for the stores."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadShard:
    """Neighbouring records of one shard that cannot be read: all of them, or those found damaged while reading.

    They are told by place: the position of a record among all records of the store as they lie. It is the record's
    number but in a shuffled packed copy; `store.in_stored_order(np.arange(store.num_records))[start:stop]` has the
    numbers in every store.

    Attributes:
        path: Path of the shard.
        start: Place of the first record.
        stop: Place after the last.
        reason: Description of what is wrong; messages put the path and a colon before it.
    """

    path: Path
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        """Returns `PATH: reason`."""
        return f"{self.path}: {self.reason}"


class BadRecords:
    """Places of a store whose records cannot be read; any number of threads may use it."""

    def __init__(self, shards: Iterable[BadShard] = ()):
        """Starts with the stretches of places that were found on opening the store."""
        self._growing = threading.Lock()
        # The key has both ends, since a shard that the quarantine left empty starts where the next one does.
        self._by_span = {(shard.start, shard.stop): shard for shard in shards}
        self._sorted: _Sorted | None = None

    @property
    def shards(self) -> tuple[BadShard, ...]:
        """All unreadable stretches so far, in stored order."""
        return self._current().shards

    def add(self, shard: BadShard) -> None:
        """Adds a stretch that was found while reading."""
        with self._growing:
            self._by_span.setdefault((shard.start, shard.stop), shard)
            self._sorted = None

    def among(self, places: np.ndarray) -> np.ndarray:
        """Returns at which of the places `int64[n]` the record cannot be read: `bool[n]`."""
        current = self._current()
        if not current.shards:
            return np.zeros(len(places), bool)
        stretch = np.searchsorted(current.starts, places, side="right") - 1
        return (stretch >= 0) & (places < current.stops[stretch])

    def check(self, places: np.ndarray) -> None:
        """Raises `DataError` that names the shards of unreadable records, if there is one at any of the places.

        Args:
            places: Places of records, `int64[n]`.
        """
        if self.among(places).any():
            named = [shard for shard in self.shards if ((places >= shard.start) & (places < shard.stop)).any()]
            raise DataError("; ".join(map(str, named)))

    def _current(self) -> _Sorted:
        current = self._sorted  # It is read once, so that no lock is taken where nothing was added.
        if current is None:
            with self._growing:
                shards = tuple(self._by_span[span] for span in sorted(self._by_span))
                starts, stops = np.array(sorted(self._by_span), np.int64).reshape(-1, 2).T
                current = self._sorted = _Sorted(shards, starts, stops)
        return current


class _Sorted(NamedTuple):
    """Disjoint stretches in stored order, with their first places and those after the last, `int64[n]`."""

    shards: tuple[BadShard, ...]
    starts: np.ndarray
    stops: np.ndarray


def refuse(bad: Sequence[BadShard], *, num_shards: int, remedy: str) -> None:
    """Raises `DataError` that names every bad shard and says what to do.

    Args:
        bad: Bad shards, at least one.
        num_shards: Number of all shards, good ones included.
        remedy: Advice to the user, at the end of the message.
    """
    count = "" if len(bad) == 1 else f"{len(bad)} of {num_shards} shards cannot be read: "
    raise DataError(f"{count}{'; '.join(map(str, bad))}; {remedy}")
