"""The learning rate of an update as a number for logs, computed beside the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from ecgjax.optim.extension import Extension
from ecgjax.optim.optimizers import base_rate, schedule
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.system.beside_training import on_the_host


def logged_rate(
    settings: OptimizerSettings, num_steps: int, *, batch_size: int, extensions: Sequence[Extension] = ()
) -> Callable[[int], float]:
    """Returns a function from the number of an update, from 0, to the learning rate that it is made with.

    It is the rate before `layer_decay` lowers it by depth, and not that of parameters with one of their own (`rates`).
    The step knows nothing of it, so that a run is the same to the bit with it and without.

    Args:
        settings: Settings of the optimiser.
        num_steps: Number of steps of the run as its config has them.
        batch_size: Number of recordings of the global batch.
        extensions: Steps beyond these.

    Raises:
        ConfigError: `schedule` or `base_rate` refuses the settings.
    """
    peak = base_rate(settings, batch_size=batch_size)
    shape = jax.jit(schedule(settings, num_steps, extensions=extensions))

    def rate(update: int) -> float:
        with on_the_host():
            return peak * float(shape(np.int32(update)))

    return rate
