"""Shapes of the data of a dry run: those of data sets where the config names some, and of a stand-in elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.records import SignalFormat
from ecgjax.data.measured_waves import chosen_measurements
from ecgjax.data.recordings import open_recordings
from ecgjax.data.row_metadata import CLASSES, Columns, needed_columns, row_columns
from ecgjax.data.settings import ColumnUse
from ecgjax.errors import ConfigError
from ecgjax.training.run_batches import sampled_side
from ecgjax.training.settings import PretrainingSettings

#: Recordings of an epoch where no data are named. A schedule's length is a constant of the program, and nothing else.
RECORDINGS_AN_EPOCH = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataShapes:
    """What a step's program takes from the data.

    Attributes:
        signal_format: Rate and length of the recordings.
        columns: Columns over all recordings, of which the program has shapes and types.
        train: Numbers of the records that are trained on.
        examples_per_epoch: Recordings of an epoch.
        stand_in: Whether they are those of no data set.
    """

    signal_format: SignalFormat
    columns: Columns
    train: np.ndarray
    examples_per_epoch: int
    stand_in: bool


def shapes_of_data(settings: PretrainingSettings, *, simulated_format: SignalFormat) -> DataShapes:
    """Returns the shapes of the data of a run.

    Args:
        settings: Settings of the run; where `data.dir` is empty, no data are read.
        simulated_format: Rate and length of the recordings where no data are named.

    Raises:
        ConfigError: A column is needed whose shape only the data tell, or settings do not fit the data.
        DataError: A data set is missing, unfinished or damaged.
    """
    if not settings.data.dir:
        return DataShapes(
            signal_format=simulated_format,
            columns=_columns(settings.column_use),
            train=np.arange(2),
            examples_per_epoch=RECORDINGS_AN_EPOCH,
            stand_in=True,
        )
    recordings = open_recordings(settings.data)
    side = sampled_side(settings, recordings, recordings.split.train)
    sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)
    return DataShapes(
        signal_format=recordings.format,
        columns=row_columns(settings.column_use, recordings, seed=settings.seed),
        train=recordings.split.train,
        examples_per_epoch=sampler.examples_per_epoch,
        stand_in=False,
    )


def _columns(use: ColumnUse) -> Columns:
    """Returns columns of two recordings with different labels, of the types that `row_columns` gives them."""
    needed = needed_columns(use)
    if "paired" in needed:
        raise ConfigError(
            "the loss compares ECGs with another modality, whose width only its embeddings tell: give a dry run "
            "config.data.dir and config.columns.paired too"
        )
    makers = {
        "physiology": lambda: np.zeros((2, use.settings.components or _measurements()), np.float32),
        "cluster": lambda: np.zeros(2, np.int32),
        "sex": lambda: np.zeros(2, np.int32),
        "age": lambda: np.zeros(2, np.float32),
        "label": lambda: np.arange(2, dtype=np.float32),
        # Five is what the search finds unless it is told otherwise.
        "neighbours": lambda: np.full((2, use.settings.neighbours or 5), -1, np.int32),
        CLASSES: lambda: np.arange(2, dtype=np.float32),
        "measured": lambda: np.eye(2, 1, dtype=np.float32).repeat(len(chosen_measurements(use.settings)), axis=1),
    }
    return {name: makers[name]() for name in sorted(needed)}


def _measurements() -> int:
    # This is imported here because it loads signal processing for a second.
    from data_pipelines.physiology.vector import NAMES

    return len(NAMES)
