"""Features of records on each side of a split, and the function that computes them batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

#: Reads stored signals: record numbers `int64[n]` → `int16[n, time, lead]`.
Read = Callable[[np.ndarray], np.ndarray]

#: Number of records that are embedded or scored at a time.
BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFeatures:
    """Features of the labelled records of each split, `[records, features]`, in the order of `ProbeData`."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def map_records(
    function: Callable[[np.ndarray], np.ndarray],
    records: np.ndarray,
    *,
    read: Read,
    title: str,
    batch_size: int = BATCH,
    progress: bool = True,
) -> np.ndarray:
    """Applies a function to the signals of many records, a batch at a time.

    Every batch has the same size, so that a compiled function compiles once; the last is filled up with its own last
    record.

    Args:
        function: Function that maps `int16[batch, time, lead]` to `[batch, ...]`, row by row.
        records: Record numbers, `int64[n]`.
        read: Function that reads stored signals.
        title: Title of the progress bar.
        batch_size: Number of records in a batch.
        progress: Whether a progress bar is drawn on a terminal.

    Returns:
        Results in the order of the records, `[n, ...]`.
    """
    results = []
    with tqdm(total=len(records), desc=title, unit="ECG", disable=None if progress else True) as bar:
        for start in range(0, len(records), batch_size):
            batch = records[start : start + batch_size]
            filled = np.pad(batch, (0, batch_size - len(batch)), mode="edge")
            results.append(np.asarray(function(read(filled)))[: len(batch)])
            bar.update(len(batch))
    return np.concatenate(results)
