"""Defines the packed copy of a data set on disk: plain `.npy` shards that can be mapped one behind the other.

DIR/packed/
packed.json         layout version, fingerprint of the data set, and of each shard its name, records, size and BLAKE2b
00000.npy …         int16[records, time, 8] behind a header of one memory page
record_numbers.npy  int32[records], the record number at every place (`stored_order.py`); only in a shuffled copy
SHA256SUMS          digests of packed.json and record_numbers.npy

The records lie behind each other by number, or, in a shuffled copy, with their patients in a random order
(`packing/patient_order.py`). All shards but the last fill whole memory pages, so that all can be mapped into one range
of addresses (`joined_map.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.records import LAYOUT_VERSION, SignalFormat
from data_pipelines.storage.bad_shards import BadShard
from data_pipelines.storage.stored_order import ORDER_FILE
from data_pipelines.system.digests import hex_digest
from data_pipelines.system.plain_names import files_below, why_elsewhere

#: Folder of the packed copy inside a data set, and its table of contents, which is written last.
PACKED_DIR = "packed"
PACKED_FILE = "packed.json"

#: Layout version of a shuffled copy. It is none of a data set's, so that an ecgjax that knows no such copies, and would
#: take each record for another one, refuses it.
SHUFFLED_LAYOUT_VERSION = 3

#: Upper bound of a shard's size, small enough for a shard to be moved and large enough for there to be few.
SHARD_BYTES = 2**30

#: Size to whole multiples of which shards are filled up: the memory page of most systems.
PAGE_BYTES = 4096

_MOST_THREADS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedShard:
    """Entry of one shard in the table of contents.

    Attributes:
        name: Name of the file.
        num_records: Number of records in it.
        num_bytes: Size of the file.
        blake2b: Hexadecimal digest of the whole file.
    """

    name: str
    num_records: int
    num_bytes: int
    blake2b: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatientShuffle:
    """Entry of the order of a shuffled copy in the table of contents.

    Attributes:
        file: Name of the file with the record number at every place.
        seed: Seed of the order of patients.
    """

    file: str
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Table of contents of a packed copy.

    Attributes:
        shards: Entries of the shards, in stored order.
        shuffle: Entry of the order of patients; None where the records lie by number.
    """

    shards: tuple[PackedShard, ...]
    shuffle: PatientShuffle | None = None

    @property
    def seed(self) -> int | None:
        """Seed of the order of patients; None where the records lie by number."""
        return None if self.shuffle is None else self.shuffle.seed


def record_bytes(signal_format: SignalFormat) -> int:
    """Returns the size of a stored signal in bytes."""
    return math.prod(signal_format.shape) * np.dtype(np.int16).itemsize


def shard_name(number: int) -> str:
    """Returns the file name of a shard."""
    return f"{number:05d}.npy"


def shard_spans(num_records: int, *, bytes_per_record: int, shard_bytes: int = SHARD_BYTES) -> list[range]:
    """Returns the places of every shard's records: as many per shard as fit, in whole memory pages.

    Args:
        num_records: Number of records of the data set.
        bytes_per_record: Size of a record in the data set's format.
        shard_bytes: Largest size of a shard, as far as whole pages allow.
    """
    unit = PAGE_BYTES // math.gcd(PAGE_BYTES, bytes_per_record)
    per_shard = max(1, shard_bytes // bytes_per_record // unit) * unit
    return [range(start, min(start + per_shard, num_records)) for start in range(0, num_records, per_shard)]


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Returns the header of an int16 `.npy` file, padded with spaces to one memory page, as the format allows."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": shape})
    magic_bytes, length_bytes = 8, 2
    text = header.getvalue()[magic_bytes + length_bytes :].rstrip()
    text = text.ljust(PAGE_BYTES - magic_bytes - length_bytes - 1) + b"\n"
    return header.getvalue()[:magic_bytes] + len(text).to_bytes(length_bytes, "little") + text


def stage_flags(seed: int | None) -> str:
    """Returns the flags of `data_pipelines.stage` that ask for an order, with a space before them; "" for none.

    Args:
        seed: Seed of the order of patients; None for records that lie by number.
    """
    return "" if seed is None else f" --shuffle_patients --seed={seed}"


def remedy(folder: Path, *, seed: int | None = None) -> str:
    """Returns advice on a bad packed copy, for messages.

    Args:
        folder: Folder of the copy.
        seed: Seed of the order of its patients; None where its records lie by number, or nothing is known of it.
    """
    command = f"python -m data_pipelines.stage --dataset={folder.parent}{stage_flags(seed)}"
    return f"remove {folder} and make it again with {command}"


