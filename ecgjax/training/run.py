"""A pretraining run, ready for its first step: data, sampler, mesh, state and compiled step."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.physiology.paired_embeddings import PairedEmbeddings
from data_pipelines.records import SignalFormat
from data_pipelines.streaming.batches import Choice, batches
from data_pipelines.streaming.sampler import Sampler
from ecgjax import encoders, optim
from ecgjax.augmentations import partners
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import Columns, row_columns
from ecgjax.data.samplers import SampledSide
from ecgjax.errors import CheckpointError, ConfigError, chosen
from ecgjax.leakage.trained_on import (
    RECORDS_FILE,
    PretrainingRecords,
    pretraining_records,
    read_pretraining_records,
)
from ecgjax.optim import Extension
from ecgjax.placement.parameter_layout import ParameterLayout
from ecgjax.training import device_mesh
from ecgjax.training.assembly import Assembly, assemble
from ecgjax.training.best_checkpoint import Best, best_by
from ecgjax.training.checkpoint import Checkpoints
from ecgjax.training.compilation.compiled_step import compile_step
from ecgjax.training.debugging.debug_batches import batches_of, store_of
from ecgjax.training.device_batches import put_ahead
from ecgjax.training.embedding_rows import Layout, positives_are_other_recordings
from ecgjax.training.resumption import refuse_changes
from ecgjax.training.settings import DurationSettings, PretrainingSettings
from ecgjax.training.step_program import step_program
from ecgjax.training.steps import Batch, Metrics, TrainState, eval_step
from ecgjax.training.warm_start import SourceWeights, WarmStart, begin_with, check_source

#: Version that is raised when the same config, data and seed no longer give the same batches and views. Since 2, crops
#: keep to what was recorded. Since 3, augmentations are keyed by name, and Gaussian noise comes from hashed bits.
PIPELINE_VERSION = 3

#: Greatest number of steps: they are counted in 32 bits with a sign.
_MOST_STEPS = 2**31 - 1

#: Column that a batch carries beside its signals, `int32` → column of the index that it comes from. The patient is the
#: group's number, because patients with a recording in common are taken for one.
COLUMNS = {"patient": "group", "valid_start": "valid_start", "valid_samples": "valid_samples"}


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
        return batches_of(put_ahead(self._read_batches(sampler, start_step)), self.settings.debug)

    def _read_batches(self, sampler: Sampler, start_step: int) -> Generator[Batch, None, None]:
        sharding = device_mesh.batch_sharding(self.mesh)
        rows = device_mesh.local_rows(sharding, self.batch_size)
        columns = {name: getattr(self.recordings.index, column) for name, column in COLUMNS.items()} | self.columns
        stream = batches(
            store_of(self.recordings.store, self.settings.debug),
            sampler,
            rows=rows,
            start_step=start_step,
            columns=columns,
            chosen=self.chosen(sampler),
            allow_bad_shards=self.settings.data.allow_bad_shards,
        )
        seed = _seed(self.settings.seed, self.mesh)
        for batch in stream:
            valid = device_mesh.put_votes(batch.pop("valid"), mesh=self.mesh, rows=rows, batch_size=self.batch_size)
            yield device_mesh.put_batch(batch, sharding=sharding, rows=rows, batch_size=self.batch_size) | {
                "valid": valid,
                "seed": seed,
            }

    def chosen(self, sampler: Sampler) -> dict[str, Choice]:
        """Returns functions `(step, rows) → column` by name of the column, for columns that depend on the step.

        Args:
            sampler: Sampler that says which records a step's rows hold.
        """
        augment = self.settings.augment
        if not partners.needs(augment):
            return {}
        geodesic = augment["geodesic"]
        regularisation = geodesic["regularisation"]
        if not isinstance(regularisation, int | float):
            raise ConfigError(f"config.augment.geodesic.regularisation={regularisation!r} must be a number")
        chosen = partners.Partners(
            sampler,
            {name: values for name, values in self.columns.items() if isinstance(values, np.ndarray)},
            seed=self.settings.seed,
            coupling=str(geodesic["coupling"]),
            regularisation=float(regularisation),
        )
        return {partners.COLUMN: chosen}


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
    side = SampledSide(settings.sampling, recordings, recordings.split.train, weights=settings.data.weights)
    sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)
    steps = num_steps(settings.duration, batch_size=settings.batch_size, examples_per_epoch=sampler.examples_per_epoch)
    total = _with_extensions(steps, extensions)
    if source is not None:
        check_source(source, settings.encoder, recordings.format)
    columns = row_columns(settings.column_use, recordings, seed=settings.seed)
    fingerprint = _fingerprint(recordings, columns, sampler, seed=settings.seed)
    device_mesh.check_alike(fingerprint, what="data sets, split or sampling")
    model = assemble(
        settings, signal_format=recordings.format, train=recordings.split.train, columns=columns, mesh=mesh
    )
    model, warm_start = _begun(model, source, settings)
    if positives_are_other_recordings(settings.method, settings.sampling, model.layout):
        _check_other_recordings(side, settings)
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
        digests=_digests(recordings, columns, sampler),
        mesh=mesh,
        sampler=sampler,
        split=model.encoder,
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


def records_of(run: Run, *, earlier: PretrainingRecords | None = None) -> PretrainingRecords:
    """Returns the list of the records that a run may draw, to keep with its checkpoints.

    Args:
        run: Run whose records are listed.
        earlier: All that the encoder which the run began with had seen; None for a run that began at random.
    """
    own = pretraining_records(run.recordings, run.side.records, run=run.fingerprint)
    return own if earlier is None else own.after(earlier)


def records_of_resumption(
    run: Run, listed: PretrainingRecords, before: Mapping[str, Any], workdir: str | Path
) -> PretrainingRecords:
    """Returns the list of all records that a run has drawn and may draw, where it goes on with other data.

    Args:
        run: Run that resumes.
        listed: List of the records that it may draw from now on, as `records_of` returns it.
        before: Metadata of the checkpoint that it goes on from.
        workdir: Folder of the run, with the list of what it has drawn.

    Raises:
        CheckpointError: That list is missing, damaged, or of another run.
    """
    if before.get("records", listed.digest) == listed.digest:
        return listed
    path = Path(workdir) / RECORDS_FILE
    remedy = "it also lists what the run drew before its data were changed: restore it from a copy"
    drawn = read_pretraining_records(path, remedy=remedy)
    if drawn.run == run.fingerprint:  # It was written by an earlier resumption with these data.
        return records_of(run).after(drawn.earlier)
    if drawn.digest != before["records"]:
        raise CheckpointError(f"{path} lists the records of another run than the checkpoints beside it; {remedy}")
    return records_of(run).after(drawn)


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


def make_evaluation(run: Run) -> Callable[[TrainState], Mapping[str, float]] | None:
    """Returns an evaluation of the loss over a fixed set of validation batches, or None where there are none."""
    settings = run.settings
    if not settings.eval_every or not len(run.recordings.split.val):
        return None
    step = jax.jit(eval_step(run.loss))
    side = SampledSide(settings.sampling, run.recordings, run.recordings.split.val, weights=settings.data.weights)
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


def _check_other_recordings(side: SampledSide, settings: PretrainingSettings) -> None:
    """Raises an error where only another recording of a patient can be a positive and no patient has two."""
    repeated, patients = side.patients_with_others
    if not repeated:
        raise ConfigError(
            f"config.relation.name={settings.relation.name!r} finds no positive: none of the {patients:,} patients of "
            f"{settings.data.dir}'s training side (config.data.train_folds) has two recordings, and a recording "
            "becomes one row for which nothing is drawn. Give data in which patients repeat, or make views positives: "
            "config.views.num=2 and one of config.augment, as configs/three_kg.py does"
        )


def describe_positives(run: Run) -> list[str]:
    """Returns printable lines on patients with several recordings, where only these give positives; otherwise none."""
    settings, recordings = run.settings, run.recordings
    if not positives_are_other_recordings(settings.method, settings.sampling, run.layout):
        return []
    repeated, patients = run.side.patients_with_others
    lines = [
        f"{repeated:,} of {patients:,} patients have two recordings or more; those of the others are negatives alone "
        "(train/anchors_without_positive counts them)"
    ]
    validation = recordings.split.val
    if settings.eval_every and len(validation):
        side = SampledSide(settings.sampling, recordings, validation, weights=settings.data.weights)
        if not side.patients_with_others[0]:
            lines.append(
                "no patient of the validation side has two recordings: there is no positive in evaluation, and "
                "eval/loss is 0"
            )
    return lines


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


def _fingerprint(recordings: Recordings, columns: Columns, sampler: Sampler, *, seed: int) -> str:
    """Returns a digest, in hexadecimal, of all that decides which rows and views a step gets."""
    digests = _column_digests(recordings, columns)
    return _digest_of((PIPELINE_VERSION, recordings.fingerprints, digests, sampler.fingerprint(), seed))


def _digests(recordings: Recordings, columns: Columns, sampler: Sampler) -> dict[str, str]:
    """Returns the digests of the parts of the fingerprint (`resumption.PARTS`)."""
    groups, *others = sorted(_column_digests(recordings, columns), key=lambda column: column[0] != "group")
    return {
        "data": _digest_of((recordings.fingerprints, groups)),
        "columns": _digest_of(others),
        "sampling": sampler.fingerprint(),
        "pipeline": str(PIPELINE_VERSION),
    }


def _column_digests(recordings: Recordings, columns: Columns) -> list[tuple[str, str]]:
    # Columns are sorted, because the order in which they were made is not part of the data. Partners are read row by
    # row, so that their file's digest stands for them.
    return [
        (name, values.digest if isinstance(values, PairedEmbeddings) else _digest(values))
        for name, values in sorted({"group": recordings.index.group, **columns}.items())
    ]


def _digest_of(value: object) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()


def _digest(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest()


def _seed(seed: int, mesh: Mesh) -> jax.Array:
    """Returns the run's seed as steps take it, `u32[]` on every device."""
    bits = np.uint32(seed % 2**32)
    return jax.make_array_from_callback((), device_mesh.replicated(mesh), lambda _: bits)


