"""The store on a data set's own ArrayRecord shards: portable and canonical."""

from __future__ import annotations

import threading

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from data_pipelines.dataset import Dataset
from data_pipelines.errors import DataError
from data_pipelines.stored_example import SignalDecoder

# One record at a time in the calling thread: 16 µs for 40 kB in the page cache. The reader's call for a list of records
# takes 20 to 50 on several processors: it hands them to a pool whose threads spin while they wait, and walks through
# all records of the shard at every call (measured).
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"

_REMEDY = "restore this shard from a copy, or build the data set again with --overwrite"


class ArrayRecordStore:
    """Reads and decodes records of ArrayRecord shards."""

    kind = "array_record"
    num_threads = 1

    def __init__(self, dataset: Dataset):
        """Opens the shards of a data set, whose lengths `open_dataset` has checked."""
        self._paths = dataset.shards
        self._bounds = np.concatenate([[0], np.cumsum(dataset.card["shard_lengths"])])
        self.shape = dataset.format.shape
        self._decoder = SignalDecoder(self.shape)
        self._readers: dict[int, ArrayRecordReader] = {}
        # A reader has a position, so threads would need readers of their own; and reading holds the interpreter's lock,
        # so that two threads are slower than one (21 to 28 thousand ECGs/s, measured).
        self._turn = threading.Lock()
        self.num_records = int(self._bounds[-1])

    def read(self, record_numbers: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Reads signals; see `data_pipelines.store.Store.read`."""
        numbers = checked_numbers(record_numbers, self.num_records)
        signals = checked_out(out, (len(numbers), *self.shape))
        shard_of = np.searchsorted(self._bounds, numbers, side="right") - 1
        positions = numbers - self._bounds[shard_of]
        with self._turn:
            for signal, shard, position in zip(signals, shard_of.tolist(), positions.tolist(), strict=True):
                self._read_record(shard, position, signal)
        return signals

    def _read_record(self, shard: int, position: int, signal: np.ndarray) -> None:
        path = self._paths[shard]
        try:
            if shard not in self._readers:
                self._readers[shard] = ArrayRecordReader(str(path), options=_READER_OPTIONS)
            reader = self._readers[shard]
            reader.seek(position)
            example = reader.read()
        except (ValueError, IndexError, RuntimeError) as error:
            self._readers.pop(shard, None)  # It fails ever after, though other records may be whole.
            raise DataError(f"{path}: cannot be read, it is damaged ({_first_line(error)}); {_REMEDY}") from error
        try:
            self._decoder.decode_into(example, signal)
        except ValueError as error:
            raise DataError(f"{path}: its record {position} {error}; {_REMEDY}") from error


def checked_numbers(record_numbers: np.ndarray, num_records: int) -> np.ndarray:
    """Returns record numbers as `int64[n]`.

    Raises:
        IndexError: a number outside 0 … num_records − 1.
    """
    numbers = np.asarray(record_numbers)
    if numbers.ndim != 1 or not (np.issubdtype(numbers.dtype, np.integer) or numbers.size == 0):
        raise TypeError(f"record numbers are a vector of integers, got {numbers.dtype}{numbers.shape}")
    numbers = numbers.astype(np.int64)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < num_records):
        raise IndexError(
            f"record numbers {numbers.min()} … {numbers.max()} asked for, the store holds 0 … {num_records - 1}"
        )
    return numbers


def checked_out(out: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the array to read `shape` into.

    Raises:
        ValueError: `out` is not C-contiguous `int16` of that shape.
    """
    if out is None:
        return np.empty(shape, np.int16)
    if out.shape != shape or out.dtype != np.int16 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous int16{shape}, got {out.dtype}{out.shape}")
    return out


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
