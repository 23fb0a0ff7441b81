"""Defines the block-shuffle: an order whose records lie near each other on the disk for a while.

Reading records one by one from all over a disk, or from a bucket, is slower than reading long stretches. Here the
stream reads whole blocks of neighbouring records, keeps a window of some of them, and draws at random within it.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.streaming.orders import checked_records, fingerprint, one_if_equal, small
from data_pipelines.streaming.permutation import derive_key, permute

# These words derive the keys of an epoch's branches.
_FIRST_RECORD, _ORDER_OF_BLOCKS, _ORDER_WITHIN_WINDOWS = 0, 1, 2


class BlockOrder:
    """Order in which every record is drawn once in an epoch, block after block.

    Let there be n records in stored order, numbered 0 … n − 1. In each epoch

    1. the records are turned round: a random one becomes the first, so that blocks begin elsewhere in every epoch;
    2. they are cut into ⌊n / B⌋ blocks of B records and, last, a shorter one of the rest;
    3. the whole blocks are put in a random order;
    4. W blocks after each other are a window, whose records are put in a random order.

    So the p-th record of epoch e is, with w = ⌊p / (B·W)⌋, s the number of records of window w (B·W, or fewer in the
    last) and q = w·B·W + permute(p mod B·W; s), the one at place (first + block·B + q mod B) mod n, where block is
    permute(⌊q / B⌋; ⌊n / B⌋), or the shorter one.
    """

    unit_size = 1

    def __init__(self, records: np.ndarray, *, block: int, window: int, seed: int):
        """Makes the order.

        Args:
            records: Record numbers to draw from in the order in which they are stored, `int64[m]`.
            block: Number B of records of a block.
            window: Number W of blocks of a window.
            seed: Seed of the orders.

        Raises:
            DataError: There are no records, or a block or window is empty.
        """
        if block < 1 or window < 1:
            raise DataError(f"blocks of {block} records and windows of {window} blocks; each must have at least 1")
        self._records = small(checked_records(records))
        self._block, self._window, self._seed = block, block * window, seed
        self.units_per_epoch = len(self._records)

    def units(self, positions: np.ndarray) -> np.ndarray:
        """Returns the record numbers of units, `int64[n, 1]`, as `Order.units` describes."""
        num_records, block_size = self.units_per_epoch, self._block
        epoch, position = np.divmod(np.asarray(positions, np.int64), num_records)
        epoch = one_if_equal(epoch)
        key = derive_key(self._seed, epoch)
        window, place = np.divmod(position, self._window)
        start = window * self._window
        in_window = np.minimum(self._window, num_records - start)
        mixed = permute(place, size=in_window, key=derive_key(derive_key(key, _ORDER_WITHIN_WINDOWS), window))
        slot, offset = np.divmod(start + mixed, block_size)
        if whole := num_records // block_size:
            key_of_blocks = derive_key(key, _ORDER_OF_BLOCKS)
            moved = permute(np.minimum(slot, whole - 1), size=whole, key=key_of_blocks)
            slot = np.where(slot < whole, moved, slot)
        first = permute(np.zeros_like(epoch), size=num_records, key=derive_key(key, _FIRST_RECORD))
        chosen = (first + slot * block_size + offset) % num_records
        return self._records[chosen].astype(np.int64)[:, None]

    def window_at(self, position: int) -> tuple[int, int]:
        """Returns where the window of a position of the stream begins and ends, as positions of the stream."""
        epoch, place = divmod(position, self.units_per_epoch)
        begin = epoch * self.units_per_epoch
        start = place // self._window * self._window
        return begin + start, begin + min(start + self._window, self.units_per_epoch)

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `units` depends on."""
        return fingerprint("blocks", self._seed, self._block, self._window, self._records)
