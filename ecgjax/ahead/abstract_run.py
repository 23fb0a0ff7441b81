"""The step of a run, traced for the devices of a mesh, without making an array of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
from jax.stages import Traced

from ecgjax.ahead.stand_in import DataShapes
from ecgjax.encoders import cost
from ecgjax.errors import ConfigError
from ecgjax.placement.layout_table import state_bytes
from ecgjax.training import device_mesh
from ecgjax.training.assembly import Assembly, assemble
from ecgjax.training.compilation.compiled_step import trace_step
from ecgjax.training.run import num_steps
from ecgjax.training.run_batches import abstract_batch
from ecgjax.training.settings import PretrainingSettings
from ecgjax.training.step_program import step_program


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractRun:
    """A run whose arrays are shapes.

    Attributes:
        mesh: Mesh of the run.
        traced: Trace of its step.
        parameters: Number of its parameters.
        state_bytes: Bytes of parameters, statistics and optimiser, all of them.
        state_bytes_a_chip: Bytes of them that a chip holds.
        flops_a_chip: FLOP of a step that the model asks for, from the trace, divided by the chips; None where the step
            has loops of unknown length.
    """

    mesh: Mesh
    traced: Traced
    parameters: int
    state_bytes: int
    state_bytes_a_chip: int
    flops_a_chip: float | None


def abstract_run(settings: PretrainingSettings, data: DataShapes, mesh: Mesh) -> AbstractRun:
    """Traces the step of a run as `training.run.prepare_run` compiles it.

    Args:
        settings: Settings of the run.
        data: Shapes of its data.
        mesh: Mesh of the run, of devices that need not exist.

    Raises:
        ConfigError: A setting names something that does not exist, settings do not fit each other, the batch does not
            divide over the devices, or the config debugs a step that is not the run's.
    """
    if settings.debug.nan_checks:
        raise ConfigError("config.debug.nan_checks=True makes another program of the step; leave it out of a dry run")
    batch = abstract_batch(settings, data.signal_format, data.columns, mesh)
    steps = num_steps(settings.duration, batch_size=settings.batch_size, examples_per_epoch=data.examples_per_epoch)
    model = _abstract_model(settings, data, mesh)
    program = step_program(settings, model, mesh=mesh, num_steps=steps)
    shapes = jax.eval_shape(program.begin, model.params, model.stats)
    shardings = program.layout.shardings(shapes)
    state = jax.tree.map(_placed, shapes, shardings)
    traced = trace_step(program.step, state, batch, shardings=shardings, everywhere=device_mesh.replicated(mesh))
    flops = cost.step_flops(traced.jaxpr.jaxpr)
    whole, of_a_chip = state_bytes(state)
    return AbstractRun(
        mesh=mesh,
        traced=traced,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        state_bytes=whole,
        state_bytes_a_chip=of_a_chip,
        flops_a_chip=None if flops is None else flops / mesh.size,
    )


def _placed(shape: jax.ShapeDtypeStruct, sharding: jax.sharding.NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _abstract_model(settings: PretrainingSettings, data: DataShapes, mesh: Mesh) -> Assembly:
    """Returns what `assemble` returns, with shapes for parameters and statistics: nothing is initialised."""
    made: list[Assembly] = []

    def weights() -> tuple[Any, Any]:
        model = assemble(settings, signal_format=data.signal_format, train=data.train, columns=data.columns, mesh=mesh)
        made.append(model)
        return model.params, model.stats

    params, stats = jax.eval_shape(weights)
    # Graph and loss hold no array of their own: they take parameters and statistics as arguments.
    encoder = made[0].encoder._replace(params=params["encoder"], stats=stats["encoder"])
    return made[0]._replace(encoder=encoder, params=params, stats=stats)
