"""Makes the index of a data set from the parts of its shards, column by column.

Memory holds one shard of one column at a time and, for all records, some numbers of eight bytes and at most two of the
keys of sixteen: under 200 bytes per record (docs/speed.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared import index
from data_pipelines.records import LabelSchema
from data_pipelines.shards.parts import ShardPart, by_shard
from data_pipelines.shards.readback import PATIENT_KEY, RECORD_KEY, RECORDING_KEY
from data_pipelines.system.npy_files import write_npy

# Columns that depend on all records together.
_DERIVED = ("patient", "group", "duplicate_of", "recording")


def merge_parts(
    parts: Sequence[ShardPart], folder: Path, *, schema: LabelSchema, flags: np.ndarray | None = None
) -> index.Index:
    """Writes the index of a data set whose shards are all finished, and opens it.

    Args:
        parts: Parts of all shards, in stored order, with at least one record.
        folder: Folder of the index, which must not exist.
        schema: Names of the labels.
        flags: Quality flags that depend on all records together, `int32[n]`.

    Returns:
        The index, memory-mapped.

    Raises:
        DataError: Two records have the same id.
    """
    folder.mkdir()
    _check_unique(parts)
    for name, kind in {**index.COLUMNS, **index.LATER_COLUMNS}.items():
        if name == "quality" and flags is not None:
            index.save_column(folder, name, gathered(parts, name) | flags.astype(kind))
        elif name not in _DERIVED:
            _merge(parts, folder, name, dtype=_dtype(parts, name, kind), shape=index.column_shape(name))
    for position in range(len(schema.scalars)):
        _merge(parts, folder, index.scalar_column(position), dtype=np.dtype(np.float32))
    for position, classes in enumerate(schema.tasks.values()):
        _merge(parts, folder, index.task_column(position), dtype=np.dtype(np.int8), shape=(len(classes),))
    content_hash = gathered(parts, "content_hash")
    index.save_column(folder, "duplicate_of", index.duplicates(content_hash))
    index.save_column(folder, "recording", index.key_codes(gathered(parts, RECORDING_KEY)))
    patient = index.key_codes(gathered(parts, PATIENT_KEY))
    index.save_column(folder, "patient", patient)
    index.save_column(folder, "group", index.groups(patient, content_hash))
    index.save_contents(folder, num_records=_bounds(parts)[-1], scalars=schema.scalars, tasks=schema.tasks)
    return index.open_index(folder)


def _dtype(parts: Sequence[ShardPart], name: str, kind: str) -> np.dtype:
    # Every shard has texts as wide as its own widest, and the whole column one width.
    return np.dtype(kind if kind != "<U" else f"<U{max(part.text_widths[name] for part in parts)}")


def _merge(parts: Sequence[ShardPart], into: Path, name: str, *, dtype: np.dtype, shape: tuple[int, ...] = ()) -> None:
    pieces = (part.column(name) for part in parts)
    write_npy(into / f"{name}.npy", pieces, dtype=dtype, shape=(_bounds(parts)[-1], *shape))


def gathered(parts: Sequence[ShardPart], name: str) -> np.ndarray:
    """Returns a column of all records in memory, `[n, …]`.

    Args:
        parts: Parts of all shards, in stored order.
        name: Name of the column.
    """
    bounds = _bounds(parts)
    values: np.ndarray | None = None
    for part, start, stop in zip(parts, bounds, bounds[1:], strict=False):
        piece = part.column(name)
        if values is None:
            values = np.empty((bounds[-1], *piece.shape[1:]), piece.dtype)
        values[start:stop] = piece
    return np.empty(0) if values is None else values


def _bounds(parts: Sequence[ShardPart]) -> list[int]:
    return list(itertools.accumulate((part.num_stored for part in parts), initial=0))


def _check_unique(parts: Sequence[ShardPart]) -> None:
    repeated = np.flatnonzero(index.duplicates(gathered(parts, RECORD_KEY)) != index.NOT_A_DUPLICATE)
    for shard, _, positions in by_shard(parts, repeated[:1]):
        first = parts[shard].column("record_id")[positions[0]]
        raise DataError(
            f"{len(repeated)} record ids come more than once, first '{first}'; "
            "the source lists a recording twice: remove the repetition"
        )
