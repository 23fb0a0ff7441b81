"""Makes the packed copy of a data set (`packed_format.py`); an interrupted run can be resumed.

The copy is moved into place when it is complete.

Shards that are finished are kept with their hashes until the whole copy is finished; a run after an interrupted one
checks them and goes on after them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.records import content_hash
from data_pipelines.storage import packed_format as packed
from data_pipelines.storage.array_record_store import ArrayRecordStore
from data_pipelines.storage.packed_store import PackedStore
from data_pipelines.system.atomic_directory import exclusive_staging, publish, written_whole
from data_pipelines.system.digests import write_digests

#: Function that is told how many further records are done, those of an interrupted run included.
Progress = Callable[[int], None]

# So much is left free on the disk beyond what is written.
_SPARE_BYTES = 2**28

_RECORDS_PER_READ = 256


class SignalSource(Protocol):
    """Reader of the signals for a packed copy."""

    def read(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns the signals, `int16[n, time, 8]`, of consecutive record numbers; calls are in ascending order."""
        ...

    def shard_of(self, record_number: int) -> str:
        """Returns the name of the shard that a record is in, for messages."""
        ...


def pack(
    dataset: Dataset, *, shard_bytes: int = packed.SHARD_BYTES, progress: Progress = lambda num_records: None
) -> bool:
    """Makes the packed copy of a data set at `DIR/packed`, unless a valid one is there.

    Finished work is kept in `DIR/packed.building`: a run after an interrupted one goes on from there.

    Args:
        dataset: Data set of which a copy is made.
        shard_bytes: Largest size of a shard.
        progress: Function that is called with the number of records that were done since its last call.

    Returns:
        Whether a copy was made.

    Raises:
        DataError: The disk is too full, a shard is damaged, `DIR/packed` is stale or damaged, or another process is
            packing.
    """
    folder = dataset.directory / packed.PACKED_DIR
    staging = packed_staging(dataset.directory)
    if folder.exists():
        PackedStore(dataset, verify=True)
        return False
    store = ArrayRecordStore(dataset)
    with exclusive_staging(staging, resume=True):
        if folder.exists():  # Another process has just finished.
            return False
        write_packed(dataset, store, staging / packed.PACKED_DIR, shard_bytes=shard_bytes, progress=progress)
        publish(staging / packed.PACKED_DIR, folder, retired=staging / "replaced")
    return True


def packed_staging(directory: Path) -> Path:
    """Returns the directory in which a packed copy is made until it is whole."""
    return directory / f"{packed.PACKED_DIR}.building"


def write_packed(
    dataset: Dataset,
    source: SignalSource,
    folder: Path,
    *,
    shard_bytes: int = packed.SHARD_BYTES,
    extra_bytes: int = 0,
    progress: Progress = lambda num_records: None,
) -> None:
    """Writes a packed copy into a folder, and continues after the shards that are finished there.

    Args:
        dataset: Data set, whose card and index are read; every signal is checked against its content hash.
        source: Source of the signals that are still missing, which are asked for in order.
        folder: Folder of the copy; it is created, and its parents exist.
        shard_bytes: Largest size of a shard.
        extra_bytes: Number of bytes that `source` needs on the same disk at a time.
        progress: Function that is called with the number of records that were done since its last call.

    Raises:
        DataError: The disk is too full, a signal is not what the index says, or an interrupted run left part of a copy
            of another data set in the folder.
    """
    folder.mkdir(exist_ok=True)
    size = packed.record_bytes(dataset.format)
    spans = packed.shard_spans(dataset.index.num_records, bytes_per_record=size, shard_bytes=shard_bytes)
    work = [_Work(folder=folder, number=number, records=records) for number, records in enumerate(spans)]
    try:
        finished = _finished_shards(work, dataset.fingerprint, progress)
        missing = sum(len(shard.records) for shard in work if shard.number not in finished)
        _check_free_space(folder, missing * size + extra_bytes)
        for shard in work:
            if shard.number not in finished:
                finished[shard.number] = _write_shard(dataset, source, shard, progress)
                shard.keep(finished[shard.number], dataset.fingerprint)
    except BaseException:
        if not any(shard.note.exists() for shard in work):
            shutil.rmtree(folder)  # Nothing in it could be resumed.
        raise
    packed.write_contents(folder, fingerprint=dataset.fingerprint, shards=[finished[shard.number] for shard in work])
    write_digests(folder, [packed.PACKED_FILE])  # That file has the digests of the shards.
    for shard in work:
        shard.note.unlink()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """A shard to be made, and a file (note) that is written once the shard is finished."""

    folder: Path
    number: int
    records: range

    @property
    def path(self) -> Path:
        return self.folder / packed.shard_name(self.number)

    @property
    def note(self) -> Path:
        return self.path.with_suffix(".json")

    def keep(self, shard: packed.PackedShard, fingerprint: str) -> None:
        """Writes the note that the shard is finished, completely or not at all."""
        with written_whole(self.note, making=self.path.with_suffix(".tmp")) as file:
            file.write(json.dumps({"fingerprint": fingerprint, "shard": dataclasses.asdict(shard)}).encode())


