"""A dry run: what the step of a config asks of accelerators that need not be here."""

from __future__ import annotations

import dataclasses

from jax.sharding import Mesh

from data_pipelines.records import SignalFormat
from ecgjax.ahead.abstract_run import AbstractRun, abstract_run
from ecgjax.ahead.compiled_program import CompiledProgram, compile_ahead
from ecgjax.ahead.kept_programs import kept_file, read_kept, write_kept
from ecgjax.ahead.stand_in import DataShapes, shapes_of_data
from ecgjax.ahead.topologies import Topology, devices_of
from ecgjax.placement import slices
from ecgjax.training import device_mesh
from ecgjax.training.settings import PretrainingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRunRequest:
    """What a dry run is of.

    Attributes:
        topology: Accelerators.
        simulated_format: Rate and length of the recordings where the config names no data.
    """

    topology: Topology
    simulated_format: SignalFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRun:
    """What the step of a config asks of accelerators.

    Attributes:
        request: What it is of.
        settings: Settings of the run.
        data: Shapes of its data.
        run: Its step, traced.
        program: What the compiler says of it.
    """

    request: DryRunRequest
    settings: PretrainingSettings
    data: DataShapes
    run: AbstractRun
    program: CompiledProgram


def dry_run(settings: PretrainingSettings, request: DryRunRequest) -> DryRun:
    """Compiles the step of a run for accelerators that need not be here; no array of the run is made.

    Where `config.compile_cache` names a folder, what the compiler said of a program is kept there, and taken from there
    the next time.

    Args:
        settings: Settings of the run.
        request: What it is compiled for.

    Raises:
        ConfigError: The settings do not fit each other, the data or the devices; the step does not fit in their
            memory; or the compiler is missing.
        DataError: A data set is named that is missing, unfinished or damaged.
    """
    mesh = _mesh(request.topology, model=settings.mesh.model)
    data = shapes_of_data(settings, simulated_format=request.simulated_format)
    run = abstract_run(settings, data, mesh)
    lowered, title = run.traced.lower(), request.topology.title
    kept = kept_file(settings.compile_cache, lowered, title)
    program = None if kept is None else read_kept(kept)
    if program is None:
        program = compile_ahead(lowered, what=title)
        if kept is not None:
            write_kept(kept, program)
    return DryRun(request=request, settings=settings, data=data, run=run, program=program)


def _mesh(topology: Topology, *, model: int) -> Mesh:
    arranged = slices.by_slices(devices_of(topology), model=model)
    return device_mesh.make_mesh(model=model, devices=list(arranged.flat))
