"""Digests of all that decides which rows and views the steps of a run get."""

from __future__ import annotations

import hashlib

import numpy as np

from data_pipelines.physiology.paired_embeddings import PairedEmbeddings
from data_pipelines.streaming.sampler import Sampler
from ecgjax.data.recordings import Recordings
from ecgjax.data.row_metadata import Columns

#: Version that is raised when the same config, data and seed no longer give the same batches and views. Since 2, crops
#: keep to what was recorded. Since 3, augmentations are keyed by name, and Gaussian noise comes from hashed bits.
PIPELINE_VERSION = 3


def run_fingerprint(recordings: Recordings, columns: Columns, sampler: Sampler, *, seed: int) -> str:
    """Returns a digest, in hexadecimal, of all that decides which rows and views a step gets."""
    digests = _column_digests(recordings, columns)
    return _digest_of((PIPELINE_VERSION, recordings.fingerprints, digests, sampler.fingerprint(), seed))


def part_digests(recordings: Recordings, columns: Columns, sampler: Sampler) -> dict[str, str]:
    """Returns the digests of the parts of the fingerprint (`resumption.PARTS`)."""
    groups, *others = sorted(_column_digests(recordings, columns), key=lambda column: column[0] != "group")
    return {
        "data": _digest_of((recordings.fingerprints, groups)),
        "columns": _digest_of(others),
        "sampling": sampler.fingerprint(),
        "stored": _stored_order(recordings, sampler),
        "pipeline": str(PIPELINE_VERSION),
    }


def _stored_order(recordings: Recordings, sampler: Sampler) -> str:
    """Returns a digest of the order on the disk where batches depend on it; "" where it is that of record numbers."""
    numbers = np.arange(recordings.store.num_records if sampler.blocks else 0)
    stored = recordings.store.in_stored_order(numbers) if sampler.blocks else numbers
    return "" if np.array_equal(stored, numbers) else _digest(stored)


def _column_digests(recordings: Recordings, columns: Columns) -> list[tuple[str, str]]:
    # Columns are sorted, because the order in which they were made is not part of the data. Partners are read row by
    # row, so that their file's digest stands for them.
    return [
        (name, values.digest if isinstance(values, PairedEmbeddings) else _digest(values))
        for name, values in sorted({"group": recordings.index.group, **columns}.items())
    ]


def _digest_of(value: object) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()


def _digest(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest()
