"""Prediction of measured waves, which needs no labels: one head with an output for every measurement."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data_pipelines.physiology.measurement_groups import BEATS, GROUP_OF
from ecgjax import encoders
from ecgjax.data.measured_waves import MeasuredWaves
from ecgjax.data.settings import TASK_COLUMNS
from ecgjax.objectives.losses.masked_huber import MeasurementLoss, explained, masked_huber
from ecgjax.objectives.pairs.outputs import LossOutput, Stats
from ecgjax.training.tasks.heads import make_head
from ecgjax.training.tasks.task_settings import TaskSettings


class MeasurementTask:
    """The prediction of measured waves, with its head and its loss.

    The targets belong to the recording: every view predicts what was measured on the recording as it is stored.

    Args:
        settings: Settings of the task.
        dim: Dimension of what the head reads.
        waves: Measurements that are predicted, with location and scale on the training side.
        seed: Seed of the head's initialisation.

    Attributes:
        settings: Settings of the task.
        column: Name of the column that holds the targets.
        waves: Measurements that are predicted.
        head: Head at initialisation. Its outputs are in the units of the measurements; their locations and scales are
            among its running statistics, and so in every checkpoint.
    """

    def __init__(self, settings: TaskSettings, *, dim: int, waves: MeasuredWaves, seed: int):
        self.settings, self.column = settings, TASK_COLUMNS[settings.name]
        self.waves = waves
        self._groups = _masks(waves)
        self.head = make_head(
            settings, dim=dim, outputs=len(waves.names), location=waves.location, scale=waves.scale, seed=seed
        )

    def __call__(
        self,
        params: encoders.Arrays,
        stats: encoders.Arrays,
        inputs: Array,
        targets: Array,
        *,
        valid: Array,
        train: bool,
        keys: Array | None,
    ) -> tuple[LossOutput, encoders.Arrays]:
        """Evaluates the loss; arguments and result are those of `SupervisedTask`.

        The targets are `f32[rows, measurements]`, NaN where missing. The statistics are the explained share of all
        measurements, of each group and of the worst measurement, and in evaluation of every measurement.
        """
        head = encoders.merge(self.head._replace(params=params, stats=stats))
        loss = masked_huber(
            head(inputs, train=train, keys=keys, valid=valid),
            targets,
            location=head.location[...],
            scale=head.scale[...],
            predicted=jnp.asarray(self.waves.predicted),
            valid=valid,
            delta=self.settings.delta,
        )
        told = self._statistics(loss, each=not train)
        return loss.output._replace(stats=jax.lax.stop_gradient(told)), encoders.stats_of(head)

    def _statistics(self, loss: MeasurementLoss, *, each: bool) -> Stats:
        lost, by_location = loss.lost, loss.lost_by_location
        shares = explained(lost, by_location)
        told = {"explained": explained(lost.sum(), by_location.sum()), "explained_worst": jnp.nanmin(shares)}
        for group, mask in self._groups.items():
            told[f"explained_{group}"] = explained((lost * mask).sum(), (by_location * mask).sum())
        if each:
            told |= {
                f"explained/{name}": shares[column]
                for column, name in enumerate(self.waves.names)
                if self.waves.predicted[column]
            }
        return told


def _masks(waves: MeasuredWaves) -> Mapping[str, np.ndarray]:
    """Returns the measurements of every group that has any among the targets, `f32[measurements]`, 1 or 0."""
    group = np.array([GROUP_OF[name] for name in waves.names])
    masks = {name: (group == name) & waves.predicted for name in BEATS}
    return {name: mask.astype(np.float32) for name, mask in masks.items() if mask.any()}
