"""Reads the signals of a data set from its packed copy: plain `.npy` shards, memory-mapped, at the speed of memory.

Records are asked for by number. In a shuffled copy their places are other ones, which one gather looks up for a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.records import content_hash
from data_pipelines.storage import packed_format as packed
from data_pipelines.storage.bad_shards import BadRecords, BadShard, refuse
from data_pipelines.storage.read_arguments import checked_arguments
from data_pipelines.storage.stored_order import StoredOrder, open_order
from data_pipelines.system.joined_map import Piece, can_join, join_pieces
from data_pipelines.system.record_files import RecordFiles

#: Size up to which the hash of every shard is checked on opening; of larger copies only single records are checked.
FULL_CHECK_BYTES = 2 * 2**30

_NUM_SPOT_CHECKS = 64


class PackedStore:
    """Reads records of a packed copy.

    Records in memory are gathered from a map of the files; others are read by many threads at once (`record_files.py`).

    The shards are checked on opening. If a file is truncated later, or its disk fails, a read of it is an error, or the
    process ends by SIGBUS where the rows beside the missing ones are in memory: a check before every read would cost
    more than the read. Opening the store again then names the shard; with `verify`, also where single sectors are lost.
    """

    kind = "packed"
    num_threads = 2

    def __init__(self, dataset: Dataset, *, verify: bool = False, allow_bad_shards: bool = False):
        """Opens and checks the packed copy of a data set.

        Args:
            dataset: Data set whose copy is read.
            verify: Whether the hash of every shard is checked whatever the size of the copy.
            allow_bad_shards: Whether shards that are missing, truncated or damaged are accepted, and their records
                reported as not readable.

        Raises:
            DataError: There is no packed copy, it was made of another data set, the order of a shuffled one cannot be
                read, or shards are bad, all of them named.
        """
        folder = dataset.directory / packed.PACKED_DIR
        self.shape = dataset.format.shape
        self.num_records = dataset.index.num_records
        contents = packed.read_contents(folder, fingerprint=dataset.fingerprint, num_records=self.num_records)
        shards = contents.shards
        self._remedy = packed.remedy(folder, seed=contents.seed)
        self._order: StoredOrder | None = None
        if contents.shuffle is not None:
            path = folder / contents.shuffle.file
            self._order = open_order(path, num_records=self.num_records, remedy=self._remedy)
        self._bounds = np.cumsum([0, *(shard.num_records for shard in shards)])
        hashes = verify or sum(shard.num_bytes for shard in shards) <= FULL_CHECK_BYTES
        bad = packed.find_bad_shards(folder, shards, shape=self.shape, hashes=hashes)
        unreadable = {shard.path for shard in bad}
        paths = [None if folder / shard.name in unreadable else folder / shard.name for shard in shards]
        first_byte = [0 if path is None else packed.data_offset(path) for path in paths]
        size = packed.record_bytes(dataset.format)
        pieces = [
            Piece(path=path, offset=offset, num_bytes=shard.num_records * size)
            for path, offset, shard in zip(paths, first_byte, shards, strict=True)
        ]
        self._arrays = _map_shards(pieces, self.shape)
        self._files = RecordFiles(paths, first_byte=first_byte, record_bytes=size)
        self._bad = BadRecords(bad)
        if not hashes:
            bad += self._spot_check(dataset, [folder / shard.name for shard in shards])
            self._bad = BadRecords(bad)
        if bad and (not allow_bad_shards or len(bad) == len(shards)):
            refuse(bad, num_shards=len(shards), remedy=self._remedy)

    @property
    def bad_shards(self) -> Sequence[BadShard]:
        """Stretches of places whose records cannot be read."""
        return self._bad.shards

    def read(
        self, record_numbers: np.ndarray, out: np.ndarray | None = None, *, valid: np.ndarray | None = None
    ) -> np.ndarray:
        """Reads signals as `data_pipelines.storage.store.Store.read` describes."""
        numbers, signals = checked_arguments(record_numbers, out, valid=valid, stored=(self.num_records, *self.shape))
        places = self._places(numbers)
        if valid is None:
            self._bad.check(places)
        if len(places):
            self._gather(places, signals)
        if valid is not None:
            np.logical_not(self._bad.among(places), out=valid)
            if not valid.all():
                signals[~valid] = 0
        return signals

    def in_stored_order(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns record numbers, `int64[n]`, by their places in the shards."""
        return np.sort(record_numbers) if self._order is None else self._order.sorted(record_numbers)

    def announce(self, record_numbers: np.ndarray) -> None:
        """Announces records as `data_pipelines.storage.store.Store.announce` describes."""
        self._files.announce(*self._in_shards(self._places(record_numbers)))

    def _places(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the places of records, `int64[n]`: their positions among all records, shard behind shard."""
        return numbers if self._order is None else self._order.places(numbers)

    def _in_shards(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shard of each place and its position there, `int64[n]` each."""
        shard_of = np.searchsorted(self._bounds, places, side="right") - 1
        return shard_of, places - self._bounds[shard_of]

    def _gather(self, places: np.ndarray, signals: np.ndarray) -> None:
        shard_of, positions = self._in_shards(places)
        if not self._files.in_memory(shard_of, positions):
            try:
                self._files.read(shard_of, positions, signals)
            except OSError as error:
                raise DataError(
                    f"a packed shard cannot be read ({error}); check the disk, then {self._remedy}"
                ) from error
        elif len(self._arrays) == 1:
            # One call gathers all and lets other threads run. Clipping makes NumPy write straight into `signals`; the
            # numbers have been checked.
            np.take(self._arrays[0], places, axis=0, out=signals, mode="clip")
        else:
            rows = [self._arrays[shard][row] for shard, row in zip(shard_of.tolist(), positions.tolist(), strict=True)]
            np.concatenate(rows, out=signals.reshape(-1, self.shape[1]))

    def _spot_check(self, dataset: Dataset, paths: Sequence) -> list[BadShard]:
        """Returns shards with a sampled record that differs from its hash in the index, except those known to be bad.

        Args:
            dataset: Data set of the copy.
            paths: Paths of all shards.
        """
        places = np.unique(np.linspace(0, self.num_records - 1, _NUM_SPOT_CHECKS).astype(np.int64))
        numbers = places if self._order is None else self._order.record_numbers(places)
        valid = np.empty(len(numbers), bool)
        signals = self.read(numbers, valid=valid)
        found: dict[int, BadShard] = {}
        for place, number, signal in zip(places[valid].tolist(), numbers[valid].tolist(), signals[valid], strict=True):
            if content_hash(signal) != dataset.index.content_hash[number].tobytes():
                shard = int(np.searchsorted(self._bounds, place, side="right")) - 1
                start, stop = self._bounds[shard : shard + 2].tolist()
                reason = f"its record {place - start} (record {number} of the data set) differs from the data set's"
                found.setdefault(shard, BadShard(path=paths[shard], start=start, stop=stop, reason=reason))
        return list(found.values())


def _map_shards(pieces: list[Piece], shape: tuple[int, int]) -> list[np.ndarray]:
    """Returns the samples, `int16[record, time, lead]`, as one array where memory pages allow it, else one per shard.

    They do not on systems with larger pages than most, nor for copies of earlier versions in several shards.
    """
    runs = [pieces] if can_join(pieces) else [[piece] for piece in pieces]
    return [_map_run(run).view("<i2").reshape(-1, *shape) for run in runs]


def _map_run(pieces: list[Piece]) -> np.ndarray:
    if can_join(pieces):
        return join_pieces(pieces)
    (piece,) = pieces
    if piece.path is None:
        return np.zeros(piece.num_bytes, np.uint8)
    # A plain array on the map is used, since slicing np.memmap costs microseconds each time.
    return np.memmap(piece.path, np.uint8, "r", piece.offset, piece.num_bytes).view(np.ndarray)
