"""A pretraining run, ready for its first step: data, sampler, mesh, state and compiled step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from data_pipelines.streaming.sampler import Sampler
from ecgjax import encoders, optim
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import Columns, row_columns
from ecgjax.data.samplers import SampledSide
from ecgjax.errors import ConfigError, chosen
from ecgjax.optim import Extension
from ecgjax.placement.parameter_layout import ParameterLayout
from ecgjax.training import device_mesh
from ecgjax.training.assembly import Assembly, assemble
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.compilation.compiled_step import compile_step
from ecgjax.training.debugging.debug_batches import batches_of
from ecgjax.training.device_batches import put_ahead
from ecgjax.training.embedding_rows import Layout
from ecgjax.training.other_recordings import check_other_recordings
from ecgjax.training.resumption import refuse_changes
from ecgjax.training.run_batches import abstract_batch, read_batches, sampled_side
from ecgjax.training.run_fingerprint import part_digests, run_fingerprint
from ecgjax.training.settings import DurationSettings, PretrainingSettings
from ecgjax.training.step_program import step_program
from ecgjax.training.steps import Batch, Metrics, TrainState
from ecgjax.training.tasks.task_choice import Task
from ecgjax.training.warm_start import SourceWeights, WarmStart, begin_with, check_source

#: Greatest number of steps: they are counted in 32 bits with a sign.
_MOST_STEPS = 2**31 - 1


class Resumption(NamedTuple):
    """What a run goes on from.

    Attributes:
        state: State of its first step.
        before: Metadata of the checkpoint that it comes from; None at the beginning of a run.
    """

    state: TrainState
    before: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Run:
    """A pretraining run, ready for its first step.

    Attributes:
        settings: Settings of the run.
        recordings: Recordings, opened and divided.
        side: Training side of the split, and how records are drawn from it.
        columns: Columns of metadata beside patient and signal that the method uses, by name, `[n, …]` over all
            recordings.
        fingerprint: Digest of all that decides which rows and views a step gets.
        digests: Digests of the parts of that, by their names (`resumption.PARTS`).
        mesh: Mesh of all devices of the run.
        sampler: Sampler of training records.
        split: Encoder at initialisation, or with the weights that the run begins with.
        task: Task that is predicted beside the objective; None for none.
        frozen: Names of the parameters that stay as they are.
        layout: Rows of embeddings that a recording becomes.
        parameter_layout: Layout of the parameters on the mesh.
        num_steps: Number of steps of the whole run, its extensions included.
        extensions: Steps beyond the length in the config.
        warm_start: Match of the weights that the run begins with; None where it begins at random, or resumes.
        state: State before the first step, on the mesh.
        step: Compiled step, `(state, batch) → (state, metrics)`, which donates its state.
        loss: Loss as `steps.pretraining_loss` returns it.
        learning_rate: Function from the number of an update, from 0, to its learning rate, for logs.
        flops_per_step: FLOP of a step on all devices together, from `cost.step_flops`; None where the step has
            loops of unknown length.
        gradient_norms: Function `(state, batch) → metrics` of the gradients of objective and task apart; None where not
            both train.
    """

    settings: PretrainingSettings
    recordings: Recordings
    side: SampledSide
    columns: Columns
    fingerprint: str
    digests: Mapping[str, str]
    mesh: Mesh
    sampler: Sampler
    split: encoders.Split[encoders.Encoder]
    task: Task | None
    frozen: frozenset[str]
    layout: Layout
    parameter_layout: ParameterLayout
    num_steps: int
    extensions: tuple[Extension, ...]
    warm_start: WarmStart | None
    state: TrainState
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    loss: Callable[..., Any]
    learning_rate: Callable[[int], float]
    flops_per_step: float | None
    gradient_norms: Callable[[TrainState, Batch], Metrics] | None = None

    @property
    def batch_size(self) -> int:
        """Number of recordings of the global batch."""
        return self.settings.batch_size

    def batches(self, sampler: Sampler, *, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yields global batches on the mesh, columns by name, from `start_step` on, without end.

        Args:
            sampler: Sampler that says which records a step's rows hold.
            start_step: Step of the first batch.
        """
        stream = read_batches(
            self.settings, self.recordings, self.columns, sampler, mesh=self.mesh, start_step=start_step
        )
        return batches_of(put_ahead(stream), self.settings.debug)


