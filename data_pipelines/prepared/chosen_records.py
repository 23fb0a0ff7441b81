"""Records of a data set that a user names, or that are drawn at random."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset


def chosen_records(dataset: Dataset, record_ids: list[str], *, flag: str = "records") -> np.ndarray:
    """Returns the numbers of records in the order asked for.

    Args:
        dataset: that has them.
        record_ids: of the records.
        flag: that names them, for the message of an error.

    Raises:
        DataError: ids that the data set does not have.
    """
    every = dataset.index.record_id
    numbers = {record_id: np.flatnonzero(every == record_id) for record_id in record_ids}
    unknown = [f"'{record_id}'" for record_id, found in numbers.items() if not len(found)]
    if unknown:
        raise DataError(
            f"--{flag}: {dataset.directory} has no record {', '.join(unknown)}; "
            f"its ids look like {', '.join(repr(str(record_id)) for record_id in every[:3])}"
        )
    return np.concatenate(list(numbers.values()))


def random_records(dataset: Dataset, count: int, *, seed: int) -> np.ndarray:
    """Returns the numbers of records drawn without replacement, in stored order.

    Raises:
        DataError: there are not so many.
    """
    total = dataset.index.num_records
    if count > total:
        raise DataError(f"--random={count}: {dataset.directory} has {total} records")
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
