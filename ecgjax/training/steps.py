"""The training and evaluation steps that are jitted, and the loss that they compute from a batch of int16 signals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from ecgjax import encoders
from ecgjax.augmentations import partners
from ecgjax.augmentations.beats import r_peaks
from ecgjax.augmentations.geodesic import Overlay
from ecgjax.augmentations.views import Recorded, Views
from ecgjax.encoders.operations.gradient_sums import gradients_summed_in
from ecgjax.keys import row_keys, split_rows, step_key
from ecgjax.objectives.losses import representation
from ecgjax.objectives.losses.reconstruction import Reconstruction, SquaredErrors, mean_errors, squared_errors
from ecgjax.objectives.objective import Objective
from ecgjax.optim.averaging import average
from ecgjax.optim.parameters import hold
from ecgjax.training.device_mesh import unanimous
from ecgjax.training.embedding_rows import Layout, embedding_rows, of_views, patient_pairs, spread
from ecgjax.training.micro_batches import map_parts
from ecgjax.training.second_objective import SecondObjective
from ecgjax.training.signal_columns import SignalNeighbours
from ecgjax.training.tasks.task_choice import Task

Batch = Mapping[str, Array]
Metrics = dict[str, Array]


class Weights(NamedTuple):
    """Parameters and running statistics of a network, as `TrainState` holds them."""

    params: dict[str, Any]
    stats: dict[str, Any]


class Skipped(NamedTuple):
    """Numbers of updates that were left out because loss or gradient was not finite, each `i32[]`.

    Attributes:
        total: Number in all.
        in_a_row: Number of the last ones in a row.
        longest: Largest number in a row so far.
    """

    total: Array
    in_a_row: Array
    longest: Array

    def after(self, finite: Array) -> Skipped:
        """Returns the numbers after one more update, which was finite, `bool[]`, or is left out."""
        in_a_row = jnp.where(finite, 0, self.in_a_row + 1)
        return Skipped(self.total + (~finite).astype(jnp.int32), in_a_row, jnp.maximum(self.longest, in_a_row))


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds.

    Attributes:
        step: Number of finished updates, `i32[]`.
        params: Parameters that the optimiser updates, float32, as nested dictionaries under `"encoder"`, `"objective"`
            and the names of heads, such as `"task"` and `"second"`.
        stats: Running statistics, under the names of the encoder and the heads.
        opt_state: State of the optax optimiser.
        ema: Moving average of parameters and statistics, or None where none is kept.
        skipped: Numbers of updates that were left out, or None where none may be.
    """

    step: Array
    params: dict[str, Any]
    stats: dict[str, Any]
    opt_state: optax.OptState
    ema: Weights | None = None
    skipped: Skipped | None = None

    @property
    def evaluated(self) -> Weights:
        """The weights that are evaluated and exported: the moving average where one is kept."""
        return Weights(self.params, self.stats) if self.ema is None else self.ema

    def parts(self) -> dict[str, Any]:
        """Returns the parts of a checkpoint by name; the encoder can be read without heads and optimiser."""
        parts = {"step": self.step, "opt_state": self.opt_state, **_parts(Weights(self.params, self.stats))}
        if self.skipped is not None:
            parts["skipped"] = self.skipped._asdict()
        return parts if self.ema is None else parts | _parts(self.ema, prefix=EMA)

    def with_parts(self, parts: Mapping[str, Any]) -> TrainState:
        """Returns the state that is made up of `parts`, which have the structure of this state's."""
        own = Weights(self.params, self.stats)
        return TrainState(
            parts["step"],
            *_from_parts(own, parts),
            opt_state=parts["opt_state"],
            ema=None if self.ema is None else _from_parts(own, parts, prefix=EMA),
            skipped=None if self.skipped is None else Skipped(**parts["skipped"]),
        )


#: Prefix of the names of the moving average's parts.
EMA = "ema_"