def abstract_batch(
    settings: PretrainingSettings, signal_format: SignalFormat, columns: Columns, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, types and shardings of what `Run.batches` yields.

    Args:
        settings: Settings of the run.
        signal_format: Rate and length of the recordings.
        columns: Columns over all recordings that `row_columns` returned.
        mesh: Mesh of the run.

    Raises:
        ConfigError: The batch does not divide among the devices.
    """
    sharding = device_mesh.batch_sharding(mesh)
    device_mesh.local_rows(sharding, settings.batch_size)  # It raises an error for a batch that does not divide.
    shape = jax.ShapeDtypeStruct
    ids = shape((settings.batch_size,), np.int32, sharding=sharding)
    signal = shape((settings.batch_size, *signal_format.shape), np.int16, sharding=sharding)
    votes = shape((settings.batch_size, mesh.shape["model"]), np.bool_, sharding=device_mesh.votes_sharding(mesh))
    others = {
        name: shape((settings.batch_size, *values.shape[1:]), values.dtype, sharding=sharding)
        for name, values in columns.items()
    }
    chosen = {partners.COLUMN: ids} if partners.needs(settings.augment) else {}
    return {
        "signal": signal,
        "valid": votes,
        "row": ids,
        "record": ids,
        "seed": shape((), np.uint32, sharding=device_mesh.replicated(mesh)),
        **dict.fromkeys(COLUMNS, ids),
        **others,
        **chosen,
    }