def _finished_shards(work: list[_Work], fingerprint: str, progress: Progress) -> dict[int, packed.PackedShard]:
    """Returns the shards that an interrupted run finished, by number, and removes everything else that it left.

    Args:
        work: All shards of the copy.
        fingerprint: Fingerprint of the data set.
        progress: Function that is called with the number of records of each finished shard.

    Raises:
        DataError: An interrupted run left part of a copy of another data set.
    """
    finished = {}
    for shard in work:
        if not shard.note.exists():
            continue
        note = json.loads(shard.note.read_text(encoding="utf-8"))
        if note["fingerprint"] != fingerprint:
            raise DataError(
                f"{shard.folder.parent}: an interrupted run left part of a copy of another data set here (fingerprint "
                f"{note['fingerprint']}, this one has {fingerprint}); remove {shard.folder.parent} and run this again"
            )
        kept = packed.PackedShard(**note["shard"])
        if shard.path.is_file() and (kept.num_records, kept.blake2b) == (
            len(shard.records),
            packed.file_hash(shard.path),
        ):
            finished[shard.number] = kept
            progress(kept.num_records)
    wanted = {path for shard in work if shard.number in finished for path in (shard.path, shard.note)}
    for path in work[0].folder.iterdir():
        if path not in wanted:
            path.unlink()
    return finished


def _check_free_space(folder: Path, num_bytes: int) -> None:
    needed, free = num_bytes + _SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder.parent}: the packed copy needs {needed / 1e9:.2f} GB more and {free / 1e9:.2f} GB are free; make "
            "room, choose a larger disk, or read the ArrayRecord shards, which needs no copy"
        )


def _write_shard(dataset: Dataset, source: SignalSource, shard: _Work, progress: Progress) -> packed.PackedShard:
    digest = packed.new_digest()
    # It must be a new file: what an interrupted run left was removed before.
    with shard.path.open("xb") as file:
        header = packed.npy_header((len(shard.records), *dataset.format.shape))
        digest.update(header)
        file.write(header)
        for start in range(shard.records.start, shard.records.stop, _RECORDS_PER_READ):
            numbers = np.arange(start, min(start + _RECORDS_PER_READ, shard.records.stop))
            signals = source.read(numbers).astype("<i2", copy=False)
            _check_contents(dataset, source, numbers, signals)
            digest.update(signals.data)
            file.write(signals.data)
            progress(len(numbers))
        file.flush()
        os.fsync(file.fileno())
    if packed.file_hash(shard.path) != (written := digest.hexdigest()):
        raise DataError(f"{shard.path}: does not read back as it was written; check the disk, then run this again")
    num_records, num_bytes = len(shard.records), shard.path.stat().st_size
    return packed.PackedShard(name=shard.path.name, num_records=num_records, num_bytes=num_bytes, blake2b=written)


def _check_contents(dataset: Dataset, source: SignalSource, numbers: np.ndarray, signals: np.ndarray) -> None:
    for number, signal in zip(numbers.tolist(), signals, strict=True):
        if content_hash(signal) != dataset.index.content_hash[number].tobytes():
            raise DataError(
                f"{source.shard_of(number)}: record {number} ('{dataset.index.record_id[number]}') is not what the "
                "index says (damaged); restore this shard from a copy, or build the data set again with --overwrite"
            )
