"""Attention pool: learned queries that pool the tokens of a frozen encoder, and a linear head on what they pool.

Of every query q the weights of the tokens x are softmax(q · x / √dim), and the head sees the weighted means of all
queries side by side. Queries begin near zero, where the weights are almost equal, and the head at the linear probe of
the mean token, so that training begins near this probe. The state at the beginning is evaluated too, as step 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from data_pipelines.errors import DataError
from data_pipelines.streaming.orders import RecordOrder
from data_pipelines.streaming.sampler import Sampler
from ecgjax.evaluation.metrics.weighting import check_finite
from ecgjax.evaluation.models.fitted import Examples, FittedModel
from ecgjax.evaluation.models.kinds import NO_MODEL, QuestionKind
from ecgjax.evaluation.models.linear import Strength, fit_linear
from ecgjax.finetuning.looks import Look, Looks
from ecgjax.settings.probe import AttentionSettings
from ecgjax.training.steps import Weights

#: Number of records whose tokens are read and predicted at a time.
_AT_ONCE = 128

#: Standard deviation of the queries before training, of standardised tokens.
_FIRST_QUERIES = 0.1


class TokenRecords(NamedTuple):
    """Records with tokens and targets.

    Attributes:
        read: Function from numbers of these records, `int64[m]`, to their tokens, `f16[m, tokens, dim]`.
        mask: Mask of the tokens that count, `bool[n, tokens]`.
        targets: Targets, `[n]` or `[n, classes]`.
    """

    read: Callable[[np.ndarray], np.ndarray]
    mask: np.ndarray
    targets: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionPool:
    """A trained attention pool with its head.

    Attributes:
        params: Parameters by name: `queries`, `f32[queries, dim]`; `kernel`, `f32[queries · dim, outputs]`; `bias`.
        middle, spread: Mean and standard deviation of the training tokens, `f32[dim]`.
        vector: Whether a record has one output, and not one for each class.
        location, scale: Mean and standard deviation of the targets of a quantity; 0 and 1 for classes.
        val_metric: Primary metric on validation of the chosen step.
        selected: Description of what was chosen.
    """

    params: Any
    middle: np.ndarray
    spread: np.ndarray
    vector: bool
    location: float
    scale: float
    val_metric: float
    selected: str

    def outputs(self, read: Callable[[np.ndarray], np.ndarray], mask: np.ndarray) -> np.ndarray:
        """Returns log odds or values of a quantity, `f64[n]` or `f64[n, classes]`.

        Args:
            read: Function from row numbers, `int64[m]`, to tokens, `f16[m, tokens, dim]`.
            mask: Mask of the tokens that count, `bool[n, tokens]`.
        """
        found = _predicted(self.params, read, mask, self.middle, self.spread) * self.scale + self.location
        return found[:, 0] if self.vector else found


def fit_attention(
    train: TokenRecords,
    val: TokenRecords,
    settings: AttentionSettings,
    *,
    kind: QuestionKind,
    classes: Sequence[str] = (),
    seed: int,
    strength: Strength | None = None,
) -> AttentionPool:
    """Trains attention pools with several weight decays, and returns the one and its step that are best on validation.

    Args:
        train: Labelled training records.
        val: Records of other patients to choose by.
        settings: Settings of the pool and of its training.
        kind: Kind of the task.
        classes: Names of the columns of the targets where a record has several labels.
        seed: Seed of the first queries and of the order of records.
        strength: What decides the strength of the linear probe that the head begins at.

    Raises:
        DataError: The targets do not define the primary metric, tokens are not finite in half precision, or training
            diverged.
    """
    # The probe's own check of the labels comes before anything is read.
    Examples(
        kind=kind, train=train.mask, targets=train.targets, val=val.mask, val_targets=val.targets, classes=classes
    ).check()
    middle, spread = _moments(train)
    mean = functools.partial(_mean_tokens, middle=middle, spread=spread)
    begun = fit_linear(
        Examples(
            kind=kind,
            train=mean(train),
            targets=train.targets,
            val=mean(val),
            val_targets=val.targets,
            classes=classes,
        ),
        strength=strength,
    )
    location, scale = 0.0, 1.0
    if not kind.log_odds:
        location, scale = float(train.targets.mean()), float(train.targets.std()) or 1.0
    pool = AttentionPool(
        params=_first(begun, len(middle), settings.queries, seed=seed, location=location, scale=scale),
        middle=middle,
        spread=spread,
        vector=train.targets.ndim == 1,
        location=location,
        scale=scale,
        val_metric=-np.inf,
        selected="",
    )
    value = functools.partial(kind.value, val.targets, classes=classes)
    best: tuple[float, Look, Any] | None = None
    for decay in settings.weight_decays:
        looks = _trained(pool, train, val, settings, value, decay=decay, log_odds=kind.log_odds, seed=seed)
        if looks.best is not None and looks.weights is not None and (best is None or looks.best.value > best[1].value):
            best = decay, looks.best, looks.weights.params
    if best is None:
        raise DataError(
            "the attention pool diverged: no look at validation gave a number; lower "
            "config.probe.attention.learning_rate",
            reason=NO_MODEL,
        )
    decay, look, params = best
    tried = len(settings.weight_decays)
    words = f"step {look.step:,} of at most {settings.steps:,}, weight decay {decay:g} of {tried}"
    return dataclasses.replace(pool, params=params, val_metric=look.metric, selected=words)


def _trained(
    pool: AttentionPool,
    train: TokenRecords,
    val: TokenRecords,
    settings: AttentionSettings,
    value: Callable[[np.ndarray], float],
    *,
    decay: float,
    log_odds: bool,
    seed: int,
) -> Looks:
    """Trains a pool and returns the looks at validation.

    Args:
        pool: Pool at its beginning.
        train: Labelled training records.
        val: Records to choose by.
        settings: Settings of the training.
        value: Primary metric of outputs for the records of `val`.
        decay: Weight decay.
        log_odds: Whether outputs are log odds.
        seed: Seed of the order of records.
    """
    params, looks = jax.tree.map(jnp.array, pool.params), Looks()
    moments = optax.scale_by_adam().init(params)
    targets = np.asarray((train.targets - pool.location) / pool.scale, np.float32).reshape(len(train.targets), -1)

    def look(step: int) -> None:
        outputs = dataclasses.replace(pool, params=params).outputs(val.read, val.mask)
        metric = value(outputs) if np.isfinite(outputs).all() else -np.inf
        metric = metric if np.isfinite(metric) else -np.inf
        looks.see(Look(step, metric, metric, np.nan), Weights(params, {}))

    look(0)
    sampler = Sampler(RecordOrder(np.arange(len(targets)), seed=seed), batch_size=settings.batch_size)
    for now in range(settings.steps):
        rows = sampler.record_numbers(now)
        batch = train.read(rows), train.mask[rows], targets[rows], pool.middle, pool.spread
        params, moments = _step(params, moments, *batch, settings.learning_rate, decay, log_odds=log_odds)
        if (now + 1) % settings.eval_every == 0 or now + 1 == settings.steps:
            look(now + 1)
            if looks.exhausted(settings.patience):
                break
    return looks


def _attend(params: Any, tokens: Array, mask: Array, middle: Array, spread: Array) -> Array:
    """Returns the outputs of standardised tokens, `f32[batch, outputs]`; a record without a token has the bias alone.

    Args:
        params: Parameters by name.
        tokens: Tokens, `f16[batch, tokens, dim]`.
        mask: Mask of the tokens that count, `bool[batch, tokens]`.
        middle: Mean of the training tokens, `f32[dim]`.
        spread: Their standard deviation, `f32[dim]`.
    """
    own = jnp.where(mask[:, :, None], (tokens.astype(jnp.float32) - middle[None, None]) / spread[None, None], 0)
    along = jnp.einsum("btd,qd->bqt", own, params["queries"]) / jnp.sqrt(jnp.float32(own.shape[2]))
    # The least number, and not minus infinity: a record without any token would otherwise be no number.
    weights = jax.nn.softmax(jnp.where(mask[:, None, :], along, jnp.finfo(jnp.float32).min), axis=2)
    pooled = jnp.einsum("bqt,btd->bqd", weights, own)
    return pooled.reshape(len(own), -1) @ params["kernel"] + params["bias"][None]


_outputs = jax.jit(_attend)


@functools.partial(jax.jit, static_argnames=("log_odds",))
def _step(
    params: Any,
    moments: Any,
    tokens: Array,
    mask: Array,
    targets: Array,
    middle: Array,
    spread: Array,
    rate: Array,
    decay: Array,
    *,
    log_odds: bool,
) -> tuple[Any, Any]:
    """Makes a step of AdamW, whose decay takes all parameters but the bias towards zero."""

    def loss(params: Any) -> Array:
        outputs = _attend(params, tokens, mask, middle, spread)
        if log_odds:
            return jnp.mean(optax.sigmoid_binary_cross_entropy(outputs, targets))
        return jnp.mean((outputs - targets) ** 2)

    towards, moments = optax.scale_by_adam().update(jax.grad(loss)(params), moments, params)
    decayed = {name: each * (decay if name != "bias" else 0) for name, each in params.items()}
    return jax.tree.map(lambda p, u, d: p - rate * (u + d), params, towards, decayed), moments


def _first(
    probe: FittedModel, dim: int, queries: int, *, seed: int, location: float, scale: float
) -> dict[str, np.ndarray]:
    """Returns the parameters before training: small random queries, and a head that is the probe of the mean token.

    Args:
        probe: Linear probe of standardised mean tokens, which its values at the origin and unit vectors determine.
        dim: Number of dimensions of a token.
        queries: Number of queries.
        seed: Seed of the queries.
        location: Mean of the targets.
        scale: Standard deviation of the targets.
    """
    values = probe.predict(np.concatenate([np.zeros((1, dim)), np.eye(dim)])).reshape(1 + dim, -1)
    kernel = (values[1:] - values[0]) / scale / queries
    drawn = np.random.default_rng(seed % 2**32).normal(size=(queries, dim)) * _FIRST_QUERIES
    return {
        "queries": drawn.astype(np.float32),
        "kernel": np.tile(kernel, (queries, 1)).astype(np.float32),
        "bias": ((values[0] - location) / scale).astype(np.float32),
    }


def _parts(number: int) -> list[np.ndarray]:
    return np.array_split(np.arange(number), max(1, -(-number // _AT_ONCE)))


def _moments(records: TokenRecords) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of all tokens that count, `f32[dim]` each; the latter is 1 where it is 0."""
    number, total, squares = 0, np.zeros(1), np.zeros(1)
    for rows in _parts(len(records.mask)):
        tokens = records.read(rows)[records.mask[rows]].astype(np.float64)
        check_finite(tokens, "numbers of tokens in half precision")
        number, total, squares = number + len(tokens), total + tokens.sum(axis=0), squares + (tokens**2).sum(axis=0)
    mean = total / max(number, 1)
    deviation = np.sqrt(np.maximum(squares / max(number, 1) - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def _mean_tokens(records: TokenRecords, *, middle: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Returns the mean of each record's standardised tokens that count, `f32[n, dim]`; 0 without any."""
    found = []
    for rows in _parts(len(records.mask)):
        mask = records.mask[rows][:, :, None]
        own = np.where(mask, (records.read(rows).astype(np.float32) - middle) / spread, 0)
        found.append(own.sum(axis=1) / np.maximum(mask.sum(axis=1), 1))
    return np.concatenate(found).astype(np.float32)


def _predicted(
    params: Any, read: Callable[[np.ndarray], np.ndarray], mask: np.ndarray, middle: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Returns outputs of all records, `f64[n, outputs]`; the last batch is padded, so that one program serves all."""
    found = []
    for start in range(0, len(mask), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(mask)))
        filled = np.pad(rows, (0, _AT_ONCE - len(rows)), mode="edge")
        found.append(np.asarray(_outputs(params, read(filled), mask[filled], middle, spread))[: len(rows)])
    return np.concatenate(found).astype(np.float64)
