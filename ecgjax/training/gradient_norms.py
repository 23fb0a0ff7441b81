"""Norms of the gradients of objective and task apart, which show whether one of them trains alone.

A step has the gradient of their sum alone. The norms are therefore another program, which some of the steps that are
logged run beforehand: one more forward and two more backward passes, about 1.7 times a step. The other steps, and every
number of the training itself, are what they are without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ecgjax.encoders.operations.gradient_sums import gradients_summed_in
from ecgjax.objectives.settings import ObjectiveSettings
from ecgjax.optim.parameters import hold
from ecgjax.training.steps import Batch, Metrics, TrainState
from ecgjax.training.tasks.task_settings import TaskSettings

#: Losses whose gradients are told apart, by their names among a step's metrics.
TERMS = ("objective", "task")

#: Ratio of the two norms from which on one of the losses hardly counts.
FAR_APART = 10.0


def weights_of(objective: ObjectiveSettings, task: TaskSettings) -> dict[str, float] | None:
    """Returns the weights of objective and task, or None where not both train.

    Args:
        objective: Settings of the objective.
        task: Settings of the task.
    """
    weights = {"objective": objective.weight, "task": task.weight if task.name else 0.0}
    return weights if all(weights.values()) else None


def gradient_norms(
    loss: Callable[..., tuple[Array, tuple[Any, Metrics]]],
    *,
    weights: dict[str, float],
    frozen: Collection[str] = (),
    reduce: str = "float32",
) -> Callable[[TrainState, Batch], Metrics]:
    """Returns the function `(state, batch) → metrics` of the norms, to be jitted.

    Args:
        loss: Loss as `steps.pretraining_loss` returns it, whose metrics hold the losses of `TERMS` without weights.
        weights: Weights of these in the sum.
        frozen: Names of the parameters that need no gradient.
        reduce: Type in which gradients are summed over rows and devices, float32 or bfloat16.

    Returns:
        Function whose metrics are `grad_norm_objective` and `grad_norm_task`: norms over all trained parameters of the
        gradients of the weighted losses in the next step.
    """

    def norms(state: TrainState, batch: Batch) -> Metrics:
        def terms(params: Any) -> Array:
            _, (_, metrics) = loss(hold(params, frozen), state.stats, batch, state.step, train=True)
            return jnp.stack([jnp.float32(weights[name]) * metrics[name] for name in TERMS])

        with gradients_summed_in(reduce):
            _, pull = jax.vjp(terms, state.params)
            gradients = [pull(one)[0] for one in jnp.eye(len(TERMS), dtype=jnp.float32)]
        named = zip(TERMS, gradients, strict=True)
        return {f"grad_norm_{name}": optax.tree.norm(gradient) for name, gradient in named}

    return norms


def far_apart(objective: float, task: float) -> str:
    """Returns a sentence on two norms of which one is more than `FAR_APART` times the other; empty where none is.

    Args:
        objective: Norm of the objective's gradient.
        task: Norm of the task's gradient.
    """
    (small, smaller), (large, larger) = sorted([(task, "task"), (objective, "objective")])
    if not large > FAR_APART * small:
        return ""
    than = f"{large / small:.3g} times that of the {smaller}" if small > 0 else f"there, and none of the {smaller}"
    return (
        f"the gradient of the {larger} is {than} (train/grad_norm_objective {objective:.3g}, "
        f"train/grad_norm_task {task:.3g}): the {larger} decides alone what is learnt. Change "
        "config.objective.weight or config.task.weight, or compare embeddings on the unit sphere (docs/objectives.md)"
    )
