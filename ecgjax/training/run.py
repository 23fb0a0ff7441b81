"""A pretraining run, ready for its first step: data, sampler, mesh, state and compiled step."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled

from data_pipelines.physiology.paired_embeddings import PairedEmbeddings
from data_pipelines.streaming.batches import Choice, batches
from data_pipelines.streaming.sampler import Sampler
from ecgjax import encoders, optim
from ecgjax.augmentations import partners
from ecgjax.config import run_config
from ecgjax.config.run_config import ConfigError
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import Columns, row_columns
from ecgjax.data.samplers import make_sampler, patients_with_others, sampled_records
from ecgjax.encoders import cost
from ecgjax.leakage.trained_on import PretrainingRecords, pretraining_records
from ecgjax.training import device_mesh
from ecgjax.training.assembly import assemble
from ecgjax.training.checkpoint import Checkpoints
from ecgjax.training.embedding_rows import Layout, positives_are_other_recordings
from ecgjax.training.steps import Batch, TrainState, eval_step, init_state, train_step

#: Raise it when the same config, data and seed would no longer give the same batches and views.
#: 2: crops keep to what was recorded. 3: augmentations are keyed by name; Gaussian noise from hashed bits.
PIPELINE_VERSION = 3

#: Columns that a batch carries beside its signals, all `int32`, and where in the index they come from. Whose recordings
#: they are is the group's number: patients with a recording in common are taken for one.
COLUMNS = {"patient": "group", "valid_start": "valid_start", "valid_samples": "valid_samples"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A pretraining run, ready for its first step.

    Attributes:
        config: resolved.
        recordings: opened and divided.
        columns: what relation and miner look at beside patient and signal, name → `[n, …]` over all recordings.
        fingerprint: digest of all that decides which rows and views a step gets.
        mesh: of all devices of the run.
        sampler: of training records.
        split: the encoder at initialisation.
        layout: which rows of embeddings a recording becomes.
        num_steps: Number of steps of the whole run.
        state: before the first step, on the mesh.
        step: compiled, `(state, batch) → (state, metrics)`; donates its state.
        loss: see `steps.pretraining_loss`.
        flops_per_step: FLOP of a step on all devices together, see `cost.step_flops`; None where the step's trace does
            not tell.
    """

    config: ml_collections.ConfigDict
    recordings: Recordings
    columns: Columns
    fingerprint: str
    mesh: Mesh
    sampler: Sampler
    split: encoders.Split
    layout: Layout
    num_steps: int
    state: TrainState
    step: Compiled
    loss: Callable[..., Any]
    flops_per_step: float | None

    @property
    def batch_size(self) -> int:
        """Recordings of the global batch."""
        return self.config.batch_size

    def batches(self, sampler: Sampler, *, start_step: int = 0) -> Iterator[Batch]:
        """Global batches on the mesh, from `start_step` on, without end."""
        sharding = device_mesh.batch_sharding(self.mesh)
        rows = device_mesh.local_rows(sharding, self.batch_size)
        columns = {name: getattr(self.recordings.index, column) for name, column in COLUMNS.items()} | self.columns
        stream = batches(
            self.recordings.store,
            sampler,
            rows=rows,
            start_step=start_step,
            columns=columns,
            chosen=self._chosen(sampler),
            allow_bad_shards=self.config.data.allow_bad_shards,
        )
        seed = _seed(self.config, self.mesh)
        for batch in stream:
            valid = device_mesh.put_votes(batch.pop("valid"), mesh=self.mesh, rows=rows, batch_size=self.batch_size)
            yield device_mesh.put_batch(batch, sharding=sharding, rows=rows, batch_size=self.batch_size) | {
                "valid": valid,
                "seed": seed,
            }

    def _chosen(self, sampler: Sampler) -> dict[str, Choice]:
        """What of a batch follows from its step and rows and is no column over all recordings."""
        if not partners.needs(self.config.augment):
            return {}
        settings = {name: self.config.augment.geodesic[name] for name in partners.SETTINGS}
        return {partners.COLUMN: partners.Partners(sampler, self.columns, seed=self.config.seed, **settings)}


