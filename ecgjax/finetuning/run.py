"""A fine-tuning run, ready for its first step: labels, sampler, mesh, state and compiled step.

A batch is that of `FineTuning.train`: the same records in the same rows, whatever the number of devices and processes.
The best weights so far and the history of looks at validation are part of every checkpoint, so that a run that was
interrupted chooses the same weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from data_pipelines.streaming.batches import batches
from data_pipelines.streaming.sampler import Sampler
from ecgjax import encoders
from ecgjax.config.run_config import names_in
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import digests
from ecgjax.evaluation.features.features import SplitFeatures, map_records
from ecgjax.evaluation.features.frozen_encoder import Encoder, recalibrate_batch_norm
from ecgjax.evaluation.models.answers import examples_of
from ecgjax.evaluation.models.kinds import QuestionKind, kind_of
from ecgjax.evaluation.models.linear import fit_linear
from ecgjax.finetuning.changes import is_same_run
from ecgjax.finetuning.looks import Looks
from ecgjax.finetuning.settings import FineTuningSettings
from ecgjax.finetuning.supervision import Supervision
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.placement.parameter_layout import ParameterLayout, lay_out
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.best_checkpoint import Best, best_by
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.compilation.compiled_step import compile_step
from ecgjax.training.debugging.debug_batches import batches_of, store_of
from ecgjax.training.device_batches import put_ahead
from ecgjax.training.loop import EVALUATION_DUE
from ecgjax.training.steps import Batch, Metrics, TrainState, Weights

#: Version that is raised when the same settings, labels and seed no longer give the same batches.
PIPELINE_VERSION = 1

#: Least number of rows that are predicted at once; a mesh whose devices do not divide it takes the next multiple.
_PREDICTED_AT_ONCE = 128

#: Part of a checkpoint that holds the best weights.
_BEST = "best"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FineTuningRun:
    """A fine-tuning run, ready for its first step.

    Attributes:
        settings: Settings of the run.
        recordings: Recordings, opened and divided.
        data: Labelled records of the task.
        encoder: Pretrained encoder that training begins at.
        tuning: Network, loss and optimiser.
        supervision: Labels in the form in which training uses them.
        sampler: Sampler of the training records.
        digests: Digests of parts of what decides a run beside its settings, by the names in `resumption.PARTS`.
        fingerprint: Digest of all that decides a run but its settings.
        mesh: Mesh of all devices of the run.
        parameter_layout: Layout of the parameters on the mesh.
        state: State on the mesh, with the head at zeros; `first_state` returns the one that training begins at.
        step: Compiled step, `(state, batch) → (state, metrics)`, which donates its state.
        outputs: Jitted function `(params, stats, signal) → outputs`, the same on every device.
        flops_per_step: Number of FLOP of a step on all devices together; None where it is not known.
    """

    settings: FineTuningSettings
    recordings: Recordings
    data: ProbeData
    encoder: Encoder
    tuning: FineTuning
    supervision: Supervision
    sampler: Sampler
    digests: Mapping[str, str]
    fingerprint: str
    mesh: Mesh
    parameter_layout: ParameterLayout
    state: TrainState
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    outputs: Callable[..., jax.Array]
    flops_per_step: float | None

    @property
    def kind(self) -> QuestionKind:
        """Kind of the task."""
        return kind_of(self.data.task)

    @property
    def batch_size(self) -> int:
        """Number of recordings of the global batch."""
        return self.settings.training.batch_size

    @property
    def num_steps(self) -> int:
        """Largest number of steps of the run."""
        return self.settings.training.steps

    def batches(self, *, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yields global batches on the mesh, columns by name, from `start_step` on, without end.

        Args:
            start_step: Step of the first batch.
        """
        return batches_of(put_ahead(self._read_batches(start_step)), self.settings.debug)

    def _read_batches(self, start_step: int) -> Generator[Batch, None, None]:
        sharding = device_mesh.batch_sharding(self.mesh)
        rows = device_mesh.local_rows(sharding, self.batch_size, leaf="config.training.batch_size")
        columns = _columns(self.tuning, self.recordings, self.data, self.supervision)
        kept = {"signal", "row", *columns, *(["record"] if self.tuning.needs_patients else [])}
        store = store_of(self.recordings.store, self.settings.debug)
        stream = batches(store, self.sampler, rows=rows, start_step=start_step, columns=columns)
        seed = np.uint32(self.settings.seed % 2**32)
        constant = {"seed": seed, "positive_weight": self.supervision.weight}
        everywhere = {name: _replicate(value, self.mesh) for name, value in constant.items()}
        for batch in stream:
            own = {name: values for name, values in batch.items() if name in kept}
            put = device_mesh.put_batch(own, sharding=sharding, rows=rows, batch_size=self.batch_size)
            yield put | everywhere

    def predict(self, weights: Weights, records: np.ndarray) -> np.ndarray:
        """Returns outputs of the network for recordings, `f64[n, outputs]`; every process must call it.

        Args:
            weights: Parameters and statistics on the mesh.
            records: Record numbers, `int64[n]`, at least one.
        """
        sharding = device_mesh.batch_sharding(self.mesh)
        share = self.mesh.shape["data"]
        size = -(-_PREDICTED_AT_ONCE // share) * share
        rows, found = device_mesh.local_rows(sharding, size), []
        for start in range(0, len(records), size):
            part = records[start : start + size]
            # The last batch is padded, so that the program compiles once.
            padded = np.pad(part, (0, size - len(part)), mode="edge")
            signal = {"signal": store_of(self.recordings.store, self.settings.debug).read(padded[rows])}
            put = device_mesh.put_batch(signal, sharding=sharding, rows=rows, batch_size=size)
            outputs = self.outputs(weights.params, weights.stats, put["signal"])
            found.append(np.asarray(outputs)[: len(part)])
        return np.concatenate(found).astype(np.float64)

    def scores(self, weights: Weights, records: np.ndarray) -> np.ndarray:
        """Returns log odds at the training records' prevalence, or values: `f64[n]` or `f64[n, classes]`.

        Args:
            weights: Parameters and statistics on the mesh.
            records: Record numbers, `int64[n]`, at least one.
        """
        return self.supervision.scores(self.predict(weights, records))


def prepare_run(
    settings: FineTuningSettings,
    *,
    recordings: Recordings,
    data: ProbeData,
    encoder: Encoder,
    weights_digest: str,
    mesh: Mesh | None = None,
) -> FineTuningRun:
    """Puts the network on the mesh and compiles the step.

    Args:
        settings: Settings of the run.
        recordings: Recordings of the run.
        data: Labelled records of the task.
        encoder: Pretrained encoder that training begins at.
        weights_digest: Digest of its weights.
        mesh: Mesh of the run; None for one over all devices.

    Raises:
        ConfigError: A setting is unknown, or settings contradict each other, the data or the devices.
        DataError: The labels allow no training.
    """
    mesh = device_mesh.make_mesh(model=settings.mesh.model) if mesh is None else mesh
    tuning = FineTuning(
        settings.training,
        optimizer=settings.optimizer.shared,
        encoder=encoder.split,
        num_leads=encoder.num_leads,
        kind=kind_of(data.task),
        classes=data.classes,
        ema_decay=settings.optimizer.ema_decay,
        reduce=settings.mesh.reduce,
    )
    supervision = tuning.supervision(data, seed=settings.seed)
    sampler = tuning.sampler(supervision, data.train.records, seed=settings.seed)
    fingerprint, parts = _digests(recordings, data, sampler, weights_digest=weights_digest, seed=settings.seed)
    device_mesh.check_alike(fingerprint, what="data sets, split, labels or encoder")
    template = tuning.template(encoder.split, supervision, seed=settings.seed)
    parameter_layout = lay_out(template.params, mesh, settings.mesh)
    state = _on_mesh(template, parameter_layout)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    everywhere = device_mesh.replicated(mesh)
    compiled, flops = compile_step(
        tuning.update(parameter_layout.gathering(tuning.loss)),
        state,
        _abstract_batch(settings, recordings, tuning, supervision, mesh),
        shardings=shardings,
        everywhere=everywhere,
        nan_checks=settings.debug.nan_checks,
    )
    return FineTuningRun(
        settings=settings,
        recordings=recordings,
        data=data,
        encoder=encoder,
        tuning=tuning,
        supervision=supervision,
        sampler=sampler,
        digests=parts,
        fingerprint=fingerprint,
        mesh=mesh,
        parameter_layout=parameter_layout,
        state=state,
        step=compiled,
        outputs=jax.jit(parameter_layout.gathering(tuning.answer), out_shardings=everywhere),
        flops_per_step=flops,
    )


def first_state(run: FineTuningRun, *, progress: bool = True) -> TrainState:
    """Returns the state that training begins at, on the mesh.

    Where the encoder stays frozen or the head begins at a linear probe, batch norm is first recalibrated on unaugmented
    training recordings, as for the probes of the studies; otherwise its statistics are those of the source, and
    training goes on with them.

    Args:
        run: Run that begins.
        progress: Whether progress bars are drawn.
    """
    settings, encoder, read, probe = run.settings, run.encoder, run.recordings.store.read, None
    encoder = dataclasses.replace(encoder, layer="features")  # A head stands on the features, whatever else is known.
    recalibrated = run.tuning.encoder_is_frozen or run.tuning.begins_at_probe
    if recalibrated and jax.tree.leaves(encoder.split.stats):
        encoder = recalibrate_batch_norm(
            encoder,
            read,
            records=run.recordings.split.train,
            seed=settings.seed,
            progress=progress and _is_first(),
        )
    if run.tuning.begins_at_probe:
        sides = {"train": run.data.train, "val": run.data.val}
        features = {
            name: map_records(
                encoder.embed, side.records, read=read, title=f"features, {name}", progress=progress and _is_first()
            )
            for name, side in sides.items()
        }
        none = features["val"][:0]
        probe = fit_linear(examples_of(SplitFeatures(**features, test=none), run.data))
    state = run.tuning.first_state(encoder.split, run.supervision, seed=settings.seed, probe=probe)
    if jax.process_count() > 1:
        # Every process has computed these by itself, and the last bits may depend on its processor.
        state = multihost_utils.broadcast_one_to_all(state)
    return _on_mesh(state, run.parameter_layout)


class Resumption(NamedTuple):
    """What a run goes on from.

    Attributes:
        state: State of the checkpoint.
        looks: Looks up to it.
        metadata: Metadata of the checkpoint; None where the run begins.
        evaluation_due: Whether the look at its step is still to be done.
    """

    state: TrainState
    looks: Looks
    metadata: Mapping[str, Any] | None
    evaluation_due: bool


def restore_latest(run: FineTuningRun, checkpoints: Checkpoints, metadata: Mapping[str, Any]) -> Resumption | None:
    """Returns what the run goes on from, of the latest checkpoint that is good; None where there is no checkpoint.

    Args:
        run: Run that begins or resumes.
        checkpoints: Checkpoints of the run's workdir.
        metadata: Metadata that the run saves.

    Raises:
        ConfigError: The checkpoint comes from other data, labels or another encoder.
        CheckpointError: All checkpoints are damaged, or the latest belongs to another model.
    """
    allowed = names_in(run.settings.resume.allow)

    def accept(_: int, before: Mapping[str, Any]) -> Mapping[str, Any]:
        if not is_same_run(before, metadata, allowed=allowed):
            raise ConfigError(
                f"{checkpoints.directory} was trained with other recordings, labels or another encoder than "
                f"config.data.dir={run.settings.data.dir} and config.init.source={run.settings.init.source} now hold; "
                "resume with the same, or use another --workdir"
            )
        looked = Looks.from_json(before["looks"], None).best is not None
        return {_BEST: run.state.evaluated._asdict()} if looked else {}

    latest = checkpoints.restore_latest(run.state.parts(), accept=accept)
    if latest is None:
        return None
    weights = Weights(**latest.parts[_BEST]) if _BEST in latest.parts else None
    looks = Looks.from_json(latest.metadata["looks"], weights)
    state = run.state.with_parts(latest.parts)
    return Resumption(state, looks, latest.metadata, bool(latest.metadata.get(EVALUATION_DUE)))


def parts_of(state: TrainState, looks: Looks) -> dict[str, Any]:
    """Returns the parts of a checkpoint by name.

    Args:
        state: State after a step.
        looks: Looks so far.
    """
    return state.parts() | ({} if looks.weights is None else {_BEST: looks.weights._asdict()})


def make_look(run: FineTuningRun, looks: Looks) -> Callable[[TrainState], Mapping[str, float]]:
    """Returns a function that evaluates a state on validation, adds it to the looks, and returns its metrics.

    A head at zeros is not evaluated: there are metrics of step 0 only where the head begins at a probe.

    Args:
        run: Run whose states are evaluated.
        looks: Looks that are added to.
    """

    def look(state: TrainState) -> Mapping[str, float]:
        step = int(state.step)
        if step == 0 and not run.tuning.begins_at_probe:
            return {}
        outputs = run.predict(state.evaluated, run.supervision.looked_at)
        if jax.process_count() > 1:
            # Processes must agree on the choice to the last bit, or they would not end together.
            first = multihost_utils.broadcast_one_to_all(outputs.astype(np.float32))
            outputs = np.asarray(first, np.float64)
        found = run.tuning.measure(run.supervision, outputs, step=step)
        looks.see(found, state.evaluated)
        return dict(zip(_metrics(run), (found.loss, found.metric), strict=True))

    return look


def best_of(run: FineTuningRun) -> Best | None:
    """Returns the measure of the run's best checkpoint, or None where the config names none.

    Args:
        run: Run whose checkpoints are meant.

    Raises:
        ConfigError: The measure is no metric of a look at validation.
    """
    best = best_by(run.settings.checkpoint)
    if best is not None:
        best.check(_metrics(run))
    return best


def _metrics(run: FineTuningRun) -> tuple[str, str]:
    """Returns the full names of loss and metric of a look at validation."""
    return "eval/loss", f"eval/{run.kind.primary.replace(' ', '_')}"


def _is_first() -> bool:
    return jax.process_index() == 0


def _replicate(value: Any, mesh: Mesh) -> jax.Array:
    """Returns a value as an array that is whole on every device."""
    array = np.asarray(value)
    return jax.make_array_from_callback(array.shape, device_mesh.replicated(mesh), lambda index: array[index])


def _on_mesh(state: TrainState, layout: ParameterLayout) -> TrainState:
    """Returns a state of one device, or of the host, on the mesh."""
    # What is committed to one device cannot be moved by a program of the mesh, but arrays of the host can.
    host = jax.tree.map(np.asarray, state)
    shardings = layout.shardings(host)
    return jax.jit(lambda tree: jax.tree.map(jax.numpy.copy, tree), out_shardings=shardings)(host)


def _columns(
    tuning: FineTuning, recordings: Recordings, data: ProbeData, supervision: Supervision
) -> dict[str, np.ndarray]:
    """Returns the columns of a batch beside its signals over all records: labels, and patients where they are needed.

    Records that are not trained with have the label 0, and are never drawn.
    """
    labels = np.zeros((recordings.store.num_records, supervision.targets.shape[1]), np.float32)
    labels[data.train.records] = supervision.targets
    if not tuning.needs_patients:
        return {"label": labels}
    return {"label": labels, "patient": np.asarray(recordings.index.group).astype(np.int32)}


def _abstract_batch(
    settings: FineTuningSettings, recordings: Recordings, tuning: FineTuning, supervision: Supervision, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, types and shardings of what `FineTuningRun.batches` yields."""
    size, sharding = settings.training.batch_size, device_mesh.batch_sharding(mesh)
    device_mesh.local_rows(sharding, size, leaf="config.training.batch_size")  # It refuses one that does not divide.
    shape, everywhere = jax.ShapeDtypeStruct, device_mesh.replicated(mesh)
    ids, outputs = shape((size,), np.int32, sharding=sharding), supervision.targets.shape[1]
    return {
        "signal": shape((size, *recordings.format.shape), np.int16, sharding=sharding),
        "label": shape((size, outputs), np.float32, sharding=sharding),
        "row": ids,
        "seed": shape((), np.uint32, sharding=everywhere),
        "positive_weight": shape((outputs,), np.float32, sharding=everywhere),
        **(dict.fromkeys(("record", "patient"), ids) if tuning.needs_patients else {}),
    }


def _digests(
    recordings: Recordings, data: ProbeData, sampler: Sampler, *, weights_digest: str, seed: int
) -> tuple[str, dict[str, str]]:
    """Returns a digest of all that decides a run but its settings, and digests of parts of it (`resumption.PARTS`)."""
    sides = digests.of_arrays(*data.train.arrays, *data.val.arrays, *data.test.arrays)
    looked_at, order = (recordings.fingerprints, data.task.title, data.classes, sides), sampler.fingerprint()
    parts = {
        "data": _digest(*looked_at, weights_digest),
        "columns": "",
        "sampling": str(order),
        "stored": "",  # Its batches are drawn from anywhere.
        "pipeline": str(PIPELINE_VERSION),
    }
    return _digest(PIPELINE_VERSION, *looked_at, order, weights_digest, seed), parts


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def tuned(run: FineTuningRun, weights: Weights) -> tuple[Encoder, encoders.Split[Any]]:
    """Returns encoder and head of a fine-tuned network, with the statistics that its outputs were computed with.

    Args:
        run: Run of the network.
        weights: Weights of the network.
    """
    # A layout may divide parameters over devices of several processes; here each process needs all of them.
    weights = jax.jit(lambda tree: tree, out_shardings=device_mesh.replicated(run.mesh))(weights)
    params, stats = (
        jax.tree.map(lambda array: jax.numpy.asarray(np.asarray(array)), tree)
        for tree in (weights.params, weights.stats)
    )
    split = run.encoder.split._replace(params=params["encoder"], stats=stats["encoder"])
    head = run.tuning.head_structure(run.supervision)
    return (
        dataclasses.replace(run.encoder, split=split),
        head._replace(params=params["head"], stats=stats["head"]),
    )
