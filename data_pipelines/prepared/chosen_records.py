"""Finds records of a data set by their ids, or draws some at random."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.system.counted import counted


def chosen_records(dataset: Dataset, record_ids: list[str], *, flag: str = "records") -> np.ndarray:
    """Returns the numbers of records in the given order of their ids.

    Args:
        dataset: Data set of the records.
        record_ids: Ids of the records.
        flag: Command line flag that named the records, for the error message.

    Raises:
        DataError: The data set does not have some of the ids.
    """
    every = dataset.index.record_id
    numbers = {record_id: np.flatnonzero(every == record_id) for record_id in record_ids}
    if unknown := [f"'{record_id}'" for record_id, found in numbers.items() if not len(found)]:
        known = ", ".join(repr(str(record_id)) for record_id in every[:3])
        raise DataError(f"--{flag}: {dataset.directory} has no record {', '.join(unknown)}; its ids look like {known}")
    return np.concatenate(list(numbers.values()))


def random_records(dataset: Dataset, count: int, *, seed: int) -> np.ndarray:
    """Draws records without replacement and returns their numbers in stored order.

    Args:
        dataset: Data set to draw from.
        count: Number of records to draw.
        seed: Seed of the draw.

    Raises:
        DataError: The data set has fewer records than `count`.
    """
    total = dataset.index.num_records
    if count > total:
        raise DataError(f"--random={count}: {dataset.directory} has {counted(total, 'record')}")
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