def prepare_run(config: ml_collections.ConfigDict, *, mesh: Mesh | None = None) -> Run:
    """Opens the data, initialises the encoder on the mesh and compiles the step.

    Args:
        config: Config of the run, with the leaves of `ecgjax/defaults.py`.
        mesh: instead of one over all devices.

    Raises:
        ConfigError: the config asks for what does not exist or does not fit.
        DataError: the data set is missing, unfinished or damaged.
    """
    run_config.check_ranges(config)
    recordings = open_recordings(config.data)
    mesh = device_mesh.make_mesh(model=config.mesh.model) if mesh is None else mesh
    sampler = make_sampler(config, recordings, recordings.split.train)
    num_steps = run_config.num_steps(
        config.duration, batch_size=config.batch_size, examples_per_epoch=sampler.examples_per_epoch
    )
    columns = row_columns(config, recordings)
    fingerprint = _fingerprint(config, recordings, columns, sampler)
    device_mesh.check_alike(fingerprint, what="data sets, split or sampling")
    model = assemble(config, recordings=recordings, columns=columns, mesh=mesh)
    check_other_recordings(config, recordings, model.layout)
    optimizer = optim.create(config.optimizer, num_steps=num_steps, batch_size=config.batch_size, params=model.params)
    rules = device_mesh.rules_of(config.mesh.sharding, config.mesh.rules)
    ema_decay = config.optimizer.ema_decay
    state = init_state(model.params, model.stats, optimizer, ema=ema_decay is not None)
    shardings = device_mesh.shardings_of(state, mesh, rules)
    # A copy, because the step donates its state and the encoder stays in use.
    state = jax.jit(lambda tree: jax.tree.map(jax.numpy.copy, tree), out_shardings=shardings)(state)
    step = train_step(model.loss, optimizer, frozen=model.frozen, ema_decay=ema_decay)
    # One trace both to compile and to count: the compiler itself counts a loop's body once.
    traced = jax.jit(step, donate_argnums=0, out_shardings=(shardings, device_mesh.replicated(mesh))).trace(
        state, abstract_batch(config, recordings, columns, mesh)
    )
    return Run(
        config=config,
        recordings=recordings,
        columns=columns,
        fingerprint=fingerprint,
        mesh=mesh,
        sampler=sampler,
        split=model.encoder,
        layout=model.layout,
        num_steps=num_steps,
        state=state,
        step=traced.lower().compile(),
        loss=model.loss,
        flops_per_step=cost.step_flops(traced.jaxpr.jaxpr),
    )


def records_of(run: Run) -> PretrainingRecords:
    """Lists the records that a run may draw."""
    records = sampled_records(run.config, run.recordings, run.recordings.split.train)
    return pretraining_records(run.recordings, records, run=run.fingerprint)


def restore_latest(run: Run, checkpoints: Checkpoints, metadata: Mapping[str, Any]) -> TrainState:
    """The latest checkpoint's state, or the run's first one where there is no checkpoint.

    Raises:
        ConfigError: the checkpoint comes from other data, another seed, sampler or batch size.
    """
    latest = checkpoints.latest_step()
    if latest is None:
        return run.state
    before = checkpoints.metadata(latest)
    # Checkpoints that were saved before records were listed are known by the fingerprint alone.
    if (
        before["fingerprint"] != metadata["fingerprint"]
        or before.get("records", metadata["records"]) != metadata["records"]
    ):
        raise ConfigError(
            f"{checkpoints.directory} was trained on another data set, split or sampling than "
            f"{run.config.data.dir} with this config gives; resume on the same data, or use another --workdir"
        )
    _, parts = checkpoints.restore(run.state.parts(), step=latest)
    return run.state.with_parts(parts)


