"""Measures all records of a data set by one of `definitions.DEFINITIONS`, and stores that beside the data set.

DIR/physiology/, DIR/median_beat/
values.npy         f32[record, measurement], NaN where missing
reasons.npy        int32[record], why: bits of `Definition.reasons`
physiology.json    names, units, versions, the data set's fingerprint, counts of what is missing
SHA256SUMS         digests of these three
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.physiology.definitions import BEATS, DEFINITIONS, Definition
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.storage.store import opened_once
from data_pipelines.system.atomic_directory import exclusive_staging, publish
from data_pipelines.system.digests import write_digests
from data_pipelines.system.kept_chunks import KeptChunk, begin_or_go_on, chunks_of, compute_rest
from data_pipelines.system.npy_files import write_npy

#: Table of contents of a folder of measurements.
PHYSIOLOGY_FILE = "physiology.json"

#: Number of records that are stored together once they are measured; an interrupted run loses fewer than these.
RECORDS_PER_CHUNK = 512

#: Number of records that a worker measures at a time: large enough to hide the transfer, small enough for a smooth
#: progress bar.
_RECORDS_PER_TASK = 16

_VALUES_FILE, _REASONS_FILE = "values.npy", "reasons.npy"

#: Names of all files of such a folder.
PHYSIOLOGY_FILES = (_VALUES_FILE, _REASONS_FILE, PHYSIOLOGY_FILE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Physiology:
    """Measurements of a data set's records.

    Attributes:
        names: Names of the measurements, in column order.
        units: Units of the measurements.
        values: `f32[record, measurement]`, memory-mapped, NaN where missing.
        reasons: `int32[record]`, memory-mapped, why values are missing, as bits of `Definition.reasons`; 0 where no
            value is missing.
        card: Contents of `physiology.json`.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: np.ndarray
    reasons: np.ndarray
    card: Mapping[str, Any]


def open_physiology(dataset: Dataset, definition: Definition = BEATS) -> Physiology:
    """Opens the measurements of a data set.

    Args:
        dataset: Data set.
        definition: Form of the measurements.

    Raises:
        DataError: The measurements were never made, are not finished, belong to another state of the data set or
            another definition, or are damaged.
    """
    folder, names = dataset.directory / definition.folder, definition.names
    path, again = folder / PHYSIOLOGY_FILE, f"remove it and measure again with {definition.command('DIR')}"
    if not path.is_file():
        unfinished = physiology_staging(dataset.directory, definition).exists()
        what = "physiology" if definition is BEATS else "median beat"
        state = "measuring it is not finished" if unfinished else f"its {what} was not measured"
        raise DataError(f"{dataset.directory}: {state}; run {definition.command(dataset.directory)}")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found, stored, fingerprint = card["version"], tuple(card["names"]), card["fingerprint"]
        units = tuple(card["units"])
        values, reasons = (np.load(folder / name, mmap_mode="r") for name in (_VALUES_FILE, _REASONS_FILE))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: damaged ({error}); {again}") from error
    if found != definition.version or stored != names:
        raise DataError(
            f"{folder}: was measured by version {found} of the definition, this ecgjax has version "
            f"{definition.version}; {again}"
        )
    if fingerprint != dataset.fingerprint:
        raise DataError(f"{folder}: was measured on another state of this data set (stale); {again}")
    for name, array, dtype, shape in (
        (_VALUES_FILE, values, np.float32, (dataset.index.num_records, len(names))),
        (_REASONS_FILE, reasons, np.int32, (dataset.index.num_records,)),
    ):
        if array.dtype != dtype or array.shape != shape:
            raise DataError(
                f"{folder / name}: holds {array.dtype}{list(array.shape)} where {np.dtype(dtype)}{list(shape)} belongs "
                f"(damaged); {again}"
            )
    return Physiology(names=names, units=units, values=values, reasons=reasons, card=card)


