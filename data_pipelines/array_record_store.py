"""The store on a data set's own ArrayRecord shards: portable and canonical."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from data_pipelines.dataset import Dataset
from data_pipelines.errors import DataError
from data_pipelines.stored_example import SignalDecoder

#: Without read-ahead, which suits sequential reading only.
_READER_OPTIONS = "readahead_buffer_size:0"

# Bounds the memory of a large read; the decoded Examples are as large again as the signals.
_RECORDS_PER_READ = 256

_REMEDY = "restore this shard from a copy, or build the data set again with --overwrite"


class ArrayRecordStore:
    """Reads and decodes records of ArrayRecord shards."""

    kind = "array_record"

    def __init__(self, dataset: Dataset):
        """Opens the shards of a data set, whose lengths `open_dataset` has checked."""
        self._paths = dataset.shards
        self._bounds = np.concatenate([[0], np.cumsum(dataset.card["shard_lengths"])])
        self._shape = dataset.format.shape
        self._decoder = SignalDecoder(self._shape)
        self._readers: list[ArrayRecordReader | None] = [None] * len(self._paths)
        self._opening = threading.Lock()
        self.num_records = int(self._bounds[-1])

    def read(self, record_numbers: np.ndarray) -> np.ndarray:
        """Reads signals; see `data_pipelines.store.Store.read`."""
        numbers = checked_numbers(record_numbers, self.num_records)
        signals = np.empty((len(numbers), *self._shape), np.int16)
        shard_of = np.searchsorted(self._bounds, numbers, side="right") - 1
        for shard in np.unique(shard_of).tolist():
            rows = np.flatnonzero(shard_of == shard)
            for start in range(0, len(rows), _RECORDS_PER_READ):
                self._read_rows(shard, rows[start : start + _RECORDS_PER_READ], numbers, signals)
        return signals

    def _read_rows(self, shard: int, rows: np.ndarray, numbers: np.ndarray, signals: np.ndarray) -> None:
        positions = (numbers[rows] - self._bounds[shard]).tolist()
        examples = self._read_examples(shard, positions)
        for row, position, example in zip(rows.tolist(), positions, examples, strict=True):
            try:
                self._decoder.decode_into(example, signals[row])
            except ValueError as error:
                raise DataError(f"{self._paths[shard]}: its record {position} {error}; {_REMEDY}") from error

    def _read_examples(self, shard: int, positions: list[int]) -> list[bytes]:
        path = self._paths[shard]
        try:
            examples = self._reader(shard).read(positions)
        except (ValueError, IndexError, RuntimeError) as error:
            raise DataError(f"{path}: cannot be read, it is damaged ({_first_line(error)}); {_REMEDY}") from error
        if len(examples) != len(positions):
            raise DataError(f"{path}: gave {len(examples)} of {len(positions)} records, it is damaged; {_REMEDY}")
        return examples

    def _reader(self, shard: int) -> ArrayRecordReader:
        with self._opening:
            if self._readers[shard] is None:
                self._readers[shard] = _open_reader(self._paths[shard])
            return self._readers[shard]


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


def _open_reader(path: Path) -> ArrayRecordReader:
    return ArrayRecordReader(str(path), options=_READER_OPTIONS)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
