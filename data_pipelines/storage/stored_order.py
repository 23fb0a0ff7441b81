"""Maps record numbers to the places of a packed copy that holds its records in another order than by number.

A place is the position of a record among all records of the copy, shard behind shard.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.system.digests import DIGESTS_FILE, changed_file
from data_pipelines.system.npy_files import write_npy
from data_pipelines.system.plain_names import why_elsewhere

#: File beside the shards with the record number at every place; copies whose records lie by number have none.
ORDER_FILE = "record_numbers.npy"


class StoredOrder:
    """Record number at every place, and place of every record number."""

    def __init__(self, record_numbers: np.ndarray):
        """Inverts the order.

        Args:
            record_numbers: Record number at every place, `int32[n]` or `int64[n]`; it is kept, and may be mapped.

        Raises:
            ValueError: They are not the numbers 0 … n − 1, each once.
        """
        count = len(record_numbers)
        if record_numbers.min() < 0 or record_numbers.max() >= count:
            raise ValueError(f"it has numbers outside of 0 … {count - 1}")
        self._numbers = record_numbers
        # It is no wider than the file's numbers: four bytes a record in almost every data set.
        self._places = np.full(count, -1, record_numbers.dtype)
        self._places[record_numbers] = np.arange(count, dtype=record_numbers.dtype)
        if self._places.min() < 0:
            raise ValueError("a record comes twice in it")

    def places(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns the places, `int64[n]`, of records, `int64[n]`."""
        return self._places[record_numbers].astype(np.int64)

    def record_numbers(self, places: np.ndarray) -> np.ndarray:
        """Returns the numbers, `int64[n]`, of the records at some places, `int64[n]`."""
        return self._numbers[places].astype(np.int64)

    def sorted(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns record numbers, `int64[n]`, by ascending place."""
        return self.record_numbers(np.sort(self._places[record_numbers]))


def write_order(folder: Path, record_numbers: np.ndarray) -> None:
    """Writes the record number at every place, as int32 where all fit.

    Args:
        folder: Folder of the packed copy.
        record_numbers: Record number at every place, `int64[n]`.
    """
    kind = np.dtype("<i4" if len(record_numbers) <= np.iinfo(np.int32).max else "<i8")
    write_npy(folder / ORDER_FILE, [record_numbers], dtype=kind, shape=record_numbers.shape)


def open_order(path: Path, *, num_records: int, remedy: str) -> StoredOrder:
    """Opens the order of a packed copy.

    The file is compared with its digest, since by another order every record would be taken for another one.

    Args:
        path: Path of the file with the record number at every place, in the folder of the copy.
        num_records: Number of records of the data set.
        remedy: Advice to the user, at the end of a message.

    Raises:
        DataError: The file, or the table of digests, is missing or damaged.
    """
    try:
        if (elsewhere := why_elsewhere(path)) is not None:
            raise ValueError(f"it {elsewhere}")
        if not (table := path.with_name(DIGESTS_FILE)).is_file():
            raise ValueError(f"there is no {DIGESTS_FILE} to compare it with")
        if changed_file(path.parent, [path.name], table=table) is not None:
            raise ValueError("it is not what was written")
        numbers = np.load(path, mmap_mode="r", allow_pickle=False)
        if numbers.dtype.str not in ("<i4", "<i8") or numbers.shape != (num_records,):
            raise ValueError(f"it is {numbers.dtype}{numbers.shape}, not integers of {num_records} records")
        # A plain array on the map is used, since slicing np.memmap costs microseconds each time.
        return StoredOrder(numbers.view(np.ndarray))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); {remedy}") from error
