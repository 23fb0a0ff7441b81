"""Announces records to a store before they are read, where the order says long enough before which ones they are."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from data_pipelines.storage.store import Store
from data_pipelines.streaming.block_order import BlockOrder
from data_pipelines.streaming.sampler import Sampler


class Announcer:
    """Reads ahead by windows: while the records of one are drawn, those of the next are announced bit by bit.

    They are announced as they are stored, so that a disk reads long stretches. What is announced changes no batch.
    """

    def __init__(self, store: Store, sampler: Sampler, blocks: BlockOrder, rows: np.ndarray, *, start_step: int):
        """Begins with the window of a step, whose records are announced at once.

        Args:
            store: Store that the records are read from.
            sampler: Sampler of the stream.
            blocks: Order that the sampler draws by.
            rows: Rows of the global batch that this process reads, `int[local]`.
            start_step: First step of the stream.
        """
        self._store, self._sampler, self._blocks, self._rows = store, sampler, blocks, rows
        self._window = blocks.window_at(start_step * sampler.batch_size)
        # Records that are still to be announced: of the window that is drawn from, and of the one after it.
        self._late, self._next = self._records(self._window), self._records(blocks.window_at(self._window[1]))
        self._announced = 0

    def due(self, step: int) -> Callable[[], None] | None:
        """Returns a function that announces what is due at a step, or None; steps are asked for one after the other."""
        end = (step + 1) * self._sampler.batch_size
        due = [self._late]
        while end > self._window[1]:
            due.append(self._next[self._announced :])
            self._window, self._announced = self._blocks.window_at(self._window[1]), 0
            self._next = self._records(self._blocks.window_at(self._window[1]))
        start, stop = self._window
        upto = math.ceil(len(self._next) * (end - start) / (stop - start))
        due.append(self._next[self._announced : upto])
        self._late, self._announced = self._late[:0], upto
        numbers = np.concatenate(due)
        return functools.partial(self._store.announce, numbers) if len(numbers) else None

    def _records(self, window: tuple[int, int]) -> np.ndarray:
        return self._store.in_stored_order(self._sampler.window_records(*window, self._rows))