def _parts(weights: Weights, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{kind}_{name}": tree for kind, trees in weights._asdict().items() for name, tree in trees.items()}


def _from_parts(like: Weights, parts: Mapping[str, Any], prefix: str = "") -> Weights:
    return Weights(
        *({name: parts[f"{prefix}{kind}_{name}"] for name in trees} for kind, trees in like._asdict().items())
    )


def init_state(
    params: Any, stats: Any, optimizer: optax.GradientTransformation, *, ema: bool = False, skip: bool = False
) -> TrainState:
    """Returns the state before the first step.

    Args:
        params: Parameters.
        stats: Running statistics.
        optimizer: Optimiser of optax.
        ema: Whether a moving average of the weights is kept.
        skip: Whether updates that are not finite are left out, and counted.
    """
    # The average begins with copies: the step donates its state, and cannot be given one array twice.
    average = Weights(*jax.tree.map(jnp.copy, (params, stats))) if ema else None
    # Each number has an array of its own, as the step donates its state.
    skipped = Skipped(*(jnp.zeros((), jnp.int32) for _ in Skipped._fields)) if skip else None
    return TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params), average, skipped)


class _Drawn(NamedTuple):
    """Data and random keys that the rows of a batch are encoded from; the first axis of every leaf is the rows."""

    dropout: Array
    recorded: Recorded
    signal: Array
    towards: Array | None
    valid: Array
    views: Array


class _Encoded(NamedTuple):
    """What an encoder makes of a batch: embeddings, features where a head reads them, errors of reconstruction."""

    z: Array
    features: Array | None
    errors: SquaredErrors | None


