"""What a build keeps of a finished shard beside the shard: its columns of the index, and what is told of them."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.builders.base import Quarantined
from data_pipelines.prepared.remarks import RecordRemark, packed_remarks, unpacked_remarks
from data_pipelines.system.atomic_directory import sync
from data_pipelines.system.npy_files import write_npz

#: Version of what is kept of a shard, and of how quality is judged: with another, shards are made again.
PART_VERSION = 4

_HEADER, _REMARKS = "header", "remarks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPart:
    """A finished shard.

    Attributes:
        path: the file that keeps all this.
        key: digest of everything that the shard was made from, beside the recordings.
        num_stored: records in the shard.
        num_bytes: size of the shard's file.
        digest: of the shard's file, as `digests.file_digest` has it.
        text_widths: characters of the longest value of each column of texts.
        quarantined: recordings that could not be stored, in order.
        origins: origins of its records, which the column `origin` numbers.
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
        """Reads one column, `[num_stored, …]`."""
        with np.load(self.path, allow_pickle=False) as kept:
            return kept[name]

    def remarks(self) -> list[RecordRemark]:
        """Reads what is to be told of the shard's records."""
        return unpacked_remarks(self.column(_REMARKS))


def save_part(
    part: ShardPart, columns: Mapping[str, np.ndarray], *, remarks: Sequence[RecordRemark], unfinished: Path
) -> None:
    """Keeps a part, wholly or not at all.

    Args:
        part: what to keep, at `part.path`.
        columns: of the shard's records.
        remarks: what is to be told of these.
        unfinished: folder on the same file system, to write in.
    """
    header = dataclasses.asdict(part)
    del header["path"]
    header_bytes = np.frombuffer(json.dumps(header).encode(), np.uint8)
    making = unfinished / f"{part.path.name}-{uuid.uuid4().hex}"
    with making.open("wb") as file:
        write_npz(file, {_HEADER: header_bytes, _REMARKS: packed_remarks(remarks), **columns}, compressed=False)
        file.flush()
        os.fsync(file.fileno())
    making.rename(part.path)
    sync(part.path.parent)


def load_part(path: Path) -> ShardPart | None:
    """Returns the part kept at a path, or None where there is none that can be read."""
    try:
        # NumPy leaves a file that it opened itself, and finds to be damaged, open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            header = json.loads(kept[_HEADER].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    quarantined = tuple(Quarantined(**entry) for entry in header.pop("quarantined"))
    origins = tuple(header.pop("origins", ()))
    return ShardPart(path=path, quarantined=quarantined, origins=origins, **header)