def make_evaluation(run: Run) -> Callable[[TrainState], Mapping[str, float]] | None:
    """The contrastive loss over a fixed set of validation batches, or None where the validation folds are empty."""
    if not run.config.eval_every or not len(run.recordings.split.val):
        return None
    step = jax.jit(eval_step(run.loss))
    sampler = make_sampler(run.config, run.recordings, run.recordings.split.val)

    def evaluate(state: TrainState) -> Mapping[str, float]:
        stream = run.batches(sampler)
        metrics = jax.device_get([step(state, next(stream)) for _ in range(run.config.eval_batches)])
        stream.close()
        return {f"eval/{name}": float(np.mean([m[name] for m in metrics])) for name in metrics[0]}

    return evaluate


def check_other_recordings(config: ml_collections.ConfigDict, recordings: Recordings, layout: Layout) -> None:
    """Refuses training records of which no patient has two, where a positive can be nothing else."""
    if not positives_are_other_recordings(config, layout):
        return
    repeated, patients = patients_with_others(config, recordings, recordings.split.train)
    if not repeated:
        raise ConfigError(
            f"config.relation.name={config.relation.name!r} finds no positive: none of the {patients:,} patients of "
            f"{config.data.dir}'s training side (config.data.train_folds) has two recordings, and a recording becomes "
            "one row for which nothing is drawn. Give data in which patients repeat, or make views positives: "
            "config.views.num=2 and one of config.augment, as configs/three_kg.py does"
        )


def describe_positives(config: ml_collections.ConfigDict, recordings: Recordings, layout: Layout) -> list[str]:
    """Returns lines for people where only other recordings of a patient are positives; none where views are, too."""
    if not positives_are_other_recordings(config, layout):
        return []
    repeated, patients = patients_with_others(config, recordings, recordings.split.train)
    lines = [
        f"{repeated:,} of {patients:,} patients have two recordings or more; those of the others are negatives alone "
        "(train/anchors_without_positive counts them)"
    ]
    validation = recordings.split.val
    if config.eval_every and len(validation) and not patients_with_others(config, recordings, validation)[0]:
        lines.append(
            "no patient of the validation side has two recordings: there is no positive in evaluation, and eval/loss "
            "is 0"
        )
    return lines


def _fingerprint(
    config: ml_collections.ConfigDict,
    recordings: Recordings,
    columns: Columns,
    sampler: Sampler,
) -> str:
    """Digest of all that decides which rows and views a step gets."""
    digests = [
        (name, values.digest if isinstance(values, PairedEmbeddings) else _digest(values))
        for name, values in sorted({"group": recordings.index.group, **columns}.items())
    ]
    parts = (PIPELINE_VERSION, recordings.fingerprints, digests, sampler.fingerprint(), config.seed)
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _digest(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values), digest_size=16).hexdigest()


def _seed(config: ml_collections.ConfigDict, mesh: Mesh) -> jax.Array:
    """The run's seed as steps take it, `u32[]` on every device."""
    seed = np.uint32(config.seed % 2**32)
    return jax.make_array_from_callback((), device_mesh.replicated(mesh), lambda _: seed)


def abstract_batch(
    config: ml_collections.ConfigDict,
    recordings: Recordings,
    columns: Columns,
    mesh: Mesh,
) -> Batch:
    """Shapes, types and shardings of what `Run.batches` yields.

    Args:
        config: Config of the run.
        recordings: Recordings that it opens.
        columns: What `row_columns` gives.
        mesh: Mesh of the run.

    Raises:
        ConfigError: the batch does not divide among the devices.
    """
    sharding = device_mesh.batch_sharding(mesh)
    device_mesh.local_rows(sharding, config.batch_size)  # refuses a batch that does not divide
    shape = jax.ShapeDtypeStruct
    ids = shape((config.batch_size,), np.int32, sharding=sharding)
    signal = shape((config.batch_size, *recordings.format.shape), np.int16, sharding=sharding)
    votes = shape((config.batch_size, mesh.shape["model"]), np.bool_, sharding=device_mesh.votes_sharding(mesh))
    others = {
        name: shape((config.batch_size, *values.shape[1:]), values.dtype, sharding=sharding)
        for name, values in columns.items()
    }
    chosen = {partners.COLUMN: ids} if partners.needs(config.augment) else {}
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
