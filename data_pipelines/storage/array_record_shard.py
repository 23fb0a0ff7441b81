"""Reads one ArrayRecord shard: the number of its records, and their signals."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from data_pipelines.storage.stored_example import SignalDecoder
from data_pipelines.system.plain_names import why_elsewhere

# One record at a time is read in the calling thread: it takes 16 µs for 40 kB in the page cache. The reader's call for
# a list of records takes 20 to 50 µs on several processors: it hands them to a pool whose threads spin while they wait,
# and walks through all records of the shard at every call (measured).
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


def opened(shard: Path) -> ArrayRecordReader:
    """Opens a shard without threads of the reader's own, which would read ahead while other processes use the cores."""
    return ArrayRecordReader(str(shard), options=_READER_OPTIONS)


class ArrayRecordShard:
    """Reads single signals of an open shard; only one thread at a time may use it, since the reader has a position."""

    def __init__(self, path: Path, decoder: SignalDecoder):
        """Makes a reader of a shard; faults of the shard are reported when it is read.

        Args:
            path: Path of the shard.
            decoder: Decoder of the data set's format.
        """
        self._path, self._decoder = path, decoder
        self._reader: ArrayRecordReader | None = None

    def read_into(self, position: int, signal: np.ndarray) -> None:
        """Reads the signal of one record.

        Args:
            position: Position of the record in the shard.
            signal: `int16[time, lead]`, C-contiguous, filled with the signal.

        Raises:
            ValueError: The record is damaged, or is no record of this format. The caller puts the shard's path
                before the message.
        """
        try:
            if self._reader is None:
                self._reader = opened(self._path)
            self._reader.seek(position)
            example = self._reader.read()
        except (ValueError, IndexError, RuntimeError) as error:
            self.close()  # The reader fails from then on, though other records may be whole.
            raise ValueError(f"cannot be read, it is damaged ({str(error).partition(chr(10))[0]})") from error
        try:
            self._decoder.decode_into(example, signal)
        except ValueError as error:
            raise ValueError(f"its record {position} {error}") from error

    def close(self) -> None:
        """Closes the file; reading opens it again."""
        if self._reader is not None:
            with contextlib.suppress(ValueError, RuntimeError):  # Closing may report damage a second time.
                self._reader.close()
            self._reader = None


def num_stored(shard: Path) -> int:
    """Returns the number of records in a shard; 0 for a file that is no complete ArrayRecord file."""
    try:
        # Nothing is read ahead, since only the footer is wanted.
        with contextlib.closing(opened(shard)) as reader:
            return reader.num_records()
    except (ValueError, RuntimeError):  # Opening and closing both raise them, without a message.
        return 0


def why_bad(shard: Path, expected: int) -> str | None:
    """Returns what is wrong with a shard according to its footer, or None if nothing is.

    The text is the end of a message that begins with the shard's path: `"this shard is missing"`.

    ArrayRecord's own reader treats a missing or truncated file as an empty one.

    Args:
        shard: Path of the shard.
        expected: Number of records that were written to it.
    """
    if not shard.is_file():
        return "this shard is missing"
    if elsewhere := why_elsewhere(shard):
        return f"this shard {elsewhere}"
    if (found := num_stored(shard)) != expected:
        return f"this shard has {found} records where {expected} were written (truncated or damaged)"
    return None
