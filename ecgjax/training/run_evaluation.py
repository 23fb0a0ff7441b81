"""Evaluation of a run's loss on validation records, by which its best checkpoint may be chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from ecgjax.errors import ConfigError
from ecgjax.training.checkpoints.best_checkpoint import Best, best_by
from ecgjax.training.run import Run
from ecgjax.training.run_batches import sampled_side
from ecgjax.training.steps import TrainState, eval_step


def make_evaluation(run: Run) -> Callable[[TrainState], Mapping[str, float]] | None:
    """Returns an evaluation of the loss over a fixed set of validation batches, or None where there are none."""
    settings = run.settings
    if not settings.eval_every or not len(run.recordings.split.val):
        return None
    step = jax.jit(eval_step(run.loss))
    side = sampled_side(settings, run.recordings, run.recordings.split.val)
    sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)

    # Each evaluation begins at the first batch, so that values of different steps are of the same recordings.
    def evaluate(state: TrainState) -> Mapping[str, float]:
        stream = run.batches(sampler)
        metrics = jax.device_get([step(state, next(stream)) for _ in range(settings.eval_batches)])
        # The stream's threads would otherwise read ahead until the generator is collected.
        stream.close()
        return {f"eval/{name}": float(np.mean([m[name] for m in metrics])) for name in metrics[0]}

    return evaluate


def best_of(run: Run, evaluate: Callable[[TrainState], Mapping[str, float]] | None) -> Best | None:
    """Returns the measure of the run's best checkpoint, or None where the config names none.

    Args:
        run: Run whose checkpoints are meant.
        evaluate: Evaluation of the run; None where it has none.

    Raises:
        ConfigError: A measure is named that is no metric of an evaluation, or the run has no evaluation.
    """
    best = best_by(run.settings.checkpoint)
    if best is not None and evaluate is None:
        raise ConfigError(
            f"config.checkpoint.best={best.metric!r} needs an evaluation: set config.eval_every, and "
            "config.data.val_folds to folds that have recordings"
        )
    return best