def measure_dataset(
    directory: Path | str,
    *,
    num_workers: int,
    definition: Definition = BEATS,
    progress: Callable[[int], None] = lambda num_records: None,
    records_per_chunk: int = RECORDS_PER_CHUNK,
) -> bool:
    """Measures every record of a prepared data set into the definition's folder, unless valid measurements are there.

    What is measured is kept chunk by chunk in `DIR/FOLDER.building`: a run after an interrupted one goes on from
    there, and ends with the same bytes as one that was never interrupted, whatever the numbers of workers.

    Args:
        directory: Directory of the data set.
        num_workers: Number of processes that measure.
        definition: Form of the measurements.
        progress: Function that is called with the number of records that were done since its last call, those of an
            interrupted run included.
        records_per_chunk: Number of records that are stored together; a run that asks for another number starts anew.

    Returns:
        Whether anything was measured.

    Raises:
        DataError: The data set is damaged, what is in the folder is stale or damaged, another process is measuring, or
            a worker died.
    """
    dataset = open_dataset(directory)
    folder, staging = dataset.directory / definition.folder, physiology_staging(dataset.directory, definition)
    if folder.exists():
        open_physiology(dataset, definition)
        return False
    with exclusive_staging(staging, resume=True):
        if folder.exists():  # Another process has just finished.
            return False
        chunks = _chunks_for(dataset, definition, staging, records_per_chunk)
        compute_rest(
            chunks,
            functools.partial(_measure_records, dataset.directory, dataset.fingerprint, definition.name),
            records_per_task=_RECORDS_PER_TASK,
            num_workers=num_workers,
            progress=progress,
        )
        making = staging / definition.folder
        _assemble(dataset, definition, chunks, making)
        publish(making, folder, retired=staging / "replaced")
    return True


def physiology_staging(directory: Path, definition: Definition = BEATS) -> Path:
    """Returns the directory in which measurements are gathered until they are whole."""
    return directory / f"{definition.folder}.building"


def _chunks_for(dataset: Dataset, definition: Definition, staging: Path, records_per_chunk: int) -> list[KeptChunk]:
    """Returns the chunks of a data set, and clears the staging directory if it is of another data set or version.

    Args:
        dataset: Data set to measure.
        definition: Form of the measurements.
        staging: Directory in which measurements are gathered.
        records_per_chunk: Number of records of every chunk but the last.
    """
    begin_or_go_on(staging, _versions(dataset, definition) | {"records_per_chunk": records_per_chunk})
    shutil.rmtree(staging / definition.folder, ignore_errors=True)
    return chunks_of(
        staging,
        num_records=dataset.index.num_records,
        records_per_chunk=records_per_chunk,
        names=("values", "reasons"),
    )


def _measure_records(
    directory: Path, fingerprint: str, definition_name: str, records: range
) -> tuple[np.ndarray, np.ndarray]:
    """Reads and measures records; returns their values, `f32[n, measurements]`, and reasons, `int32[n]`.

    Args:
        directory: Directory of the data set.
        fingerprint: Fingerprint of the data set.
        definition_name: Name of the form of the measurements; functions may not be pickled.
        records: Record numbers.
    """
    dataset, store = opened_once(directory, fingerprint)
    definition = DEFINITIONS[definition_name]
    values = np.full((len(records), len(definition.names)), math.nan, np.float32)
    reasons = np.zeros(len(records), np.int32)
    signals = store.read(np.array(records))
    for row, (record, signal) in enumerate(zip(records, signals, strict=True)):
        start = int(dataset.index.valid_start[record])
        recorded = signal[start : start + int(dataset.index.valid_samples[record])]
        values[row], reasons[row] = definition.measure(recorded, sampling_rate_hz=dataset.format.sampling_rate_hz)
    return values, reasons


def _assemble(dataset: Dataset, definition: Definition, chunks: list[KeptChunk], folder: Path) -> None:
    num_records, names = dataset.index.num_records, definition.names
    folder.mkdir()
    reasons = np.empty(num_records, np.int32)
    missing = np.zeros(len(names), np.int64)

    def values() -> Iterator[np.ndarray]:
        for chunk in chunks:
            of_chunk, reasons[chunk.records.start : chunk.records.stop] = chunk.reload()
            missing[:] += np.isnan(of_chunk).sum(axis=0)
            yield of_chunk

    write_npy(folder / _VALUES_FILE, values(), dtype=np.dtype(np.float32), shape=(num_records, len(names)))
    write_npy(folder / _REASONS_FILE, [reasons], dtype=reasons.dtype, shape=reasons.shape)
    card = _versions(dataset, definition) | {
        "names": list(names),
        "units": list(definition.units.values()),
        "num_records": num_records,
        "num_unusable": int(np.count_nonzero(reasons & definition.unusable)),
        "reasons": {name: int(np.count_nonzero(reasons & bit)) for name, bit in definition.reasons.items()},
        "missing": dict(zip(names, missing.tolist(), strict=True)),
    }
    (folder / PHYSIOLOGY_FILE).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    write_digests(folder, sorted(PHYSIOLOGY_FILES))


def _versions(dataset: Dataset, definition: Definition) -> dict[str, Any]:
    return {
        "version": definition.version,
        "fingerprint": dataset.fingerprint,
        "written_with": {package: version(package) for package in ("neurokit2", "numpy", "scipy")},
    }
