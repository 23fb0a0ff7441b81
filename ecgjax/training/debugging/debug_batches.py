"""Batches that are not read, or only once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

import numpy as np

from data_pipelines.storage.bad_shards import BadShard
from data_pipelines.storage.store import Store
from ecgjax.training.debugging.debug_settings import DebugSettings

T = TypeVar("T")

#: Standard deviation of the noise in µV, about that of an ECG.
_NOISE_UV = 200.0


class NoiseStore:
    """A store of noise in the place of another one; a record's noise depends on its number alone.

    Attributes:
        kind: Kind of the store.
        num_records: Number of records.
        shape: Shape `(time, lead)` of a record.
        num_threads: Number of threads that make noise.
        bad_shards: None: every record can be made.
    """

    kind = "noise"

    def __init__(self, like: Store):
        """Takes over number and shape of the records of another store."""
        self.num_records, self.shape, self.num_threads = like.num_records, like.shape, 1
        self.bad_shards: Sequence[BadShard] = ()

    def read(
        self, record_numbers: np.ndarray, out: np.ndarray | None = None, *, valid: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns noise in µV, `int16[n, time, lead]`.

        Args:
            record_numbers: Record numbers, `int64[n]`.
            out: Array that is filled and returned; None for a new one.
            valid: Mask of the records that could be read, `bool[n]`, which is set to True.
        """
        out = np.empty((len(record_numbers), *self.shape), np.int16) if out is None else out
        for row, number in enumerate(record_numbers):
            noise = np.random.default_rng(int(number)).standard_normal(self.shape, np.float32)
            out[row] = np.clip(_NOISE_UV * noise, -32768, 32767)
        if valid is not None:
            valid[...] = True
        return out

    def in_stored_order(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns record numbers, `int64[n]`, in ascending order."""
        return np.sort(record_numbers)

    def announce(self, record_numbers: np.ndarray) -> None:
        """Does nothing: noise is read from nowhere."""


def store_of(store: Store, settings: DebugSettings) -> Store:
    """Returns the store that batches are read from."""
    return NoiseStore(store) if settings.fake_data else store


def batches_of(stream: Generator[T, None, None], settings: DebugSettings) -> Generator[T, None, None]:
    """Returns a stream of batches, or one that repeats its first batch where the settings say so."""
    return _repeated(stream) if settings.untrained else stream


def _repeated(stream: Generator[T, None, None]) -> Generator[T, None, None]:
    batch = next(stream)
    stream.close()  # Its threads would otherwise read ahead.
    while True:
        yield batch
