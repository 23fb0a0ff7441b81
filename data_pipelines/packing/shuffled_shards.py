"""Writes the shards of a packed copy whose patients are in a random order, each record straight at its place.

Records come in the order of their numbers, and their places are all over the copy. So all shards are laid out first,
in one stretch of the disk each where the file system can, and every record is written where it belongs: few are in
memory at a time, and a source that is far away is read once, from its start to its end.

A note beside the shards keeps the number of records that lie at their places. When all do, every shard is read back,
and each record in it compared with the index.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.packing.signal_source import (
    RECORDS_PER_READ,
    Progress,
    SignalSource,
    check_free_space,
    first_other,
    read_checked,
)
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.storage import packed_format as packed
from data_pipelines.storage.stored_order import StoredOrder
from data_pipelines.system.atomic_directory import sync, written_whole

_NOTE_FILE = "shuffled.json"

# A note is made after so many records as a shard has, or, of more shards than these, after as many parts of all.
_MOST_NOTES = 64

# File systems that cannot give a file its space beforehand say so by these errors.
_CANNOT_ALLOCATE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

_BLOCK_BYTES = 512  # unit of `st_blocks`, on every system


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """What an interrupted run has finished of a shuffled copy.

    Attributes:
        fingerprint: Fingerprint of the data set.
        seed: Seed of the order of patients.
        shard_lengths: Number of records of every shard.
        num_written: Number of records, from the first, that lie at their places on the disk.
    """

    fingerprint: str
    seed: int
    shard_lengths: tuple[int, ...]
    num_written: int = 0

    def save(self, folder: Path) -> None:
        """Writes the note beside the shards, completely or not at all."""
        with written_whole(note_path(folder), making=note_path(folder).with_suffix(".tmp")) as file:
            file.write(json.dumps(dataclasses.asdict(self)).encode())


def note_path(folder: Path) -> Path:
    """Returns the path of the note of a shuffled copy that is being written."""
    return folder / _NOTE_FILE


def read_note(folder: Path) -> Note | None:
    """Returns what an interrupted run noted of a shuffled copy; None where it left no note.

    Raises:
        DataError: The note is damaged.
    """
    path = note_path(folder)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return Note(**note | {"shard_lengths": tuple(note["shard_lengths"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: note of an interrupted run, damaged ({error}); remove {folder.parent} and run this again"
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffledShards:
    """Shards of a shuffled copy in the making.

    Attributes:
        folder: Folder of the copy, which exists.
        dataset: Data set that is copied.
        order: Record number at every place, `int64[n]`.
        seed: Seed of that order.
        spans: Places of every shard's records.
    """

    folder: Path
    dataset: Dataset
    order: np.ndarray
    seed: int
    spans: Sequence[range]

    def write(self, source: SignalSource, *, extra_bytes: int, progress: Progress) -> None:
        """Writes all records at their places, and continues after those that an interrupted run has written.

        Args:
            source: Source of the signals, which are asked for by ascending number.
            extra_bytes: Number of bytes that `source` needs on the same disk at a time.
            progress: Function that is called with the number of records that were done since its last call.

        Raises:
            DataError: The disk is too full, or a signal is not what the index says.
        """
        note = self._finished()
        self._lay_out(extra_bytes)
        progress(note.num_written)
        order = StoredOrder(self.order)
        # Records of a stretch lie in all shards, each of which has to reach the disk before the stretch is noted.
        per_stretch = len(self.spans[0]) * -(-len(self.spans) // _MOST_NOTES)
        for first in range(note.num_written, len(self.order), per_stretch):
            stop = min(first + per_stretch, len(self.order))
            for start in range(first, stop, RECORDS_PER_READ):
                numbers = np.arange(start, min(start + RECORDS_PER_READ, stop))
                self._put(read_checked(self.dataset, source, numbers), order.places(numbers))
                progress(len(numbers))
            for path in self._paths():
                sync(path)
            dataclasses.replace(note, num_written=stop).save(self.folder)

    def read_back(self, progress: Progress) -> list[packed.PackedShard]:
        """Compares every record as it lies on the disk with the index, and returns the entries of the shards.

        Args:
            progress: Function that is called with the number of records that were read since its last call.

        Raises:
            DataError: A record does not read back as it was written. Nothing is kept then: this can be the disk.
        """
        return [self._entry(number, progress) for number in range(len(self.spans))]

    def _path(self, shard: int) -> Path:
        return self.folder / packed.shard_name(shard)

    def _paths(self) -> list[Path]:
        return [self._path(shard) for shard in range(len(self.spans))]

    @property
    def _record_bytes(self) -> int:
        return packed.record_bytes(self.dataset.format)

    def _header(self, span: range) -> bytes:
        return packed.npy_header((len(span), *self.dataset.format.shape))

    def _finished(self) -> Note:
        """Returns the note of what is finished, and removes everything that is not part of it."""
        nothing = Note(fingerprint=self.dataset.fingerprint, seed=self.seed, shard_lengths=tuple(map(len, self.spans)))
        note = read_note(self.folder)
        whole = note is not None and dataclasses.replace(note, num_written=0) == nothing and self._are_laid_out()
        kept = {*self._paths(), note_path(self.folder)} if whole else set()
        for path in self.folder.iterdir():
            if path not in kept:
                path.unlink()
        return note if whole and note is not None else nothing

    def _are_laid_out(self) -> bool:
        sizes = [len(self._header(span)) + len(span) * self._record_bytes for span in self.spans]
        return all(
            path.is_file() and path.stat().st_size == size for path, size in zip(self._paths(), sizes, strict=True)
        )

    def _lay_out(self, extra_bytes: int) -> None:
        """Gives every shard that is not there its header and its space on the disk."""
        there = [path.stat().st_blocks * _BLOCK_BYTES for path in self._paths() if path.exists()]
        check_free_space(self.folder, max(0, len(self.order) * self._record_bytes - sum(there)) + extra_bytes)
        for path, span in zip(self._paths(), self.spans, strict=True):
            if not path.exists():
                with path.open("xb") as file:
                    file.write(header := self._header(span))
                    file.flush()
                    _allocate(file.fileno(), len(header) + len(span) * self._record_bytes)

    def _put(self, signals: np.ndarray, places: np.ndarray) -> None:
        """Writes signals, `int16[n, time, lead]`, at places, `int64[n]`, shard by shard."""
        by_place = np.argsort(places)
        shard_of, position = np.divmod(places[by_place], len(self.spans[0]))
        rows = zip(shard_of.tolist(), position.tolist(), signals[by_place], strict=True)
        for shard, of_shard in itertools.groupby(rows, key=operator.itemgetter(0)):
            offset = len(self._header(self.spans[shard]))
            with self._path(shard).open("r+b") as file:
                for _, place, signal in of_shard:
                    file.seek(offset + place * self._record_bytes)
                    file.write(signal.data)

    def _entry(self, shard: int, progress: Progress) -> packed.PackedShard:
        """Reads a shard back and returns its entry in the table of contents."""
        path, span, digest = self._path(shard), self.spans[shard], packed.new_digest()
        header = self._header(span)
        with path.open("rb") as file:
            same = (found := file.read(len(header))) == header
            digest.update(found)
            for start in range(span.start, span.stop, RECORDS_PER_READ):
                numbers = self.order[start : min(start + RECORDS_PER_READ, span.stop)]
                content = file.read(len(numbers) * self._record_bytes)
                digest.update(content)
                same = same and self._are_records(numbers, content)
                progress(len(numbers))
            same = same and not file.read(1)
        if not same:
            note_path(self.folder).unlink()
            raise DataError(f"{path}: does not read back as it was written; check the disk, then run this again")
        return packed.PackedShard(
            name=path.name, num_records=len(span), num_bytes=path.stat().st_size, blake2b=digest.hexdigest()
        )

    def _are_records(self, numbers: np.ndarray, content: bytes) -> bool:
        """Returns whether bytes are the signals of some records."""
        if len(content) != len(numbers) * self._record_bytes:
            return False
        signals = np.frombuffer(content, "<i2").reshape(-1, *self.dataset.format.shape)
        return first_other(self.dataset, numbers, signals) is None


def _allocate(handle: int, num_bytes: int) -> None:
    """Gives a file its size and, where the file system can, the space for it in one stretch.

    Without that, a file that is filled in random order lies in as many pieces as it has records, and is read slowly.
    """
    os.truncate(handle, num_bytes)
    if hasattr(os, "posix_fallocate"):  # macOS has none.
        try:
            os.posix_fallocate(handle, 0, num_bytes)
        except OSError as error:
            if error.errno not in _CANNOT_ALLOCATE:
                raise
