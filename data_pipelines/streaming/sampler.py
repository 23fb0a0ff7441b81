"""Determines which records the global batch of a step holds, as a pure function of the step.

An order (`orders.py`) is an endless stream of records; here it is cut into batches. A batch may contain the end of one
epoch and the beginning of the next, so every epoch is whole, whatever the batch size.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.streaming.block_order import BlockOrder
from data_pipelines.streaming.orders import Order, fingerprint


class Sampler:
    """Map from steps to the record numbers of their global batches.

    Attributes:
        batch_size: Number of rows of a global batch.
        examples_per_epoch: Number of rows of an epoch.
    """

    def __init__(self, order: Order, *, batch_size: int):
        """Cuts the stream of an order into batches.

        Args:
            order: Order of the units; those of a batch follow one another in it.
            batch_size: Number of rows of a global batch; where it exceeds an epoch, a batch spans several.

        Raises:
            DataError: The batch size is below one, or is no multiple of the records of a unit.
        """
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size}; it must be at least 1")
        if batch_size % order.unit_size:
            raise DataError(
                f"batch_size={batch_size} is not a multiple of {order.unit_size}, the number of records that are drawn "
                "together (records_per_patient, or a record and its neighbour), so they would be torn apart; change "
                "one of them"
            )
        self._order = order
        self.batch_size = batch_size
        self.examples_per_epoch = order.units_per_epoch * order.unit_size

    def record_numbers(self, step: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns the record numbers in rows of the global batch at a step; a pure function.

        Args:
            step: Step of training, from 0.
            rows: `int[n]`, rows of the global batch, in the order wanted; only these are computed. None for all.

        Returns:
            Record numbers, `int64[n]`.

        Raises:
            ValueError: The step is before 0, or rows lie outside of the batch.
        """
        return self.record_numbers_of(step, 1, np.arange(self.batch_size) if rows is None else rows)[0]

    def record_numbers_of(self, step: int, num_steps: int, rows: np.ndarray) -> np.ndarray:
        """Returns the record numbers in rows of the global batches of steps that follow each other; a pure function.

        Args:
            step: First of the steps, from 0.
            num_steps: Number of steps.
            rows: `int[n]`, rows of each global batch, in the order wanted; only these are computed.

        Returns:
            Record numbers, `int64[num_steps, n]`.

        Raises:
            ValueError: The step is before 0, or rows lie outside of the batch.
        """
        if step < 0:
            raise ValueError(f"steps count from 0, got {step}")
        if len(rows := np.asarray(rows)) and not (rows.min() >= 0 and rows.max() < self.batch_size):
            raise ValueError(f"rows {rows.min()} … {rows.max()} asked for, a batch has 0 … {self.batch_size - 1}")
        size, units_a_batch = self._order.unit_size, self.batch_size // self._order.unit_size
        steps = (step + np.arange(num_steps))[:, None]
        if size == 1:
            return self._order.units((steps * self.batch_size + rows).ravel()).reshape(num_steps, len(rows))
        unit, place = np.divmod(rows.astype(np.int64), size)
        wanted = np.zeros(units_a_batch, bool)
        wanted[unit] = True
        drawn = np.flatnonzero(wanted)  # A unit of which several rows are wanted is drawn once.
        positions = steps * units_a_batch + drawn
        units = self._order.units(positions.ravel()).reshape(num_steps, len(drawn), size)
        return units[:, (np.cumsum(wanted) - 1)[unit], place]

    @property
    def blocks(self) -> BlockOrder | None:
        """Order of the records where they are drawn from windows of blocks; None where they are drawn from anywhere."""
        return self._order if isinstance(self._order, BlockOrder) else None

    def window_records(self, start: int, stop: int, rows: np.ndarray) -> np.ndarray:
        """Returns the record numbers at positions of the stream that are rows of a process, `int64[n]`.

        Args:
            start: First position of a window in the stream of records.
            stop: Position after the last one.
            rows: Rows of the global batch that the process reads, `int[local]`.
        """
        positions = np.arange(start, stop)
        return self._order.units(positions[np.isin(positions % self.batch_size, rows)]).ravel()

    def fingerprint(self) -> str:
        """Returns a digest of everything that `record_numbers` depends on, as hexadecimal text."""
        return fingerprint("batches", self.batch_size, self._order.fingerprint())
