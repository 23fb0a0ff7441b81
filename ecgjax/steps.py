"""The jitted steps: int16 rows of the global batch in, a new state and metrics out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from ecgjax import encoders
from ecgjax.augment import Recorded, Views, prepare
from ecgjax.keys import row_keys, split_rows, step_key
from ecgjax.micro_batches import map_parts
from ecgjax.objectives import representation
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.relations import Rows
from ecgjax.parallel import unanimous
from ecgjax.signal_columns import SignalNeighbours

Batch = Mapping[str, Array]
Metrics = dict[str, Array]

# Columns of a batch that are no metadata of its rows.
_NOT_METADATA = ("signal", "valid_start", "valid_samples")


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds.

    Attributes:
        step: number of finished updates, `i32[]`.
        params: what the optimiser updates, nested dictionary of float32: of the encoder, and of what stands on it.
        stats: running statistics of batch norm, nested dictionary of float32.
        opt_state: of optax.
    """

    step: Array
    params: Any
    stats: Any
    opt_state: optax.OptState


def init_state(params: Any, stats: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params))


def embedding_rows(batch: Batch, num_views: int) -> Rows:
    """Metadata of the rows of `f32[batch · views, dim]`, the views of a record standing next to each other.

    Args:
        batch: with `row`, `record` and `patient`, each `i32[batch]`, `valid`, `bool[batch]`, and any other of `Rows`.
        num_views: of each record.

    Returns:
        Metadata of `batch · num_views` rows.
    """
    size = batch["row"].shape[0]

    def spread(values: Array) -> Array:
        shape = (size, num_views, *values.shape[1:])
        return jnp.broadcast_to(values[:, None], shape).reshape(-1, *values.shape[1:])

    columns = {name: spread(values) for name, values in batch.items() if name not in _NOT_METADATA}
    view = jnp.broadcast_to(jnp.arange(num_views, dtype=jnp.int32)[None, :], (size, num_views)).reshape(-1)
    return Rows(**columns | {"row": columns["row"] * num_views + view, "view": view})


def contrastive_loss(
    graph: nnx.GraphDef,
    views: Views,
    objective: Objective,
    *,
    seed: int,
    neighbours: SignalNeighbours | None = None,
    mesh: Mesh | None = None,
    parts: int = 1,
    statistics_every: int | None = None,
) -> Callable[..., tuple[Array, tuple[Any, Metrics]]]:
    """Builds `loss(params, stats, batch, step, train) → (loss, (stats, metrics))` of two or more views a record.

    The parameters are `{"encoder": …, "objective": …}`. A row whose recording could not be read is silence, and takes
    part in no pair and no batch statistics.

    Args:
        graph: of the encoder.
        views: how they are drawn.
        objective: the loss.
        seed: of the run.
        neighbours: finds what relation or miner look at in signal space, where they do.
        mesh: of the run; needed for more than one part.
        parts: that the batch is encoded in, see `micro_batches`.
        statistics_every: updates between metrics that are looked at: only these have alignment, uniformity and
            effective rank, and the others NaN in their place. None for every one, as in evaluation.
    """

    def loss(params: Any, stats: Any, batch: Batch, step: Array, *, train: bool) -> tuple[Array, tuple[Any, Metrics]]:
        valid = unanimous(batch["valid"])
        batch = {**batch, "valid": valid}
        drawn = {
            "views": row_keys(seed, step, batch["row"], stream="views"),
            "dropout": row_keys(seed, step, batch["row"], stream="dropout"),
            # One process may have read what another, which has the same row, could not.
            "signal": jnp.where(valid[:, None, None], batch["signal"], jnp.int16(0)),
            "recorded": Recorded(batch["valid_start"], batch["valid_samples"]),
            "valid": valid,
        }

        def encode(stats: Any, drawn: Any) -> tuple[Any, Array]:
            ecg = views(drawn["views"], drawn["signal"], recorded=drawn["recorded"])
            # Views next to each other keep the rows of a record on the device that already holds them.
            ecg = ecg.reshape(-1, *ecg.shape[2:])
            keys = split_rows(drawn["dropout"], views.num_views).reshape(-1) if train else None
            seen = jnp.repeat(drawn["valid"], views.num_views)
            encoder = encoders.Split(graph, params["encoder"], stats)
            z, stats = encoders.apply(encoder, ecg, train=train, keys=keys, valid=seen)
            return stats, z

        stats, z = map_parts(encode, stats, drawn, parts=parts, mesh=mesh)
        rows = embedding_rows(batch, views.num_views)
        if neighbours is not None:
            near = neighbours(drawn["signal"], embedding_rows(batch, 1), num_views=views.num_views)
            rows = rows._replace(**near)
        out = objective(params["objective"], z, rows, key=step_key(seed, step, stream="mining"), step=step)
        metrics = {
            "loss": out.loss,
            "unread_rows": jnp.sum(~valid, dtype=jnp.float32),
            **out.stats,
            **_representation(z, rows.valid, views.num_views, step, statistics_every if train else None),
        }
        return out.loss, (stats, metrics)

    return loss