def pretraining_loss(
    graph: nnx.GraphDef[encoders.Encoder],
    views: Views,
    objective: Objective,
    *,
    layout: Layout,
    task: Task | None = None,
    second: SecondObjective | None = None,
    reconstruction: Reconstruction | None = None,
    overlay: Overlay | None = None,
    neighbours: SignalNeighbours | None = None,
    mesh: Mesh | None = None,
    parts: int = 1,
    statistics_every: int | None = None,
) -> Callable[..., tuple[Array, tuple[Any, Metrics]]]:
    """Builds `loss(params, stats, batch, step, train) → (loss, (stats, metrics))`.

    Parameters and statistics are `{"encoder": …, "objective": …}` and, with a task, `"task"`; those of a second
    objective, which has no statistics, are under `"second"`. A row whose recording could not be read is silence, and
    takes part in no pair and no batch statistics. The run's seed, `u32[]`, is part of the batch: as a constant it would
    make a new program to compile of every seed.

    Args:
        graph: Graph definition of the encoder.
        views: Views that are drawn of the recordings.
        objective: Loss of the embeddings.
        layout: Rows of embeddings that a recording becomes.
        task: Task that is predicted from embeddings or features, whose loss is added to the objective's.
        second: Second objective, of the features, whose loss is added to the first's.
        reconstruction: Weights of the reconstruction of the views before they were masked, whose loss is added to the
            objective's; the encoder must have a decoder.
        overlay: Overlay of partners over recordings, where views are moved between recordings.
        neighbours: Search for neighbours in signal space, where relation or miner use them.
        mesh: Mesh of the run; needed for more than one part.
        parts: Number of parts that the batch is encoded in, as `micro_batches` does it.
        statistics_every: Number of updates between metrics that are logged. Only the logged ones have alignment,
            uniformity and effective rank; the others have NaN. None computes them every time, as in evaluation.
    """
    reads_features = second is not None or (task is not None and task.settings.reads == "features")

    def loss(params: Any, stats: Any, batch: Batch, step: Array, *, train: bool) -> tuple[Array, tuple[Any, Metrics]]:
        # 1. Collect the data and random keys of every row.
        seed, valid = batch["seed"], unanimous(batch["valid"])
        batch = {name: values for name, values in batch.items() if name != "seed"} | {"valid": valid}
        drawn = _Drawn(
            views=row_keys(seed, step, batch["row"], stream="views"),
            dropout=row_keys(seed, step, batch["row"], stream="dropout"),
            # One process may have read a row that another process, which has the same row, could not: silence is the
            # same in both.
            signal=jnp.where(valid[:, None, None], batch["signal"], jnp.int16(0)),
            recorded=Recorded(batch["valid_start"], batch["valid_samples"]),
            valid=valid,
            towards=None,
        )
        # 2. Lay partners over the recordings that are moved towards others.
        metrics: Metrics = {}
        if overlay is not None:
            # This is done for the whole batch, because a recording and its partner may lie in different parts.
            towards, moved = overlay(drawn.signal, batch[partners.COLUMN], recorded=drawn.recorded, valid=valid)
            drawn = drawn._replace(towards=towards)
            metrics["rows_without_partner"] = jnp.sum(valid & ~moved, dtype=jnp.float32)
            batch["moved"] = moved

        # 3. Draw the views and encode them, part by part.
        def encode(stats: Any, drawn: _Drawn) -> tuple[Any, _Encoded]:
            drawn_views = views.masked_and_whole(
                drawn.views, drawn.signal, recorded=drawn.recorded, towards=drawn.towards
            )
            # The views of a record stand next to each other, so that they stay on the device that holds the record.
            ecg, whole = (x.reshape(-1, *x.shape[2:]) for x in drawn_views)
            keys = _spread_keys(drawn.dropout, layout.signals) if train else None
            rows = jnp.repeat(drawn.valid, layout.signals)
            encoder = encoders.Split(graph, params["encoder"], stats)
            features = errors = None
            if reads_features:
                (z, features), stats = encoders.apply_with_features(encoder, ecg, train=train, keys=keys, valid=rows)
            elif reconstruction is None:
                z, stats = encoders.apply(encoder, ecg, train=train, keys=keys, valid=rows)
            else:
                (z, again), stats = encoders.reconstruct(encoder, ecg, train=train, keys=keys, valid=rows)
                peaks = jax.vmap(functools.partial(r_peaks, rate_hz=views.rate_hz))(whole)
                errors = squared_errors(again, whole, peaks, rate_hz=views.rate_hz)
            return stats, _Encoded(z.reshape(-1, z.shape[-1]), features, errors)

        after = dict(stats)
        after["encoder"], (z, features, errors) = map_parts(encode, stats["encoder"], drawn, parts=parts, mesh=mesh)
        # 4. Collect the metadata of the rows of embeddings, and evaluate the objective.
        rows = embedding_rows(batch, layout)
        if neighbours is not None:
            near = neighbours(drawn.signal, embedding_rows(batch, Layout(views=1)), num_views=layout.rows)
            rows = rows._replace(**near)
        paired = jnp.repeat(batch["paired"], layout.rows, axis=0) if "paired" in batch else None
        mining = step_key(seed, step, stream="mining")
        if "objective" in stats and train:
            after["objective"] = objective.stats_after(stats["objective"], z, rows, step=step)
        kept = after.get("objective")
        out = objective(params["objective"], z, rows, key=mining, step=step, paired=paired, stats=kept)
        total, metrics = objective.weight * out.loss, metrics | out.stats
        # 5. Add the losses of the second objective, of the task and of the reconstruction.
        if second is not None:
            other = second(params["second"], features, batch, signal=drawn.signal, seed=seed, step=step)
            total += second.weight * other.loss
            metrics |= {"objective": out.loss, "second": other.loss}
            metrics |= {f"second_{name}": value for name, value in other.stats.items()}
        if task is not None:
            # Features are those of a signal, whatever the number of embeddings that the encoder makes of it.
            of_features = task.settings.reads == "features"
            read, inputs = (layout._replace(lead_groups=1), features) if of_features else (layout, z)
            keys = _spread_keys(row_keys(seed, step, batch["row"], stream="task"), read.rows) if train else None
            predicts, targets = spread(valid, read), spread(batch[task.column], read)
            if task.settings.views:
                predicts &= of_views(task.settings.views, read, recordings=len(valid))
            answer, after["task"] = task(
                params["task"], stats["task"], inputs, targets, valid=predicts, train=train, keys=keys
            )
            total += task.settings.weight * answer.loss
            metrics |= {"objective": out.loss, "task": answer.loss}
            metrics |= {f"task_{name}": value for name, value in answer.stats.items()}
        if reconstruction is not None:
            whole, at_peaks = mean_errors(errors, valid=jnp.repeat(valid, layout.signals))
            total += reconstruction.weight * whole + reconstruction.peak_weight * at_peaks
            metrics |= {"objective": out.loss, "reconstruction": whole, "peak_reconstruction": at_peaks}
        # 6. Add the metrics of the batch.
        metrics |= {
            "loss": total,
            "unread_rows": jnp.sum(~valid, dtype=jnp.float32),
            "patient_pairs": patient_pairs(batch["patient"], batch["record"], valid),
            **_representation(z, rows.valid, layout.rows, step, statistics_every if train else None),
        }
        return total, (after, metrics)

    return loss


def _spread_keys(keys: Array, num: int) -> Array:
    """Splits the key of every row into several, `key[batch]` → `key[batch · num]`."""
    return split_rows(keys, num).reshape(-1)


