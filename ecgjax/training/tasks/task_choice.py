"""The task that a config names: a label or measured waves, predicted from embeddings or features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from data_pipelines.physiology.measurement_groups import BEATS, GROUP_OF
from ecgjax import encoders
from ecgjax.data.measured_waves import chosen_measurements, measured_waves
from ecgjax.data.row_metadata import Columns
from ecgjax.data.settings import ColumnSettings
from ecgjax.errors import ConfigError
from ecgjax.settings.leaf import Arguments
from ecgjax.training.tasks.heads import SupervisedTask
from ecgjax.training.tasks.measurement_task import MeasurementTask
from ecgjax.training.tasks.task_settings import TaskSettings

Task: TypeAlias = SupervisedTask | MeasurementTask

#: Groups of measurements that augmentations change, so that the recording's own are wrong for the view.
CHANGED: Mapping[str, tuple[str, ...]] = {
    "geodesic": tuple(BEATS),
    "resized_crop": ("rate", "rhythm", "intervals"),
    "stretched_crop": ("rate", "rhythm", "intervals"),
    "heartbeat_shuffle": ("rhythm",),
    "time_warp": ("rate", "rhythm", "intervals"),
    "time_reversal": ("intervals",),
    "vcg": ("amplitudes",),
    "amplitude_scale": ("amplitudes",),
    "polarity": ("amplitudes",),
    "lowpass": ("amplitudes",),
}


def make_task(
    settings: TaskSettings,
    column_settings: ColumnSettings,
    encoder: encoders.Encoder,
    *,
    columns: Columns,
    train: np.ndarray,
    seed: int,
) -> Task | None:
    """Returns the task that settings name, or None where they name none.

    Args:
        settings: Settings of the task.
        column_settings: Settings of the columns, which name the measurements.
        encoder: Encoder whose embeddings or features the task's head reads.
        columns: Columns over all recordings that `row_columns` returned.
        train: Numbers of the records that are trained on, `int64[n]`. Location and scale of the targets are theirs:
            those of all records would tell of the test side.
        seed: Seed of the head's initialisation.

    Raises:
        ConfigError: The targets make no task.
    """
    if not settings.name:
        return None
    dim = encoder.feature_dim if settings.reads == "features" else encoder.embedding_dim
    if settings.name == "measurements":
        waves = measured_waves(chosen_measurements(column_settings), np.asarray(columns["measured"]), train)
        return MeasurementTask(settings, dim=dim, waves=waves, seed=seed)
    return SupervisedTask(settings, dim=dim, labels=np.asarray(columns["label"])[train], seed=seed)


def describe_targets(task: Task | None, augment: Mapping[str, Arguments]) -> list[str]:
    """Returns printable lines on the targets of measured waves, and on views that show other waves; otherwise none.

    Args:
        task: Task of the run.
        augment: Settings of the augmentations by name.
    """
    if not isinstance(task, MeasurementTask):
        return []
    predicted = {GROUP_OF[name] for name in task.waves.names}
    lines = [task.waves.describe()]
    for name, groups in CHANGED.items():
        own = augment.get(name, {})
        changed = [group for group in groups if group in predicted]
        if own.get("enabled") and changed and _share_a_view(own.get("views"), task.settings.views):
            lines.append(
                f"config.augment.{name} changes {', '.join(changed)} of views that predict those of the recording; to "
                "keep them apart, name the views of each in config.task.views and "
                f"config.augment.{name}.views, or leave these out by config.columns.without_measurements"
            )
    return lines


def describe_untrained(task: TaskSettings, *, objective_weight: float) -> list[str]:
    """Returns a printable line where nothing trains the layer that makes the embedding; otherwise none.

    Args:
        task: Settings of the task.
        objective_weight: Weight of the objective, which reads the embedding.
    """
    if objective_weight or not task.name or task.reads == "embedding":
        return []
    return [
        "nothing trains the embedding: config.objective.weight=0 and config.task.reads='features'. Read features of "
        "this run (config.probe.layer='features', --layer=features), or let the head read the embedding"
    ]


def _share_a_view(first: object, second: tuple[int, ...]) -> bool:
    return not (isinstance(first, tuple) and first and second) or not set(first).isdisjoint(second)


def check_task(task: TaskSettings, *, num_views: int, decoder: bool) -> None:
    """Raises an error where a task that is named does not fit the views or the encoder.

    Args:
        task: Settings of the task.
        num_views: Number of views of each segment.
        decoder: Whether the encoder has a decoder.

    Raises:
        ConfigError: A view does not exist, or the head would read features that a decoder does not hand on.
    """
    if not task.name:
        return
    if beyond := [view for view in task.views if view >= num_views]:
        raise ConfigError(
            f"config.task.views={task.views} names view {beyond[0]}, and config.views.num={num_views} gives views 0 to "
            f"{num_views - 1}"
        )
    if task.reads == "features" and decoder:
        raise ConfigError(
            "config.task.reads='features' is not possible with config.encoder.decoder=True, which hands on embeddings "
            "and signals; set config.task.reads='embedding', or take an encoder without a decoder"
        )
