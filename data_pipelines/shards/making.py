"""Makes one shard of a build, from its items to a verified file; this is the unit of work of every way to build.

Signals stay in the process that read them. What other processes need to know is kept beside the shard in a part
(`parts.py`), which is written last: a shard without its part counts as not made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from threadpoolctl import threadpool_limits

from data_pipelines.builders.base import Quarantined, Reader
from data_pipelines.builders.reading_notes import last_noted, noting
from data_pipelines.errors import DataError
from data_pipelines.prepared.remarks import RecordRemark, remarks_of
from data_pipelines.records import EcgRecord, LabelSchema, SignalFormat
from data_pipelines.shards.parts import ShardPart, load_part, save_part
from data_pipelines.shards.plan import Shard
from data_pipelines.shards.readback import columns_of_shard
from data_pipelines.storage.example_format import serialise
from data_pipelines.system.atomic_directory import sync
from data_pipelines.system.digests import file_digest
from data_pipelines.system.workers import WorkerDiedError, map_ordered

# Records are not compressed: random reads would spend 66 of about 80 µs per record in zstd, to save three tenths of the
# disk space.
_WRITER_OPTIONS = "group_size:1,uncompressed"


#: Function that is told how many further items are done.
Told = Callable[[int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildJob:
    """The properties that all shards of a build have in common; picklable.

    Attributes:
        key: Digest of the request, the plan, all versions and the reader.
        reader: Reader of the source.
        source_name: Name of the source, for messages.
        signal_format: Format of the records.
        label_schema: Labels of the records.
        shards: Folder of finished shards.
        parts: Folder of finished parts.
        unfinished: Folder of all other files; the three folders are on one file system that every worker sees.
    """

    key: str
    reader: Reader
    source_name: str
    signal_format: SignalFormat
    label_schema: LabelSchema
    shards: Path
    parts: Path
    unfinished: Path

    def part_path(self, shard: Shard) -> Path:
        """Returns the path of a shard's part, whether or not it exists."""
        return self.parts / f"{shard.number:05d}.npz"

    def paths(self, plan: Sequence[Shard]) -> list[Path]:
        """Returns the paths of the shards' files, in the order of the plan."""
        return [self.shards / shard.file_name for shard in plan]

    def finished_part(self, shard: Shard) -> ShardPart | None:
        """Returns the part of a finished shard, whatever it was made from; None if the shard is not finished."""
        part = load_part(self.part_path(shard))
        path = self.shards / shard.file_name
        return part if part and path.is_file() and path.stat().st_size == part.num_bytes else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to make.

    Attributes:
        shard: Place of the shard in the plan.
        items: Pickle of the shard's items.
    """

    shard: Shard
    items: bytes

    def key(self, job: BuildJob) -> str:
        """Returns the digest of everything that the shard is made from, besides the recordings."""
        return hashlib.blake2b(self.items, key=bytes.fromhex(job.key), digest_size=16).hexdigest()


def make_shard(job: BuildJob, task: ShardTask) -> int:
    """Reads a shard's items, writes and verifies the shard, and keeps its part.

    Args:
        job: Properties of the build.
        task: Shard to make. It may be made twice, also at the same time, with the same result.

    Returns:
        The number of items.

    Raises:
        DataError: The source's reader gives another number of records than there are items, or the disk is full or at
            fault.
    """
    # The processes share the cores, so a pool of threads in each would only slow them down.
    with threadpool_limits(limits=1):
        # Runners of several machines may make a shard twice at a time, each into a file of its own.
        making = job.unfinished / f"{task.shard.file_name}-{uuid.uuid4().hex}"
        try:
            with noting(job.unfinished):
                _make(job, task, making)
        finally:
            making.unlink(missing_ok=True)
    return task.shard.num_items


@dataclasses.dataclass(frozen=True)
class LocalProcesses:
    """Makes shards with processes of this machine; a `dataset_build.ShardMaker`.

    Attributes:
        num_workers: Number of processes; with 1, the shards are made in this process.
    """

    num_workers: int = 1

    def __call__(self, job: BuildJob, tasks: Sequence[ShardTask], *, folder: Path, progress: Told) -> None:
        """Makes every shard.

        Args:
            job: Properties that the shards have in common.
            tasks: Shards to make.
            folder: Not used.
            progress: Function that is called with the number of items of each finished shard.

        Raises:
            DataError: The source's reader or the disk is at fault, or a worker died.
        """
        del folder  # Workers receive tasks directly, not as files.
        work = functools.partial(make_shard, job)
        num_workers = min(self.num_workers, len(tasks))
        try:
            for num_items in map_ordered(work, tasks, num_workers=num_workers, chunk_size=1):
                progress(num_items)
        except WorkerDiedError as error:
            if not (files := last_noted(job.unfinished, error.process_ids)):
                raise
            raise DataError(
                f"{' and '.join(files)}: a worker process died ({error.how}) while it was reading this; run again with "
                "--num_workers=1, and if it dies there too, move the file out of the folder and report it"
            ) from error


def _make(job: BuildJob, task: ShardTask, making: Path) -> None:
    results = _checked_count(job, task)
    quarantined: list[Quarantined] = []
    remarks: list[RecordRemark] = []
    origins: list[str] = []
    num_stored = _write(making, job, _stored(results, quarantined, remarks, origins))
    # It is read back before it gets its name, so that a shard of this name is always a good one.
    columns = columns_of_shard(making, num_records=num_stored, signal_format=job.signal_format, schema=job.label_schema)
    code_of_origin = {origin: code for code, origin in enumerate(dict.fromkeys(origins))}
    columns["origin"] = np.array([code_of_origin[origin] for origin in origins], np.int32)
    sync(making)
    part = ShardPart(
        path=job.part_path(task.shard),
        key=task.key(job),
        num_stored=num_stored,
        num_bytes=making.stat().st_size,
        digest=file_digest(making),
        text_widths={
            name: values.dtype.itemsize // np.dtype("U1").itemsize
            for name, values in columns.items()
            if values.dtype.kind == "U"
        },
        quarantined=tuple(quarantined),
        origins=tuple(code_of_origin),
    )
    # The shard reaches the disk before its part: after a crash no part tells of a shard that is not there.
    making.rename(job.shards / task.shard.file_name)
    sync(job.shards)
    save_part(part, columns, remarks=remarks, unfinished=job.unfinished)


def _checked_count(job: BuildJob, task: ShardTask) -> Iterator[EcgRecord | Quarantined]:
    items = pickle.loads(task.items)
    num_results = 0
    for result in job.reader(items):
        num_results += 1
        yield result
    if num_results != len(items):
        raise DataError(
            f"the source '{job.source_name}' has {len(items)} recordings in shard {task.shard.number}, of which its "
            f"reader gave {num_results} (a fault of its reader); nothing was built"
        )


def _stored(
    found: Iterable[EcgRecord | Quarantined], refused: list[Quarantined], notes: list[RecordRemark], origins: list[str]
) -> Iterator[EcgRecord]:
    """Yields the records of a reader's results, and appends what else the results hold to the three lists.

    Args:
        found: Records, and recordings that could not be stored.
        refused: List that recordings that could not be stored are appended to.
        notes: List that the records' remarks are appended to.
        origins: List that the records' origins are appended to.
    """
    for result in found:
        if isinstance(result, Quarantined):
            refused.append(result)
        else:
            notes.extend(remarks_of(result.record_id, result.remarks))
            origins.append(result.origin)
            yield result


def _write(path: Path, job: BuildJob, records: Iterable[EcgRecord]) -> int:
    num_stored = 0
    shard = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
    try:
        for record in records:
            example = serialise(record, signal_format=job.signal_format, schema=job.label_schema)
            with _disk_errors_named(path):
                shard.write(example)
            num_stored += 1
    finally:
        # Buffered records are written here, so a full disk may only show now.
        with _disk_errors_named(path):
            shard.close()
    return num_stored


@contextlib.contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    """Turns ArrayRecord's error about a disk that is full or not writable into a `DataError` with advice."""
    try:
        yield
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be written ({error}); make room, or choose another --out") from error
