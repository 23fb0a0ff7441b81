"""What an objective returns, and how rows are reduced to one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Stats = dict[str, Array]

#: Statistic of every loss that has positives to find: valid rows for which there is none in the batch. They are
#: negatives of others and no anchors: what such a row costs does not count, unless pairs are by themselves (`sigmoid`).
ANCHORS_WITHOUT_POSITIVE = "anchors_without_positive"

#: `(per row, which count) → f32[]`.
Reducer = Callable[[Array, Array], Array]


class LossOutput(NamedTuple):
    """A loss over rows.

    Attributes:
        loss: over the rows that count, `f32[]`; 0 when none does.
        per_row: `f32[rows]`, 0 where a row does not count.
        counts: `bool[rows]`, the rows that count.
        stats: name → `f32[]`, for telemetry; carry no gradient.
    """

    loss: Array
    per_row: Array
    counts: Array
    stats: Stats


def mean_of_counted(per_row: Array, counts: Array) -> Array:
    """Mean over the rows that count, by their number in the global batch; 0 without any."""
    return jnp.where(counts, per_row, jnp.float32(0)).sum() / _number(counts)


def mean_of_active(per_row: Array, counts: Array) -> Array:
    """Mean over the rows that count and whose loss is above 0 (Wu et al. 2017); 0 without any."""
    return mean_of_counted(per_row, counts & (per_row > 0))


def total(per_row: Array, counts: Array) -> Array:
    """Sum over the rows that count."""
    return jnp.where(counts, per_row, jnp.float32(0)).sum()


#: Name in a config → reducer.
REDUCERS: Mapping[str, Reducer] = {"mean": mean_of_counted, "mean_active": mean_of_active, "sum": total}


def output(per_row: Array, counts: Array, stats: Mapping[str, Array], *, reducer: Reducer) -> LossOutput:
    """Reduces rows to a loss; rows that do not count are 0, also in their gradient."""
    per_row = jnp.where(counts, per_row, jnp.float32(0))
    return LossOutput(reducer(per_row, counts), per_row, counts, jax.lax.stop_gradient(dict(stats)))


def mean_where(values: Array, where: Array) -> Array:
    """Mean of some rows, for telemetry; 0 without any."""
    return mean_of_counted(values, where)


def count_where(where: Array) -> Array:
    """Number of some rows of the global batch, for telemetry: `f32[]`."""
    return where.sum(dtype=jnp.float32)


def _number(counts: Array) -> Array:
    return jnp.maximum(counts.sum(dtype=jnp.float32), jnp.float32(1))
