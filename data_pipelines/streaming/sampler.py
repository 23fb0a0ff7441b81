"""Determines which records the global batch of a step holds, as a pure function of the step.

An order (`orders.py`) is an endless stream of records; here it is cut into batches. A batch may contain the end of one
epoch and the beginning of the next, so every epoch is whole, whatever the batch size.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
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
                f"batch_size={batch_size} is not a multiple of records_per_patient={order.unit_size}, so a "
                "patient's records would be torn apart; change one of them"
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
        if step < 0:
            raise ValueError(f"steps count from 0, got {step}")
        size, units_a_batch = self._order.unit_size, self.batch_size // self._order.unit_size
        first = step * units_a_batch
        if rows is None:
            return self._order.units(np.arange(first, first + units_a_batch)).ravel()
        if len(rows := np.asarray(rows)) and not (rows.min() >= 0 and rows.max() < self.batch_size):
            raise ValueError(f"rows {rows.min()} … {rows.max()} asked for, a batch has 0 … {self.batch_size - 1}")
        if size == 1:
            return self._order.units(first + rows.astype(np.int64)).ravel()
        unit, place = np.divmod(rows, size)
        wanted = np.zeros(units_a_batch, bool)
        wanted[unit] = True
        units = self._order.units(first + np.flatnonzero(wanted))
        return units[(np.cumsum(wanted) - 1)[unit], place]

    def fingerprint(self) -> str:
        """Returns a digest of everything that `record_numbers` depends on, as hexadecimal text."""
        return fingerprint("batches", self.batch_size, self._order.fingerprint())
