"""Features of records on each side of a split, and the function that computes them batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

#: Reads stored signals: record numbers `int64[n]` → `int16[n, time, lead]`.
Read = Callable[[np.ndarray], np.ndarray]

#: Number of records that are embedded or scored at a time.
BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFeatures:
    """Features of the labelled records of each split, `[records, features]`, in the records' order in `ProbeData`."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def in_batches(function: Callable[[np.ndarray], Any], signals: np.ndarray, *, size: int) -> np.ndarray:
    """Applies a function to signals batch by batch; the last batch is padded with zeros, so that it compiles once.

    Args:
        function: Function that maps `int16[size, time, lead]` to `[size, ...]`, row by row.
        signals: Signals, `int16[n, time, lead]`, of any number above 0.
        size: Number of rows in a batch.

    Returns:
        The results in the order of the signals, `[n, ...]`.
    """
    out = []
    for start in range(0, len(signals), size):
        part = signals[start : start + size]
        padded = np.zeros((size, *signals.shape[1:]), np.int16)
        padded[: len(part)] = part
        out.append(np.asarray(function(padded))[: len(part)])
    return np.concatenate(out)


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

    Every batch has the same size, so that a jitted function compiles once; the last batch is padded with its last
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
    with tqdm(
        total=len(records), desc=title, unit="ECG", dynamic_ncols=True, disable=None if progress else True
    ) as bar:
        for start in range(0, len(records), batch_size):
            batch = records[start : start + batch_size]
            filled = np.pad(batch, (0, batch_size - len(batch)), mode="edge")
            results.append(np.asarray(function(read(filled)))[: len(batch)])
            bar.update(len(batch))
    return np.concatenate(results)
