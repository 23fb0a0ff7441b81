"""Stretches of a data set that cannot be read, and how the stores tell of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadShard:
    """Consecutive records of one shard that cannot be read: all of them, or those found damaged while reading.

    Attributes:
        path: of the shard.
        start: first record number.
        stop: one after the last.
        reason: what is wrong, in words that follow the path.
    """

    path: Path
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        """Returns `PATH: reason`."""
        return f"{self.path}: {self.reason}"


class BadRecords:
    """Which record numbers of a store cannot be read; for any number of threads."""

    def __init__(self, shards: Iterable[BadShard] = ()):
        """Starts with what was found at opening."""
        self._growing = threading.Lock()
        self._by_start = {shard.start: shard for shard in shards}
        self._freeze()

    @property
    def shards(self) -> tuple[BadShard, ...]:
        """All of them so far, in stored order."""
        return self._frozen[0]

    def add(self, shard: BadShard) -> None:
        """Adds one that was found while reading."""
        with self._growing:
            self._by_start.setdefault(shard.start, shard)
            self._freeze()

    def among(self, numbers: np.ndarray) -> np.ndarray:
        """Returns `bool[n]`: which of the record numbers `int64[n]` cannot be read."""
        _, starts, stops = self._frozen
        if not len(starts):
            return np.zeros(len(numbers), bool)
        stretch = np.searchsorted(starts, numbers, side="right") - 1
        return (stretch >= 0) & (numbers < stops[stretch])

    def check(self, numbers: np.ndarray) -> None:
        """Raises `DataError` naming the shards of the record numbers that cannot be read, if there are any."""
        if self.among(numbers).any():
            named = [shard for shard in self.shards if ((numbers >= shard.start) & (numbers < shard.stop)).any()]
            raise DataError("; ".join(map(str, named)))

    def _freeze(self) -> None:
        # One assignment, so that readers need no lock.
        shards = tuple(shard for _, shard in sorted(self._by_start.items()))
        starts, stops = (np.array([getattr(shard, name) for shard in shards], np.int64) for name in ("start", "stop"))
        self._frozen = (shards, starts, stops)


def refuse(bad: Sequence[BadShard], *, num_shards: int, remedy: str) -> None:
    """Raises `DataError` that names every bad shard and says what to do.

    Args:
        bad: at least one.
        num_shards: how many shards there are, good ones included.
        remedy: what to do about it.
    """
    count = "" if len(bad) == 1 else f"{len(bad)} of {num_shards} shards cannot be read: "
    raise DataError(f"{count}{'; '.join(map(str, bad))}; {remedy}")
