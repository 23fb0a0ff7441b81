"""Makes the packed copy of a data set (`packed_format.py`); an interrupted run can be resumed.

The copy is moved into place when it is complete.

Shards that are finished are kept with their hashes until the whole copy is finished; a run after an interrupted one
checks them and goes on after them. The shards of a copy whose patients are shuffled are all filled at once
(`shuffled_shards.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.packing.patient_order import shuffled_patients
from data_pipelines.packing.shuffled_shards import ShuffledShards, note_path, read_note
from data_pipelines.packing.signal_source import (
    RECORDS_PER_READ,
    Progress,
    SignalSource,
    check_free_space,
    no_progress,
    read_checked,
)
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.storage import packed_format as packed
from data_pipelines.storage.array_record_store import ArrayRecordStore
from data_pipelines.storage.packed_store import PackedStore
from data_pipelines.storage.stored_order import ORDER_FILE, write_order
from data_pipelines.system.atomic_directory import exclusive_staging, publish, written_whole
from data_pipelines.system.digests import write_digests


def pack(
    dataset: Dataset,
    *,
    seed: int | None = None,
    shard_bytes: int = packed.SHARD_BYTES,
    progress: Progress = no_progress,
    read_back: Progress = no_progress,
) -> bool:
    """Makes the packed copy of a data set at `DIR/packed`, unless a valid one is there.

    Finished work is kept in `DIR/packed.building`: a run after an interrupted one goes on from there.

    Args:
        dataset: Data set of which a copy is made.
        seed: Seed of the order of patients (`patient_order.py`); None for records that lie by number.
        shard_bytes: Largest size of a shard.
        progress: Function that is called with the number of records that were done since its last call.
        read_back: Function that is called with the number of records of a shuffled copy that were read back since its
            last call, once all are written.

    Returns:
        Whether a copy was made.

    Raises:
        DataError: The disk is too full, a shard is damaged, `DIR/packed` is stale, damaged or in another order, or
            another process is packing.
    """
    folder = dataset.directory / packed.PACKED_DIR
    staging = packed_staging(dataset.directory)
    if folder.exists():
        check_order(dataset, seed=seed, other=f"remove {folder}")
        PackedStore(dataset, verify=True)
        return False
    store = ArrayRecordStore(dataset)
    with exclusive_staging(staging, resume=True):
        if folder.exists():  # Another process has just finished.
            return False
        write_packed(
            dataset,
            store,
            staging / packed.PACKED_DIR,
            seed=seed,
            shard_bytes=shard_bytes,
            progress=progress,
            read_back=read_back,
        )
        publish(staging / packed.PACKED_DIR, folder, retired=staging / "replaced")
    return True


def check_order(dataset: Dataset, *, seed: int | None, other: str) -> None:
    """Raises `DataError` where the records of a finished packed copy lie in another order than is asked for.

    Args:
        dataset: Data set with the copy.
        seed: Seed of the order of patients that is asked for; None for records that lie by number.
        other: Clause on what makes room for a copy in that order, for the message.

    Raises:
        DataError: The order is another one, or the copy's table of contents cannot be read.
    """
    folder = dataset.directory / packed.PACKED_DIR
    num_records = dataset.index.num_records
    held = packed.read_contents(folder, fingerprint=dataset.fingerprint, num_records=num_records).seed
    if held != seed:
        raise DataError(
            f"{folder}: is a copy {_other_order(held, seed)}; {_remedy_for(held)} to keep it, or {other} and run this "
            "again"
        )


def _other_order(held: int | None, asked: int | None) -> str:
    """Returns in words that a copy is in one order and another is asked for."""
    words = [
        "in the order of record numbers" if seed is None else f"with patients shuffled by seed {seed}"
        for seed in (held, asked)
    ]
    return f"{words[0]}, and one {words[1]} is asked for"


def _remedy_for(held: int | None) -> str:
    """Returns what takes or finishes a copy in the order that it has; a run that meets one names the command too."""
    if held is None:
        return "leave out --shuffle_patients"
    return f"run data_pipelines.stage with{packed.stage_flags(held)}"


def packed_staging(directory: Path) -> Path:
    """Returns the directory in which a packed copy is made until it is whole."""
    return directory / f"{packed.PACKED_DIR}.building"


def write_packed(
    dataset: Dataset,
    source: SignalSource,
    folder: Path,
    *,
    seed: int | None = None,
    shard_bytes: int = packed.SHARD_BYTES,
    extra_bytes: int = 0,
    progress: Progress = no_progress,
    read_back: Progress = no_progress,
) -> None:
    """Writes a packed copy into a folder, and continues after what is finished there.

    Args:
        dataset: Data set, whose card and index are read; every signal is checked against its content hash.
        source: Source of the signals that are still missing, which are asked for in order.
        folder: Folder of the copy; it is created, and its parents exist.
        seed: Seed of the order of patients; None for records that lie by number.
        shard_bytes: Largest size of a shard.
        extra_bytes: Number of bytes that `source` needs on the same disk at a time.
        progress: Function that is called with the number of records that were done since its last call.
        read_back: Function that is called with the number of records of a shuffled copy that were read back since its
            last call, once all are written.

    Raises:
        DataError: The disk is too full, a signal is not what the index says, or an interrupted run left part of a copy
            of another data set, or in another order, in the folder.
    """
    folder.mkdir(exist_ok=True)
    size = packed.record_bytes(dataset.format)
    spans = packed.shard_spans(dataset.index.num_records, bytes_per_record=size, shard_bytes=shard_bytes)
    work = [_Work(folder=folder, number=number, records=records) for number, records in enumerate(spans)]
    try:
        _check_left(work, dataset.fingerprint, seed=seed)
        if seed is None:
            shards = _write_by_number(dataset, source, work, extra_bytes=extra_bytes, progress=progress)
        else:
            order = shuffled_patients(dataset.index.patient, seed=seed)
            making = ShuffledShards(folder=folder, dataset=dataset, order=order, seed=seed, spans=spans)
            making.write(source, extra_bytes=extra_bytes, progress=progress)
            shards = making.read_back(read_back)
            write_order(folder, order)
    except BaseException:
        if not any(note.exists() for note in _notes(work)):
            shutil.rmtree(folder)  # Nothing in it could be resumed.
        raise
    packed.write_contents(folder, fingerprint=dataset.fingerprint, shards=shards, seed=seed)
    # The table of contents has the digests of the shards.
    write_digests(folder, [packed.PACKED_FILE] if seed is None else [packed.PACKED_FILE, ORDER_FILE])
    for note in _notes(work):
        note.unlink(missing_ok=True)


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

    def kept(self) -> tuple[str, packed.PackedShard] | None:
        """Returns fingerprint and entry of the finished shard, as `keep` noted them; None where there is no note.

        Raises:
            DataError: The note is damaged.
        """
        if not self.note.exists():
            return None
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return str(note["fingerprint"]), packed.PackedShard(**note["shard"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{self.note}: note of an interrupted run, damaged ({error}); remove {self.folder.parent} and run this "
                "again"
            ) from error


def _notes(work: list[_Work]) -> list[Path]:
    """Returns the paths of all notes on what is finished of a copy, whatever its order."""
    return [note_path(work[0].folder), *(shard.note for shard in work)]


def _check_left(work: list[_Work], fingerprint: str, *, seed: int | None) -> None:
    """Raises `DataError` where an interrupted run left part of a copy of another data set or in another order.

    Args:
        work: All shards of the copy.
        fingerprint: Fingerprint of the data set.
        seed: Seed of the order of patients that is asked for; None for records that lie by number.

    Raises:
        DataError: A note in the folder is of another data set or of another order.
    """
    place = work[0].folder.parent
    notes: list[tuple[str, int | None]] = [(kept[0], None) for shard in work if (kept := shard.kept()) is not None]
    if (note := read_note(work[0].folder)) is not None:
        notes.append((note.fingerprint, note.seed))
    for found, held in notes:
        if found != fingerprint:
            raise DataError(
                f"{place}: an interrupted run left part of a copy of another data set here (fingerprint "
                f"{found}, this one has {fingerprint}); remove {place} and run this again"
            )
        if held != seed:
            raise DataError(
                f"{place}: an interrupted run left part of a copy {_other_order(held, seed)}; {_remedy_for(held)} to "
                f"finish it, or remove {place} and run this again"
            )


def _write_by_number(
    dataset: Dataset, source: SignalSource, work: list[_Work], *, extra_bytes: int, progress: Progress
) -> list[packed.PackedShard]:
    """Writes shard after shard, but for those that are finished, and returns the entries of all."""
    finished = _finished_shards(work, progress)
    missing = sum(len(shard.records) for shard in work if shard.number not in finished)
    check_free_space(work[0].folder, missing * packed.record_bytes(dataset.format) + extra_bytes)
    for shard in work:
        if shard.number not in finished:
            finished[shard.number] = _write_shard(dataset, source, shard, progress)
            shard.keep(finished[shard.number], dataset.fingerprint)
    return [finished[shard.number] for shard in work]


def _finished_shards(work: list[_Work], progress: Progress) -> dict[int, packed.PackedShard]:
    """Returns the shards that an interrupted run finished, by number, and removes everything else that it left.

    Args:
        work: All shards of the copy.
        progress: Function that is called with the number of records of each finished shard.
    """
    finished = {}
    for shard in work:
        if (note := shard.kept()) is None:
            continue
        _, kept = note
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


def _write_shard(dataset: Dataset, source: SignalSource, shard: _Work, progress: Progress) -> packed.PackedShard:
    digest = packed.new_digest()
    # It must be a new file: what an interrupted run left was removed before.
    with shard.path.open("xb") as file:
        header = packed.npy_header((len(shard.records), *dataset.format.shape))
        digest.update(header)
        file.write(header)
        for start in range(shard.records.start, shard.records.stop, RECORDS_PER_READ):
            numbers = np.arange(start, min(start + RECORDS_PER_READ, shard.records.stop))
            signals = read_checked(dataset, source, numbers)
            digest.update(signals.data)
            file.write(signals.data)
            progress(len(numbers))
        file.flush()
        os.fsync(file.fileno())
    if packed.file_hash(shard.path) != (written := digest.hexdigest()):
        raise DataError(f"{shard.path}: does not read back as it was written; check the disk, then run this again")
    num_records, num_bytes = len(shard.records), shard.path.stat().st_size
    return packed.PackedShard(name=shard.path.name, num_records=num_records, num_bytes=num_bytes, blake2b=written)
