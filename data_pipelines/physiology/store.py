"""Measures the physiology vectors of all records of a data set, and stores them in DIR/physiology.

DIR/physiology/
values.npy         f32[record, measurement], NaN where missing
reasons.npy        int32[record], why: a mask of `vector.Missing`
physiology.json    names, units, versions, the data set's fingerprint, counts of what is missing
SHA256SUMS         digests of these three
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.physiology.vector import NAMES, PHYSIOLOGY_VERSION, UNITS, UNUSABLE, Missing, measure_record
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.storage.store import Store, open_store
from data_pipelines.system.atomic_directory import clear_staging, exclusive_staging, publish, written_whole
from data_pipelines.system.digests import write_digests
from data_pipelines.system.npy_files import write_npy
from data_pipelines.system.workers import map_ordered

#: Folder of the measurements inside a data set, and its table of contents.
PHYSIOLOGY_DIR = "physiology"
PHYSIOLOGY_FILE = "physiology.json"

#: Number of records that are stored together once they are measured; an interrupted run loses fewer than these.
RECORDS_PER_CHUNK = 512

#: Number of records that a worker measures at a time: large enough to hide the transfer, small enough for a smooth
#: progress bar.
_RECORDS_PER_TASK = 16

_REQUEST_FILE = "request.json"
_VALUES_FILE, _REASONS_FILE = "values.npy", "reasons.npy"

#: Names of all files of the folder.
PHYSIOLOGY_FILES = (_VALUES_FILE, _REASONS_FILE, PHYSIOLOGY_FILE)
_MEASURE_AGAIN = "remove it and measure again with python -m data_pipelines.measure --dataset=DIR"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Physiology:
    """Physiology vectors of a data set's records.

    Attributes:
        names: Names of the measurements, in column order.
        units: Units of the measurements.
        values: `f32[record, measurement]`, memory-mapped, NaN where missing.
        reasons: `int32[record]`, memory-mapped, why values are missing, as bits of `vector.Missing`; 0 where no value
            is missing.
        card: Contents of `physiology.json`.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: np.ndarray
    reasons: np.ndarray
    card: Mapping[str, Any]


def open_physiology(dataset: Dataset) -> Physiology:
    """Opens the measurements of a data set.

    Raises:
        DataError: The measurements were never made, are not finished, belong to another state of the data set or
            another definition, or are damaged.
    """
    folder = dataset.directory / PHYSIOLOGY_DIR
    path = folder / PHYSIOLOGY_FILE
    if not path.is_file():
        unfinished = physiology_staging(dataset.directory).exists()
        state = "measuring it is not finished" if unfinished else "its physiology was not measured"
        message = f"{dataset.directory}: {state}; run python -m data_pipelines.measure --dataset={dataset.directory}"
        raise DataError(message)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found, names, fingerprint = card["version"], tuple(card["names"]), card["fingerprint"]
        units = tuple(card["units"])
        values, reasons = (np.load(folder / name, mmap_mode="r") for name in (_VALUES_FILE, _REASONS_FILE))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: damaged ({error}); {_MEASURE_AGAIN}") from error
    if found != PHYSIOLOGY_VERSION or names != NAMES:
        raise DataError(
            f"{folder}: was measured by version {found} of the definition, this ecgjax has version "
            f"{PHYSIOLOGY_VERSION}; {_MEASURE_AGAIN}"
        )
    if fingerprint != dataset.fingerprint:
        raise DataError(f"{folder}: was measured on another state of this data set (stale); {_MEASURE_AGAIN}")
    for name, array, dtype, shape in (
        (_VALUES_FILE, values, np.float32, (dataset.index.num_records, len(NAMES))),
        (_REASONS_FILE, reasons, np.int32, (dataset.index.num_records,)),
    ):
        if array.dtype != dtype or array.shape != shape:
            raise DataError(
                f"{folder / name}: holds {array.dtype}{list(array.shape)} where {np.dtype(dtype)}{list(shape)} belongs "
                f"(damaged); {_MEASURE_AGAIN}"
            )
    return Physiology(names=names, units=units, values=values, reasons=reasons, card=card)


def measure_dataset(
    directory: Path | str,
    *,
    num_workers: int,
    progress: Callable[[int], None] = lambda num_records: None,
    records_per_chunk: int = RECORDS_PER_CHUNK,
) -> bool:
    """Measures every record of a prepared data set into `DIR/physiology`, unless valid measurements are there.

    What is measured is kept chunk by chunk in `DIR/physiology.building`: a run after an interrupted one goes on from
    there, and ends with the same bytes as one that was never interrupted, whatever the numbers of workers.

    Args:
        directory: Directory of the data set.
        num_workers: Number of processes that measure.
        progress: Function that is called with the number of records that were done since its last call, those of an
            interrupted run included.
        records_per_chunk: Number of records that are stored together; a run that asks for another number starts anew.

    Returns:
        Whether anything was measured.

    Raises:
        DataError: The data set is damaged, what is at `DIR/physiology` is stale or damaged, another process is
            measuring, or a worker died.
    """
    dataset = open_dataset(directory)
    folder, staging = dataset.directory / PHYSIOLOGY_DIR, physiology_staging(dataset.directory)
    if folder.exists():
        open_physiology(dataset)
        return False
    with exclusive_staging(staging, resume=True):
        if folder.exists():  # Another process has just finished.
            return False
        chunks = _chunks_for(dataset, staging, records_per_chunk)
        _measure_rest(dataset, chunks, num_workers=num_workers, progress=progress)
        making = staging / PHYSIOLOGY_DIR
        _assemble(dataset, chunks, making)
        publish(making, folder, retired=staging / "replaced")
    return True


