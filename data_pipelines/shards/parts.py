"""Parts of a build: for every finished shard, a file with the shard's columns of the index and its remarks."""

from __future__ import annotations

import dataclasses
import json
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.builders.base import Quarantined
from data_pipelines.prepared.remarks import RecordRemark, packed_remarks, unpacked_remarks
from data_pipelines.system.atomic_directory import sync, written_whole
from data_pipelines.system.npy_files import write_npz

#: Version of the kept contents and of the judging of quality; if it has changed, shards are made again.
PART_VERSION = 4

_HEADER, _REMARKS = "header", "remarks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPart:
    """The facts of a finished shard.

    Attributes:
        path: Path of the file that holds the part.
        key: Digest of everything that the shard was made from, besides the recordings.
        num_stored: Number of records in the shard.
        num_bytes: Size of the shard's file in bytes.
        digest: Digest of the shard's file by `digests.file_digest`.
        text_widths: Number of characters of the longest value of each text column.
        quarantined: Recordings that could not be stored, in order.
        origins: Origins of the shard's records, which the column `origin` refers to by position.
    """

    path: Path
    key: str
    num_stored: int
    num_bytes: int
    digest: str
    text_widths: Mapping[str, int]
    quarantined: tuple[Quarantined, ...]
    origins: tuple[str, ...] = ()

    def column(self, name: str) -> np.ndarray:
        """Reads one column of the shard, `[num_stored, …]`."""
        with np.load(self.path, allow_pickle=False) as kept:
            return kept[name]

    def remarks(self) -> list[RecordRemark]:
        """Reads the remarks on the shard's records."""
        return unpacked_remarks(self.column(_REMARKS))


def by_shard(parts: Sequence[ShardPart], numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields every shard that holds some of the records, with their numbers and their positions in the shard.

    Args:
        parts: Parts of all shards, in stored order.
        numbers: Record numbers, `int64[n]`.
    """
    bounds = np.cumsum([0, *(part.num_stored for part in parts)])
    shard_of = np.searchsorted(bounds, numbers, side="right") - 1
    for shard in np.unique(shard_of).tolist():
        inside = numbers[shard_of == shard]
        yield shard, inside, inside - bounds[shard]


def save_part(
    part: ShardPart, columns: Mapping[str, np.ndarray], *, remarks: Sequence[RecordRemark], unfinished: Path
) -> None:
    """Writes a part to its file, completely or not at all.

    Args:
        part: Part to write, to `part.path`.
        columns: Columns of the shard's records.
        remarks: Remarks on the shard's records.
        unfinished: Folder on the same file system, for writing.
    """
    header = dataclasses.asdict(part)
    del header["path"]
    header_bytes = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with written_whole(part.path, making=unfinished / f"{part.path.name}-{uuid.uuid4().hex}") as file:
        write_npz(file, {_HEADER: header_bytes, _REMARKS: packed_remarks(remarks), **columns}, compressed=False)
    sync(part.path.parent)


def load_part(path: Path) -> ShardPart | None:
    """Returns the part at a path, or None if there is none that can be read."""
    try:
        # NumPy does not close a file that it opened itself and found to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            header = json.loads(kept[_HEADER].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    quarantined = tuple(Quarantined(**entry) for entry in header.pop("quarantined"))
    origins = tuple(header.pop("origins", ()))
    return ShardPart(path=path, quarantined=quarantined, origins=origins, **header)