def write_contents(folder: Path, *, fingerprint: str, shards: Iterable[PackedShard], seed: int | None = None) -> None:
    """Writes the table of contents of a packed copy, which marks the copy as finished.

    Args:
        folder: Folder of the copy.
        fingerprint: Fingerprint of the data set.
        shards: Entries of the shards, in stored order.
        seed: Seed of the order of patients; None where the records lie by number.
    """
    contents: dict[str, Any] = {"layout_version": LAYOUT_VERSION, "fingerprint": fingerprint}
    if seed is not None:
        order = PatientShuffle(file=ORDER_FILE, seed=seed)
        contents |= {"layout_version": SHUFFLED_LAYOUT_VERSION, "patients_shuffled": dataclasses.asdict(order)}
    contents["shards"] = [dataclasses.asdict(shard) for shard in shards]
    (folder / PACKED_FILE).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def read_contents(folder: Path, *, fingerprint: str, num_records: int) -> Contents:
    """Reads the table of contents of a packed copy.

    Args:
        folder: Folder of the copy.
        fingerprint: Fingerprint of the data set.
        num_records: Number of records of the data set.

    Raises:
        DataError: There is no table, it is damaged, of another layout, or the copy was made of another data set.
    """
    path = folder / PACKED_FILE
    if not folder.exists():
        raise DataError(
            f"{folder}: there is no packed copy; make it with python -m data_pipelines.stage "
            f"--dataset={folder.parent}, or read the ArrayRecord shards"
        )
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        version, found = contents["layout_version"], contents["fingerprint"]
        shards = tuple(PackedShard(**shard) for shard in contents["shards"])
        shuffle = PatientShuffle(**contents["patients_shuffled"]) if version == SHUFFLED_LAYOUT_VERSION else None
        if version == LAYOUT_VERSION and "patients_shuffled" in contents:
            raise ValueError(f"layout version {version} has no shuffled patients")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); {remedy(folder)}") from error
    if version not in (LAYOUT_VERSION, SHUFFLED_LAYOUT_VERSION):
        raise DataError(
            f"{folder}: this packed copy has layout version {version!r}, this ecgjax reads {LAYOUT_VERSION} and "
            f"{SHUFFLED_LAYOUT_VERSION}; {remedy(folder)}"
        )
    if found != fingerprint:
        raise DataError(
            f"{folder}: this packed copy was made of another data set (fingerprint {found}, the data set here has "
            f"{fingerprint}); {remedy(folder)}"
        )
    counts = [count for shard in shards for count in (shard.num_records, shard.num_bytes)]
    # To isinstance, true and false would be whole numbers too.
    if not all(type(count) is int and count >= 0 for count in (*counts, *([shuffle.seed] if shuffle else []))):
        raise DataError(f"{path}: damaged (sizes of shards or a seed that are none); {remedy(folder)}")
    if (held := sum(shard.num_records for shard in shards)) != num_records:
        raise DataError(f"{folder}: holds {held} records, the data set {num_records}; {remedy(folder)}")
    names = [*(shard.name for shard in shards), *([shuffle.file] if shuffle else [])]
    files_below(folder, names, source=path)
    return Contents(shards=shards, shuffle=shuffle)


def new_digest() -> hashlib.blake2b:
    """Returns a new BLAKE2b hash object, with which shards are hashed."""
    return hashlib.blake2b(digest_size=32)


def file_hash(path: Path, progress: Callable[[int], None] = lambda num_bytes: None) -> str:
    """Returns the BLAKE2b digest of a file in hexadecimal; `progress` is called with the size of every block."""
    return hex_digest(new_digest(), path, progress)


def find_bad_shards(
    folder: Path, shards: Sequence[PackedShard], *, shape: tuple[int, int], hashes: bool
) -> list[BadShard]:
    """Returns the shards of a packed copy that are missing, have another size or shape, or are damaged.

    Args:
        folder: Folder of the copy.
        shards: Entries of the shards in the table of contents.
        shape: Shape `(time, lead)` of a record.
        hashes: Whether every shard is read whole and its hash compared.
    """

    def why_misshapen(shard: PackedShard) -> str | None:
        try:
            return why_elsewhere(folder / shard.name) or _wrong_shape(folder / shard.name, shard, shape)
        except (OSError, ValueError) as error:
            return f"missing or damaged ({error})"

    def why_changed(shard: PackedShard, misshapen: str | None) -> str | None:
        if misshapen is not None:
            return misshapen
        try:
            same = file_hash(folder / shard.name) == shard.blake2b
        except OSError as error:
            return f"cannot be read ({error})"
        return None if same else "its contents have changed since it was made (damaged)"

    # Headers are read in turn: NumPy parses them as Python, and Python 3.11's parser fails now and then in several
    # threads.
    reasons = [why_misshapen(shard) for shard in shards]
    if hashes:
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
            reasons = list(threads.map(why_changed, shards, reasons))
    starts = np.cumsum([0, *(shard.num_records for shard in shards)]).tolist()
    return [
        BadShard(path=folder / shard.name, start=start, stop=start + shard.num_records, reason=reason)
        for shard, start, reason in zip(shards, starts[:-1], reasons, strict=True)
        if reason is not None
    ]


def data_offset(path: Path) -> int:
    """Returns the position of the first sample in a shard's file."""
    with path.open("rb") as file:
        return _read_header(file)[2]


def _wrong_shape(path: Path, shard: PackedShard, shape: tuple[int, int]) -> str | None:
    with path.open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        found, dtype, offset = _read_header(file)
    expected = (shard.num_records, *shape)
    samples_bytes = math.prod(expected) * np.dtype(np.int16).itemsize
    if (num_bytes, dtype, found, offset) == (shard.num_bytes, np.dtype("<i2"), expected, num_bytes - samples_bytes):
        return None
    return f"is {dtype}{found} in {num_bytes} bytes, not int16{expected} in {shard.num_bytes} as it was made"


def _read_header(file: io.BufferedReader) -> tuple[tuple[int, ...], np.dtype, int]:
    """Returns shape, dtype and the position of the data in bytes; raises `ValueError` for an unsupported header."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not version 1.0 of the .npy format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran:
        raise ValueError("in Fortran order")
    return shape, dtype, file.tell()