def physiology_staging(directory: Path) -> Path:
    """Returns the directory in which measurements are gathered until they are whole."""
    return directory / f"{PHYSIOLOGY_DIR}.building"


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """Consecutive records and the file that keeps their measurements."""

    path: Path
    records: range

    def load(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns values `f32[n, measurements]` and reasons `int32[n]`; None if the file is missing or incomplete."""
        try:
            # NumPy leaves a file open that it opened itself and finds to be damaged.
            with self.path.open("rb") as file, np.load(file) as kept:
                values, reasons = kept["values"], kept["reasons"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return (values, reasons) if len(values) == len(reasons) == len(self.records) else None

    def save(self, values: np.ndarray, reasons: np.ndarray) -> None:
        """Stores values and reasons; the file appears whole or not at all."""
        with written_whole(self.path, making=self.path.with_suffix(".tmp")) as file:
            np.savez(file, values=values, reasons=reasons)


def _chunks_for(dataset: Dataset, staging: Path, records_per_chunk: int) -> list[_Chunk]:
    """Returns the chunks of a data set, and clears the staging directory if it is of another data set or version.

    Args:
        dataset: Data set to measure.
        staging: Directory in which measurements are gathered.
        records_per_chunk: Number of records of every chunk but the last.
    """
    request = _versions(dataset) | {"records_per_chunk": records_per_chunk}
    path = staging / _REQUEST_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != json.dumps(request):
        clear_staging(staging)
        path.write_text(json.dumps(request), encoding="utf-8")
    shutil.rmtree(staging / PHYSIOLOGY_DIR, ignore_errors=True)
    num_records = dataset.index.num_records
    return [
        _Chunk(staging / f"chunk-{start:012d}.npz", range(start, min(start + records_per_chunk, num_records)))
        for start in range(0, num_records, records_per_chunk)
    ]


def _measure_rest(dataset: Dataset, chunks: list[_Chunk], *, num_workers: int, progress: Callable[[int], None]) -> None:
    pending = []
    for chunk in chunks:
        if chunk.load() is None:
            pending.append(chunk)
        else:
            progress(len(chunk.records))
    tasks = [_tasks(chunk.records) for chunk in pending]
    work = functools.partial(_measure_records, dataset.directory, dataset.fingerprint)
    flat = [task for of_chunk in tasks for task in of_chunk]
    with contextlib.closing(map_ordered(work, flat, num_workers=num_workers, chunk_size=1)) as results:
        for chunk, of_chunk in zip(pending, tasks, strict=True):
            measured = []
            for task in of_chunk:
                measured.append(next(results))
                progress(len(task))
            values, reasons = (np.concatenate(parts) for parts in zip(*measured, strict=True))
            chunk.save(values, reasons)


def _tasks(records: range) -> list[range]:
    return [records[start : start + _RECORDS_PER_TASK] for start in range(0, len(records), _RECORDS_PER_TASK)]


def _measure_records(directory: Path, fingerprint: str, records: range) -> tuple[np.ndarray, np.ndarray]:
    """Reads and measures records; returns their values, `f32[n, measurements]`, and reasons, `int32[n]`.

    Args:
        directory: Directory of the data set.
        fingerprint: Fingerprint of the data set.
        records: Record numbers.
    """
    dataset, store = _opened(directory, fingerprint)
    values = np.full((len(records), len(NAMES)), math.nan, np.float32)
    reasons = np.zeros(len(records), np.int32)
    signals = store.read(np.array(records))
    for row, (record, signal) in enumerate(zip(records, signals, strict=True)):
        start = int(dataset.index.valid_start[record])
        recorded = signal[start : start + int(dataset.index.valid_samples[record])]
        values[row], reasons[row] = measure_record(recorded, sampling_rate_hz=dataset.format.sampling_rate_hz)
    return values, reasons


@functools.lru_cache(maxsize=1)
def _opened(directory: Path, fingerprint: str) -> tuple[Dataset, Store]:
    """Opens a data set and its store once in each worker process; another fingerprint opens them again."""
    return open_dataset(directory), open_store(directory)


def _assemble(dataset: Dataset, chunks: list[_Chunk], folder: Path) -> None:
    num_records = dataset.index.num_records
    folder.mkdir()
    reasons = np.empty(num_records, np.int32)
    missing = np.zeros(len(NAMES), np.int64)

    def values() -> Iterator[np.ndarray]:
        for chunk in chunks:
            if (kept := chunk.load()) is None:
                raise DataError(f"{chunk.path}: does not read back as it was written; check the disk, then run again")
            of_chunk, reasons[chunk.records.start : chunk.records.stop] = kept
            missing[:] += np.isnan(of_chunk).sum(axis=0)
            yield of_chunk

    write_npy(folder / _VALUES_FILE, values(), dtype=np.dtype(np.float32), shape=(num_records, len(NAMES)))
    write_npy(folder / _REASONS_FILE, [reasons], dtype=reasons.dtype, shape=reasons.shape)
    card = _versions(dataset) | {
        "names": list(NAMES),
        "units": [UNITS[name] for name in NAMES],
        "num_records": num_records,
        "num_unusable": int(np.count_nonzero(reasons & int(UNUSABLE))),
        "reasons": {
            name.lower(): int(np.count_nonzero(reasons & int(reason))) for name, reason in Missing.__members__.items()
        },
        "missing": dict(zip(NAMES, missing.tolist(), strict=True)),
    }
    (folder / PHYSIOLOGY_FILE).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    write_digests(folder, sorted(PHYSIOLOGY_FILES))


def _versions(dataset: Dataset) -> dict[str, Any]:
    return {
        "version": PHYSIOLOGY_VERSION,
        "fingerprint": dataset.fingerprint,
        "written_with": {package: version(package) for package in ("neurokit2", "numpy", "scipy")},
    }
