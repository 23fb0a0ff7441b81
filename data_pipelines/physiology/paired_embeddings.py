"""Reads embeddings of another modality (reports, echocardiograms, cardiac MR) of the recordings of a data set.

The embeddings are made elsewhere, by a language model for instance, and given as a folder of two files that any program
can write: `embedding.npy`, `f16` or `f32[m, dim]`, and `record_id.npy`, `str[m]`, the recording that each row belongs
to. An embedding is called the partner of its recording; equal rows (one report that many recordings share) are one
partner.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError

# So many rows of a memory map are processed at a time.
_ROWS = 1 << 14


class PairedEmbeddings:
    """Embeddings that are the partners of recordings, indexed by record number, `f32[n, dim]`; read batch by batch.

    Args:
        values: Embeddings of every file, `[m, dim]`; memory-mapped, so that a million partners do not fill every
            process's memory.
        place: Row of every record in the concatenation of `values`, `int64[n]`; −1 for recordings without a partner.
        content: Digest of `values`, as hexadecimal text.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, values: Sequence[np.ndarray], place: np.ndarray, *, content: str):
        self._values, self._place, self._content = values, place, content
        self._starts = np.cumsum([0, *(len(part) for part in values)])
        self.shape = (len(place), values[0].shape[1])

    def __len__(self) -> int:
        return len(self._place)

    @property
    def digest(self) -> str:
        """Digest of all partners and of their assignment to records."""
        return hashlib.blake2b(self._content.encode() + self._place.tobytes(), digest_size=16).hexdigest()

    def __getitem__(self, records: np.ndarray) -> np.ndarray:
        """Returns the partners of records, `f32[..., dim]`; zeros for records without one.

        Args:
            records: Record numbers, `int64[...]`.
        """
        place = self._place[records]
        out = np.zeros((*place.shape, self.shape[1]), np.float32)
        for start, part in zip(self._starts, self._values, strict=False):
            here = (place >= start) & (place < start + len(part))
            out[here] = part[place[here] - start]
        return out


def open_paired(
    directories: Sequence[str | Path], record_ids: Sequence[np.ndarray]
) -> tuple[PairedEmbeddings, np.ndarray]:
    """Opens the partners of one data set, or of several whose record numbers run on.

    Args:
        directories: Folders of embeddings, one for every data set.
        record_ids: Record ids of the data sets, `str[n]` each.

    Returns:
        The partners, and for every record the number of its group of equal partners, `i32[n]`; −1 without a partner.

    Raises:
        DataError: A file is missing or malformed, names a recording twice or none of the data set's, holds values that
            are not finite, or the data sets' partners differ in dimension.
    """
    opened = [_open(Path(directory), ids) for directory, ids in zip(directories, record_ids, strict=True)]
    values = [values for values, _ in opened]
    if len({part.shape[1] for part in values}) > 1:
        shapes = ", ".join(f"{directory}: {part.shape[1]}" for directory, part in zip(directories, values, strict=True))
        raise DataError(f"partners must have one dimension in all data sets, they have {shapes}")
    starts = np.cumsum([0, *(len(part) for part in values)])
    places = [np.where(rows >= 0, rows + start, -1) for start, (_, rows) in zip(starts, opened, strict=False)]
    place = np.concatenate(places)
    groups, content = _groups(values)
    return PairedEmbeddings(values, place, content=content), np.where(place >= 0, groups[place], -1).astype(np.int32)


def _open(directory: Path, record_id: np.ndarray) -> tuple[np.memmap, np.ndarray]:
    """Returns the embeddings, memory-mapped, and the row of every record, −1 for records without one.

    Args:
        directory: Folder of the two files.
        record_id: Ids of the data set's records, `str[n]`.

    Raises:
        DataError: A file is malformed, or names a recording twice or none of the data set's.
    """
    values, of = (_load(directory / name) for name in ("embedding.npy", "record_id.npy"))
    if values.ndim != 2 or values.dtype not in (np.float16, np.float32):
        message = f"{directory}/embedding.npy must be f16 or f32[m, dim], it is {values.dtype}{list(values.shape)}"
        raise DataError(message)
    if of.shape != values.shape[:1] or of.dtype.kind != "U":
        raise DataError(
            f"{directory}/record_id.npy must be str[{len(values)}], one for every row of embedding.npy, it is "
            f"{of.dtype}{list(of.shape)}"
        )
    names, counts = np.unique(of, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{directory}/record_id.npy names recording {str(names[counts > 1][0])!r} more than once")
    row = np.full(len(record_id), -1, np.int64)
    if len(of):
        order = np.argsort(of)
        found = order[np.minimum(np.searchsorted(of, record_id, sorter=order), len(order) - 1)]
        row = np.where(of[found] == record_id, found, -1)
    if (row < 0).all():
        raise DataError(
            f"{directory}/record_id.npy names none of the data set's recordings, which are called such as "
            f"{str(record_id[0])!r}"
        )
    return values, row


def _load(path: Path) -> np.memmap:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an array: {error}") from error


def _groups(values: Sequence[np.memmap]) -> tuple[np.ndarray, str]:
    """Numbers equal rows alike, and digests all rows, in one pass over the memory maps.

    Args:
        values: Embeddings of every file, `[m, dim]`.

    Returns:
        Number of each row's group of equal rows, `int64[rows of all files]`, and the digest as hexadecimal text.

    Raises:
        DataError: A value is not finite.
    """
    numbers: dict[bytes, int] = {}
    out, content = [], hashlib.blake2b(digest_size=16)
    for part in values:
        for start in range(0, len(part), _ROWS):
            rows = np.ascontiguousarray(part[start : start + _ROWS], np.float32)
            if not np.isfinite(rows).all():
                bad = start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
                raise DataError(f"{part.filename}: row {bad} is not finite; leave recordings without a partner out")
            for row in rows:
                digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
                content.update(digest)
                out.append(numbers.setdefault(digest, len(numbers)))
    return np.asarray(out, np.int64), content.hexdigest()
