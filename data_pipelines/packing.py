"""Makes the packed copy of a data set (`packed_store.py`) from its ArrayRecord shards, all or nothing."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.array_record_store import ArrayRecordStore
from data_pipelines.dataset import Dataset
from data_pipelines.errors import DataError
from data_pipelines.packed_store import PACKED_DIR, PACKED_FILE, PackedStore, file_hash, new_digest
from data_pipelines.records import LAYOUT_VERSION, content_hash
from data_pipelines.staging import exclusive_staging, publish

#: Upper bound of a shard's size: small enough to move, large enough that there are few.
SHARD_BYTES = 2**30

#: Left free on the disk beyond what is written.
_SPARE_BYTES = 2**28

_RECORDS_PER_READ = 256


def pack(
    dataset: Dataset,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda num_records: None,
) -> bool:
    """Makes the packed copy of a data set at `DIR/packed`, unless a good one is there.

    Args:
        dataset: whose copy.
        shard_bytes: largest size of a shard.
        progress: told of every number of records written.

    Returns:
        Whether a copy was made.

    Raises:
        DataError: the disk is too full, a shard is damaged, what is at `DIR/packed` is stale or damaged, or another
            process is packing.
    """
    folder = dataset.directory / PACKED_DIR
    staging = packed_staging(dataset.directory)
    if folder.exists():
        PackedStore(dataset, verify=True)
        return False
    _check_free_space(dataset, staging)
    with exclusive_staging(staging):
        making = staging / PACKED_DIR
        making.mkdir()
        try:
            shards = _write_shards(dataset, making, shard_bytes, progress)
        except BaseException:
            shutil.rmtree(making)  # Gigabytes that nobody can use.
            raise
        contents = {"layout_version": LAYOUT_VERSION, "fingerprint": dataset.fingerprint, "shards": shards}
        (making / PACKED_FILE).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
        publish(making, folder, retired=staging / "replaced")
    return True


def packed_staging(directory: Path) -> Path:
    """Returns where a packed copy is made until it is whole."""
    return directory / f"{PACKED_DIR}.building"


def _record_bytes(dataset: Dataset) -> int:
    return math.prod(dataset.format.shape) * np.dtype(np.int16).itemsize


def _check_free_space(dataset: Dataset, staging: Path) -> None:
    needed = dataset.index.num_records * _record_bytes(dataset) + _SPARE_BYTES
    # An interrupted run's leftover is removed before anything is written.
    reclaimed = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    free = shutil.disk_usage(dataset.directory).free + reclaimed
    if free < needed:
        raise DataError(
            f"{dataset.directory}: the packed copy needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; make "
            "room, move the data set to a larger disk, or read the ArrayRecord shards, which needs no copy"
        )


def _write_shards(
    dataset: Dataset, folder: Path, shard_bytes: int, progress: Callable[[int], None]
) -> list[dict[str, Any]]:
    store = ArrayRecordStore(dataset)
    per_shard = max(1, shard_bytes // _record_bytes(dataset))
    shards = []
    for number, start in enumerate(range(0, store.num_records, per_shard)):
        path = folder / f"{number:05d}.npy"
        stop = min(start + per_shard, store.num_records)
        written = _write_shard(dataset, store, path, range(start, stop), progress)
        if file_hash(path) != written:
            raise DataError(f"{path}: does not read back as it was written; check the disk, then pack again")
        shards.append(
            {"name": path.name, "num_records": stop - start, "num_bytes": path.stat().st_size, "blake2b": written}
        )
    return shards


def _write_shard(
    dataset: Dataset, store: ArrayRecordStore, path: Path, records: range, progress: Callable[[int], None]
) -> str:
    digest = new_digest()
    with path.open("xb") as file:
        header = _npy_header((len(records), *dataset.format.shape))
        digest.update(header)
        file.write(header)
        for start in range(records.start, records.stop, _RECORDS_PER_READ):
            numbers = np.arange(start, min(start + _RECORDS_PER_READ, records.stop))
            signals = store.read(numbers).astype("<i2", copy=False)
            _check_contents(dataset, numbers, signals)
            digest.update(signals)
            file.write(signals)
            progress(len(numbers))
    return digest.hexdigest()


def _check_contents(dataset: Dataset, numbers: np.ndarray, signals: np.ndarray) -> None:
    for number, signal in zip(numbers.tolist(), signals, strict=True):
        if content_hash(signal) != dataset.index.content_hash[number].tobytes():
            raise DataError(
                f"{dataset.directory}: record {number} ('{dataset.index.record_id[number]}') is not what the index "
                "says; build the data set again with --overwrite"
            )


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": shape})
    return header.getvalue()
