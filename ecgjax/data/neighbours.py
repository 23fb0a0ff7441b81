"""Nearest recordings of the whole data set, as `data_pipelines.neighbours` has found them, for a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.data.recordings import Recordings
from ecgjax.data.settings import ColumnSettings
from ecgjax.errors import ConfigError

if TYPE_CHECKING:
    from data_pipelines.likeness.neighbour_table import NeighbourTable
    from data_pipelines.prepared.dataset import Dataset


def neighbour_column(settings: ColumnSettings, recordings: Recordings) -> np.ndarray:
    """Returns the nearest training records of every training record, those of other patients.

    Neighbours are searched within each data set. Those that the run does not train on, or takes for the same patient
    (as links may), are left out.

    Args:
        settings: Settings of the columns: the space, and the number of neighbours that count.
        recordings: Recordings of the run.

    Returns:
        Record numbers, the nearest first, `i32[records, k]`; −1 for none, as for all records of other sides.

    Raises:
        ConfigError: More neighbours are asked for than were found.
        DataError: They were not searched, are damaged or stale, or were searched among other folds.
    """
    parts, start = [], 0
    for dataset in recordings.datasets:
        table = _opened(dataset, settings, recordings, start)
        found = np.asarray(table.numbers[:, : settings.neighbours])
        parts.append(np.where(found >= 0, found + start, -1))
        start += dataset.index.num_records
    width = min(part.shape[1] for part in parts)
    numbers = np.concatenate([part[:, :width] for part in parts]).astype(np.int32)
    trained = np.zeros(len(numbers) + 1, bool)  # The last one stands for −1.
    trained[recordings.split.train] = True
    group = np.asarray(recordings.index.group)
    other_patient = group[numbers] != group[:, None]
    kept = trained[numbers] & trained[:-1, None] & other_patient
    if not kept.any():
        raise DataError(
            f"none of the {len(recordings.split.train):,} training records has a neighbour by "
            f"{settings.neighbour_space}: there is one patient alone, or no record could be compared"
        )
    return np.where(kept, numbers, np.int32(-1))


def _opened(dataset: Dataset, settings: ColumnSettings, recordings: Recordings, start: int) -> NeighbourTable:
    # This is imported here because it loads signal processing for a second, which runs without it should not wait for.
    from data_pipelines.likeness.neighbour_table import neighbours_command, open_neighbours

    table = open_neighbours(dataset, settings.neighbour_space)
    if settings.neighbours is not None and settings.neighbours > table.card["k"]:
        raise ConfigError(
            f"config.columns.neighbours={settings.neighbours}: {dataset.directory} has the {table.card['k']} nearest "
            f"of every record; ask for fewer, or remove them and run "
            f"{neighbours_command(dataset, settings.neighbour_space)} --k={settings.neighbours}"
        )
    _check_folds(dataset, table, settings, recordings, start)
    return table


def _check_folds(
    dataset: Dataset, table: NeighbourTable, settings: ColumnSettings, recordings: Recordings, start: int
) -> None:
    """Raises a `DataError` unless the folds that were searched are those that the run trains on."""
    from data_pipelines.likeness.neighbour_table import neighbours_command

    def folds_of(records: np.ndarray) -> set[int]:
        own = records[(records >= start) & (records < start + dataset.index.num_records)] - start
        return set(np.unique(np.asarray(dataset.index.fold)[own]).tolist())

    folds, searched = folds_of(recordings.split.train), set(table.card["folds"]["train"])
    held_out = folds_of(recordings.split.val) | folds_of(recordings.split.test)
    # With fewer folds some records lack neighbours; with more, neighbours would tell of validation or test.
    if not folds <= searched or searched & held_out:
        asked = ",".join(map(str, sorted(folds)))
        raise DataError(
            f"{dataset.directory}: neighbours were searched among folds {','.join(map(str, sorted(searched)))}, and "
            f"this run trains on {asked}; remove them and run "
            f"{neighbours_command(dataset, settings.neighbour_space)} --train_folds={asked} (with the --val_folds and "
            "--test_folds of the run)"
        )