def _representation(z: Array, valid: Array, num_views: int, step: Array, every: int | None) -> Metrics:
    """Returns alignment, uniformity and effective rank, or NaN at steps without logging.

    They are left out there because they cost as much as a small step.

    Args:
        z: Embeddings of the global batch, `f32[rows, dim]`.
        valid: Mask of the rows that hold a recording, `bool[rows]`.
        num_views: Number of embedding rows of each recording.
        step: Number of the step, from 0, `i32[]`.
        every: Number of steps from one logged step to the next; None to measure at every call.
    """
    measure = functools.partial(representation.statistics, num_views=num_views)
    if every is None:
        return measure(z, valid)
    nothing = {name: jnp.float32(jnp.nan) for name in representation.STATISTICS}
    return jax.lax.cond((step + 1) % every == 0, measure, lambda z, valid: nothing, jax.lax.stop_gradient(z), valid)


def train_step(
    loss: Callable[..., tuple[Array, tuple[Any, Metrics]]],
    optimizer: optax.GradientTransformation,
    *,
    frozen: Collection[str] = (),
    ema_decay: float | None = None,
    reduce: str = "float32",
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the function `(state, batch) → (state, metrics)` of one update, to be jitted with the state donated.

    Args:
        loss: Loss `(params, stats, batch, step, train=True) → (loss, (stats, metrics))`.
        optimizer: Optimiser of optax.
        frozen: Names of the parameters that the optimiser leaves as they are: they need no gradient.
        ema_decay: Decay of the moving average of the weights; None where the state keeps none.
        reduce: Type in which gradients are summed over rows and devices, float32 or bfloat16.
    """

    def of_trained(params: Any, *args: Any, **kwargs: Any) -> tuple[Array, tuple[Any, Metrics]]:
        # The optimiser leaves frozen parameters as they are in any case; without a gradient nothing is computed for
        # them, and they are not in `grad_norm`.
        return loss(hold(params, frozen), *args, **kwargs)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        gradient = jax.grad(of_trained, has_aux=True)
        with gradients_summed_in(reduce):
            grads, (stats, metrics) = gradient(state.params, state.stats, batch, state.step, train=True)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        ema = state.ema
        if ema_decay is not None and ema is not None:
            ema = Weights(*average(tuple(ema), (params, stats), decay=ema_decay, step=state.step))
        after = TrainState(state.step + 1, params, stats, opt_state, ema, state.skipped)
        return (after, metrics) if state.skipped is None else _unless_finite(state, after, metrics)

    return step


def _unless_finite(before: TrainState, after: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
    """Leaves an update out where loss or gradient is not finite: only the step's number moves on.

    Loss and gradient are those of the global batch, so that every device and process decides alike. The gradient's norm
    overflows for gradients beyond the root of float32's range, which are no use either. Parameters are looked at
    too, because an update of a finite gradient may still overflow.
    """
    if before.skipped is None:
        raise ValueError("updates are left out only where they are counted")
    values = jnp.stack([metrics["loss"], metrics["grad_norm"], metrics["param_norm"]])
    # Running statistics have no gradient, and infinite ones would spoil every evaluation.
    stats = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after.stats)]
    finite = functools.reduce(jnp.logical_and, stats, jnp.isfinite(values).all())
    # A branch, and no element-wise choice: that would be compiled into the update, and round its sums in another way.
    kept: TrainState = jax.lax.cond(finite, lambda new, old: new, lambda new, old: old, after, before)
    skipped = before.skipped.after(finite)
    counts = {"skipped": skipped.total, "skipped_in_a_row": skipped.longest}
    metrics |= {name: count.astype(jnp.float32) for name, count in counts.items()}
    metrics["param_norm"] = optax.tree.norm(kept.params)
    return kept._replace(step=after.step, skipped=skipped), metrics


def eval_step(loss: Callable[..., tuple[Array, tuple[Any, Metrics]]]) -> Callable[[TrainState, Batch], Metrics]:
    """Returns a function `(state, batch) → metrics`, which uses running statistics and no dropout.

    Views are those of step 0, so that evaluations can be compared.
    """

    def step(state: TrainState, batch: Batch) -> Metrics:
        # The step's number is always the same, so that views and draws are the same in every evaluation.
        return loss(*state.evaluated, batch, jnp.zeros((), jnp.int32), train=False)[1][1]

    return step
