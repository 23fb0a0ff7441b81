"""The store on a packed copy: plain `.npy` shards, memory-mapped, read at the speed of memory.

DIR/packed/
packed.json         layout version, fingerprint of the data set, and of each shard its name, records, size and BLAKE2b
00000.npy …         int16[records, time, 8]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from data_pipelines.array_record_store import checked_numbers, checked_out
from data_pipelines.dataset import Dataset
from data_pipelines.errors import DataError
from data_pipelines.records import LAYOUT_VERSION, content_hash

#: Folder of the packed copy inside a data set, and its table of contents, written last.
PACKED_DIR = "packed"
PACKED_FILE = "packed.json"

#: Up to this many bytes the hash of every shard is checked on opening; above, single records are.
FULL_CHECK_BYTES = 2 * 2**30

_NUM_SPOT_CHECKS = 64
_HASH_BLOCK_BYTES = 2**24


class PackedStore:
    """Reads records of a packed copy."""

    kind = "packed"
    num_threads = 2

    def __init__(self, dataset: Dataset, *, verify: bool = False):
        """Opens and checks the packed copy of a data set.

        Args:
            dataset: whose copy.
            verify: check the hash of every shard whatever its size.

        Raises:
            DataError: there is no packed copy, or it is of another data set, truncated or damaged.
        """
        folder = dataset.directory / PACKED_DIR
        self._shards, num_bytes = _open_shards(folder, dataset)
        self.shape = dataset.format.shape
        self._bounds = np.concatenate([[0], np.cumsum([len(shard) for shard in self._shards])])
        self.num_records = int(self._bounds[-1])
        if verify or num_bytes <= FULL_CHECK_BYTES:
            verify_shards(folder)
        else:
            self._spot_check(dataset, folder)

    def read(self, record_numbers: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Reads signals; see `data_pipelines.store.Store.read`."""
        numbers = checked_numbers(record_numbers, self.num_records)
        signals = checked_out(out, (len(numbers), *self.shape))
        shard_of = np.searchsorted(self._bounds, numbers, side="right") - 1
        in_shard = numbers - self._bounds[shard_of]
        if len(self._shards) == 1 or (len(numbers) and (shard_of == shard_of[0]).all()):
            # All in one call that lets other threads run, twice as fast; clipping is what makes NumPy write straight
            # into `out`, and the numbers have been checked.
            np.take(self._shards[shard_of[0] if len(numbers) else 0], in_shard, axis=0, out=signals, mode="clip")
        else:
            for row, (shard, position) in enumerate(zip(shard_of.tolist(), in_shard.tolist(), strict=True)):
                signals[row] = self._shards[shard][position]
        return signals

    def _spot_check(self, dataset: Dataset, folder: Path) -> None:
        numbers = np.unique(np.linspace(0, self.num_records - 1, _NUM_SPOT_CHECKS).astype(np.int64))
        for number, signal in zip(numbers.tolist(), self.read(numbers), strict=True):
            if content_hash(signal) != dataset.index.content_hash[number].tobytes():
                raise DataError(f"{folder}: record {number} differs from the data set's; {remedy(folder)}")


def remedy(folder: Path) -> str:
    """Returns what to do about a bad packed copy."""
    return f"remove {folder} and make it again with python -m data_pipelines.pack --dataset={folder.parent}"


def read_contents(folder: Path) -> dict[str, Any]:
    """Reads the table of contents of a packed copy.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / PACKED_FILE
    if not folder.exists():
        raise DataError(
            f"{folder}: there is no packed copy; make it with python -m data_pipelines.pack --dataset={folder.parent}, "
            "or read the ArrayRecord shards"
        )
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        for shard in contents["shards"]:
            shard["name"], shard["num_records"], shard["num_bytes"], shard["blake2b"]
        contents["layout_version"], contents["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); {remedy(folder)}") from error
    return contents


def new_digest() -> hashlib.blake2b:
    """Returns a fresh digest of the kind that shards are hashed with."""
    return hashlib.blake2b(digest_size=32)


def file_hash(path: Path, progress: Callable[[int], None] = lambda num_bytes: None) -> str:
    """Returns the BLAKE2b hex digest of a file, telling `progress` of every block's size."""
    digest = new_digest()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def verify_shards(folder: Path, progress: Callable[[int], None] = lambda num_bytes: None) -> None:
    """Checks the hash of every shard of a packed copy.

    Raises:
        DataError: one differs.
    """
    for shard in read_contents(folder)["shards"]:
        path = folder / shard["name"]
        if file_hash(path, progress) != shard["blake2b"]:
            raise DataError(f"{path}: its contents have changed since it was made (damaged); {remedy(folder)}")


def _open_shards(folder: Path, dataset: Dataset) -> tuple[list[np.ndarray], int]:
    contents = read_contents(folder)
    if contents["layout_version"] != LAYOUT_VERSION or contents["fingerprint"] != dataset.fingerprint:
        raise DataError(
            f"{folder}: this packed copy was made of another data set (fingerprint {contents['fingerprint']}, the "
            f"data set here has {dataset.fingerprint}); {remedy(folder)}"
        )
    shards = [_open_shard(folder, shard, dataset.format.shape) for shard in contents["shards"]]
    num_records = sum(map(len, shards))
    if num_records != dataset.index.num_records:
        raise DataError(
            f"{folder}: holds {num_records} records, the data set {dataset.index.num_records}; {remedy(folder)}"
        )
    return shards, sum(shard["num_bytes"] for shard in contents["shards"])


def _open_shard(folder: Path, shard: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    path = folder / shard["name"]
    try:
        num_bytes = path.stat().st_size
        signals = open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); {remedy(folder)}") from error
    expected = (shard["num_records"], *shape)
    if num_bytes != shard["num_bytes"] or signals.dtype != np.dtype("<i2") or signals.shape != expected:
        raise DataError(
            f"{path}: is {signals.dtype}{signals.shape} in {num_bytes} bytes, not int16{expected} in "
            f"{shard['num_bytes']} as it was made; {remedy(folder)}"
        )
    # A plain array on the same map: slicing np.memmap costs microseconds a time.
    return signals.view(np.ndarray)
