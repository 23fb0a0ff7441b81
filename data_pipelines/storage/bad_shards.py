"""Keeps the numbers of records that cannot be read, for the stores."""

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
    """Consecutive records of one shard that cannot be read: all of them, or those found damaged while reading.

    Attributes:
        path: Path of the shard.
        start: First record number.
        stop: Record number after the last.
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
    """Record numbers of a store that cannot be read; any number of threads may use it."""

    def __init__(self, shards: Iterable[BadShard] = ()):
        """Starts with the stretches of records that were found on opening the store."""
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

    def among(self, numbers: np.ndarray) -> np.ndarray:
        """Returns which of the record numbers `int64[n]` cannot be read: `bool[n]`."""
        current = self._current()
        if not current.shards:
            return np.zeros(len(numbers), bool)
        stretch = np.searchsorted(current.starts, numbers, side="right") - 1
        return (stretch >= 0) & (numbers < current.stops[stretch])

    def check(self, numbers: np.ndarray) -> None:
        """Raises `DataError` that names the shards of unreadable records, if any of the given records is unreadable.

        Args:
            numbers: Record numbers, `int64[n]`.
        """
        if self.among(numbers).any():
            named = [shard for shard in self.shards if ((numbers >= shard.start) & (numbers < shard.stop)).any()]
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
    """Disjoint stretches in stored order, with their first record numbers and those after the last, `int64[n]`."""

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
