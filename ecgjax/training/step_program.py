"""The update of a run as a function of shapes: what is trained, by which optimiser, and where its state lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from ecgjax import optim
from ecgjax.optim import Extension
from ecgjax.placement.parameter_layout import ParameterLayout, lay_out
from ecgjax.training.assembly import Assembly
from ecgjax.training.gradient_norms import gradient_norms, weights_of
from ecgjax.training.settings import PretrainingSettings
from ecgjax.training.steps import Batch, Metrics, TrainState, init_state, train_step


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """The update of a run, not yet traced.

    Attributes:
        layout: Layout of the parameters on the mesh.
        loss: Loss as `steps.pretraining_loss` returns it, of parameters as they lie on the mesh.
        begin: Function from parameters and statistics to the state before the first step.
        step: Function `(state, batch) → (state, metrics)`.
        gradient_norms: Function `(state, batch) → metrics` of the gradients of objective and task apart; None where not
            both train.
    """

    layout: ParameterLayout
    loss: Callable[..., Any]
    begin: Callable[[Any, Any], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    gradient_norms: Callable[[TrainState, Batch], Metrics] | None


def step_program(
    settings: PretrainingSettings, model: Assembly, *, mesh: Mesh, num_steps: int, extensions: Sequence[Extension] = ()
) -> StepProgram:
    """Returns the update of a run.

    Args:
        settings: Settings of the run.
        model: What is trained, with arrays or with shapes for parameters and statistics.
        mesh: Mesh of the run.
        num_steps: Number of steps of the run without its extensions.
        extensions: Steps beyond these.

    Raises:
        ConfigError: The settings of the optimiser or of the layout do not fit the parameters.
    """
    optimizer = optim.create(
        settings.optimizer,
        num_steps=num_steps,
        batch_size=settings.batch_size,
        params=model.params,
        extensions=extensions,
    )
    layout = lay_out(model.params, mesh, settings.mesh)
    ema_decay, skip = settings.optimizer.ema_decay, settings.nonfinite.action == "skip"

    def begin(params: Any, stats: Any) -> TrainState:
        return init_state(params, stats, optimizer, ema=ema_decay is not None, skip=skip)

    loss = layout.gathering(model.loss)
    step = train_step(loss, optimizer, frozen=model.frozen, ema_decay=ema_decay, reduce=settings.mesh.reduce)
    norms, weights = None, weights_of(settings.objective, settings.task)
    if weights is not None:
        norms = gradient_norms(loss, weights=weights, frozen=model.frozen, reduce=settings.mesh.reduce)
    return StepProgram(layout, loss, begin, step, norms)
