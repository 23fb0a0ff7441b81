"""Defines an order in which every record comes with one of its nearest neighbours, in adjacent rows."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.streaming.orders import checked_records, fingerprint, one_if_equal, small
from data_pipelines.streaming.permutation import derive_key, permute

# These words derive the keys of an order's branches: those of epochs, and of the neighbours of a record.
_ORDERS, _PARTNERS = 0, 1


class NeighbourOrder:
    """Order of pairs of a record and one of its neighbours.

    In an epoch every record is drawn once as the first of a pair, in a new random order each epoch. Its partner is one
    of its n neighbours among the records: those of n epochs after each other, from a multiple of n on, are all of them
    once, in a random order. A record that is the neighbour of many is therefore drawn more often. One without a
    neighbour is drawn twice.
    """

    unit_size = 2

    def __init__(self, records: np.ndarray, *, neighbours: np.ndarray, seed: int):
        """Makes the order.

        Args:
            records: Record numbers to draw from, `int64[m]`, each once.
            neighbours: Record numbers of the neighbours of each, `int[m, k]`; negative ones, and those that are not
                drawn from, do not count.
            seed: Seed of the orders.

        Raises:
            DataError: There are no records, or neighbours have another length.
        """
        records, neighbours = checked_records(records), np.asarray(neighbours)
        if neighbours.ndim != 2 or len(neighbours) != len(records):
            raise DataError(f"neighbours are {neighbours.shape} for {len(records)} records; give those of each")
        counts = np.isin(neighbours, records) & (neighbours >= 0)
        # Those that count are moved to the left, in their order.
        order = np.argsort(~counts, axis=1, kind="stable")
        self._neighbours = np.take_along_axis(np.where(counts, neighbours, 0), order, axis=1)
        self._neighbours = small(self._neighbours) if self._neighbours.size else np.zeros((len(records), 1), np.int32)
        self._count = counts.sum(axis=1).astype(np.int32)
        self._records, self._seed = small(records), seed
        self.units_per_epoch = len(records)

    @property
    def without_neighbour(self) -> int:
        """Number of records that have no neighbour among the others."""
        return int(np.count_nonzero(self._count == 0))

    def units(self, positions: np.ndarray) -> np.ndarray:
        """Returns the record numbers of units, `int64[n, 2]`, as `Order.units` describes."""
        epoch, position = np.divmod(np.asarray(positions, np.int64), self.units_per_epoch)
        of_epoch = derive_key(derive_key(self._seed, _ORDERS), one_if_equal(epoch))
        place = permute(position, size=self.units_per_epoch, key=of_epoch)
        count = np.maximum(self._count[place], 1).astype(np.int64)
        cycle, slot = np.divmod(epoch, count)
        of_record = derive_key(derive_key(derive_key(self._seed, _PARTNERS), cycle), place)
        chosen = self._neighbours[place, permute(slot, size=count, key=of_record)]
        first = self._records[place]
        return np.stack([first, np.where(self._count[place] > 0, chosen, first)], axis=1).astype(np.int64)

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `units` depends on."""
        return fingerprint("neighbours", self._seed, self._records, self._count, self._neighbours.ravel())