def _representation(z: Array, valid: Array, num_views: int, step: Array, every: int | None) -> Metrics:
    """Alignment, uniformity and effective rank where they are looked at: their cost is that of a small step."""
    measure = functools.partial(representation.statistics, num_views=num_views)
    if every is None:
        return measure(z, valid)
    nothing = {name: jnp.float32(jnp.nan) for name in representation.STATISTICS}
    return jax.lax.cond((step + 1) % every == 0, measure, lambda z, valid: nothing, jax.lax.stop_gradient(z), valid)


def train_step(
    loss: Callable[..., tuple[Array, tuple[Any, Metrics]]], optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One update, to be jitted with the state donated.

    Args:
        loss: `(params, stats, batch, step, train=True) → (loss, (stats, metrics))`.
        optimizer: of optax.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        gradient = jax.grad(loss, has_aux=True)
        grads, (stats, metrics) = gradient(state.params, state.stats, batch, state.step, train=True)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        return TrainState(state.step + 1, params, stats, opt_state), metrics

    return step


def eval_step(
    loss: Callable[..., tuple[Array, tuple[Any, Metrics]]],
) -> Callable[[TrainState, Batch], Metrics]:
    """The loss of a batch under running statistics; its views are those of step 0, so that evaluations compare."""

    def step(state: TrainState, batch: Batch) -> Metrics:
        return loss(state.params, state.stats, batch, jnp.zeros((), jnp.int32), train=False)[1][1]

    return step


def classifier_loss(
    graph: nnx.GraphDef, *, seed: int, num_leads: int
) -> Callable[..., tuple[Array, tuple[Any, Metrics]]]:
    """Builds the loss of a binary classifier: encoder, linear head, cross-entropy from logits.

    The parameters are `{"encoder": …, "head": {"kernel", "bias"}}` and the batch carries `label`, `f32[batch]` of 0, 1.
    """

    def loss(params: Any, stats: Any, batch: Batch, step: Array, *, train: bool) -> tuple[Array, tuple[Any, Metrics]]:
        keys = row_keys(seed, step, batch["row"], stream="dropout") if train else None
        ecg = prepare(batch["signal"], num_leads=num_leads)
        encoder = encoders.Split(graph, params["encoder"], stats)
        features, stats = encoders.apply(encoder, ecg, train=train, keys=keys, features=True)
        logits = classifier_logits(params["head"], features)
        value = optax.sigmoid_binary_cross_entropy(logits, batch["label"]).mean()
        return value, (stats, {"loss": value})

    return loss


def classifier_logits(head: Mapping[str, Array], features: Array) -> Array:
    """`f32[batch]` logits of a linear head on pooled activations `f32[batch, feature_dim]`."""
    return jnp.matmul(features, head["kernel"]) + head["bias"]