def prepare_run(
    settings: PretrainingSettings,
    *,
    mesh: Mesh | None = None,
    source: SourceWeights | None = None,
    extensions: Sequence[Extension] = (),
    recordings: Recordings | None = None,
) -> Run:
    """Opens the data, initialises the encoder on the mesh and compiles the step.

    Args:
        settings: Settings of the run.
        mesh: Mesh of the run; None for one over all devices.
        source: Weights that the run begins with; None for random ones, and where a checkpoint is resumed.
        extensions: Steps beyond the length in the settings.
        recordings: Recordings of the run where they are open already; None to open them.

    Raises:
        ConfigError: A setting names something that does not exist, or settings do not fit each other or the data.
        DataError: The data set is missing, unfinished or damaged.
    """
    recordings = open_recordings(settings.data) if recordings is None else recordings
    mesh = device_mesh.make_mesh(model=settings.mesh.model) if mesh is None else mesh
    side = sampled_side(settings, recordings, recordings.split.train)
    sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)
    steps = num_steps(settings.duration, batch_size=settings.batch_size, examples_per_epoch=sampler.examples_per_epoch)
    total = _with_extensions(steps, extensions)
    if source is not None:
        check_source(source, settings.encoder, recordings.format)
    columns = row_columns(settings.column_use, recordings, seed=settings.seed)
    fingerprint = run_fingerprint(recordings, columns, sampler, seed=settings.seed)
    device_mesh.check_alike(fingerprint, what="data sets, split or sampling")
    model = assemble(
        settings, signal_format=recordings.format, train=recordings.split.train, columns=columns, mesh=mesh
    )
    model, warm_start = _begun(model, source, settings)
    check_other_recordings(side, settings, model.layout)
    program = step_program(settings, model, mesh=mesh, num_steps=steps, extensions=extensions)
    state = program.begin(model.params, model.stats)
    shardings = program.layout.shardings(state)
    # The state is copied, because the step donates it and the encoder stays in use.
    state = jax.jit(lambda tree: jax.tree.map(jax.numpy.copy, tree), out_shardings=shardings)(state)
    compiled, flops = compile_step(
        program.step,
        state,
        abstract_batch(settings, recordings.format, columns, mesh),
        shardings=shardings,
        everywhere=device_mesh.replicated(mesh),
        nan_checks=settings.debug.nan_checks,
    )
    return Run(
        settings=settings,
        recordings=recordings,
        side=side,
        columns=columns,
        fingerprint=fingerprint,
        digests=part_digests(recordings, columns, sampler),
        mesh=mesh,
        sampler=sampler,
        split=model.encoder,
        task=model.task,
        frozen=model.frozen,
        layout=model.layout,
        parameter_layout=program.layout,
        num_steps=total,
        extensions=tuple(extensions),
        warm_start=warm_start,
        state=state,
        step=compiled,
        loss=program.loss,
        learning_rate=optim.logged_rate(
            settings.optimizer, steps, batch_size=settings.batch_size, extensions=extensions
        ),
        flops_per_step=flops,
        gradient_norms=None if program.gradient_norms is None else jax.jit(program.gradient_norms),
    )


def _begun(
    model: Assembly, source: SourceWeights | None, settings: PretrainingSettings
) -> tuple[Assembly, WarmStart | None]:
    """Returns the model with the weights that it begins with, which must be those of every process."""
    if source is None:
        return model, None
    params, stats, warm_start = begin_with(
        source, settings.init, settings.encoder, params=model.params, stats=model.stats
    )
    device_mesh.check_alike(warm_start.digest, what="weights in config.init.source")
    encoder = model.encoder._replace(params=params["encoder"], stats=stats["encoder"])
    return model._replace(encoder=encoder, params=params, stats=stats), warm_start


def _with_extensions(steps: int, extensions: Sequence[Extension]) -> int:
    total = steps + (extensions[-1].end if extensions else 0)
    if total > _MOST_STEPS:
        raise ConfigError(
            f"--extend={extensions[-1].end} makes {total:,} steps of {steps:,}, more than the {_MOST_STEPS:,} that a "
            "run can count"
        )
    return total


def restore_latest(run: Run, checkpoints: Checkpoints, metadata: Mapping[str, Any]) -> Resumption:
    """Returns the state that a run goes on from: that of the latest good checkpoint, or its first one.

    Args:
        run: Run that begins or resumes.
        checkpoints: Checkpoints of the run's workdir.
        metadata: Metadata that the run saves; data, columns and sampling must be those of the checkpoint, but for what
            `config.resume.allow` names.

    Raises:
        ConfigError: The checkpoint comes from other data, another seed, sampler or batch size, or from beyond the run's
            end.
        CheckpointError: All checkpoints are damaged, or the latest belongs to another model.
    """

    def accept(step: int, before: Mapping[str, Any]) -> Mapping[str, Any]:
        refuse_changes(
            before,
            metadata,
            allow=run.settings.resume.allow,
            directory=str(checkpoints.directory),
            data=run.settings.data.dir,
        )
        if step > run.num_steps:
            raise ConfigError(
                f"{checkpoints.directory} has a checkpoint of step {step:,}, and the run ends at step "
                f"{run.num_steps:,}: the record of its extension is gone; give --extend={step - run.num_steps} or more "
                "again"
            )
        return {}

    latest = checkpoints.restore_latest(run.state.parts(), accept=accept)
    if latest is None:
        return Resumption(run.state, None)
    return Resumption(run.state.with_parts(latest.parts), latest.metadata)


def num_steps(duration: DurationSettings, *, batch_size: int, examples_per_epoch: int) -> int:
    """Returns the number of steps of a run whose length is given in steps, epochs or examples.

    Args:
        duration: Settings of the length.
        batch_size: Number of examples of a step.
        examples_per_epoch: Number of examples of an epoch of the sampler.

    Raises:
        ConfigError: The unit is unknown, or the length is not a single step.
    """
    steps_per_unit = {"steps": 1.0, "epochs": examples_per_epoch / batch_size, "examples": 1.0 / batch_size}
    steps = math.ceil(duration.value * chosen(steps_per_unit, duration.unit, setting="config.duration.unit"))
    if steps < 1:
        raise ConfigError(f"config.duration of {duration.value} {duration.unit} is not a single step")
    if steps > _MOST_STEPS:
        raise ConfigError(
            f"config.duration.value={duration.value} {duration.unit} are more than the {_MOST_STEPS:,} steps "
            "that a run can count"
        )
    return steps
