"""Result of an objective, and the reductions of its rows to one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Stats = dict[str, Array]

#: Statistic of every loss that looks for positives: the number of valid rows without any in the batch. Such rows are
#: negatives of others but no anchors: what they cost does not count, unless every pair counts by itself (`sigmoid`).
ANCHORS_WITHOUT_POSITIVE = "anchors_without_positive"

#: `(loss of each row, f32[rows]; mask of the rows that count, bool[rows]) → f32[]`.
Reducer = Callable[[Array, Array], Array]


class LossOutput(NamedTuple):
    """A loss over rows.

    Attributes:
        loss: Loss over the rows that count, `f32[]`; 0 where none does.
        per_row: Loss of each row, `f32[rows]`; 0 where a row does not count.
        counts: Mask of the rows that count, `bool[rows]`.
        stats: Statistics for telemetry, name → `f32[]`, which carry no gradient.
    """

    loss: Array
    per_row: Array
    counts: Array
    stats: Stats


def mean_of_counted(per_row: Array, counts: Array) -> Array:
    """Returns the mean of `per_row`, `f32[rows]`, over the rows of the mask `counts`, `bool[rows]`; 0 without any."""
    return jnp.where(counts, per_row, jnp.float32(0)).sum() / _number(counts)


def mean_of_active(per_row: Array, counts: Array) -> Array:
    """Returns the mean over the rows of `counts` whose loss is above 0 (Wu et al. 2017); 0 without any."""
    return mean_of_counted(per_row, counts & (per_row > 0))


def total(per_row: Array, counts: Array) -> Array:
    """Returns the sum of `per_row` over the rows of the mask `counts`."""
    return jnp.where(counts, per_row, jnp.float32(0)).sum()


#: Name in a config → reducer.
REDUCERS: Mapping[str, Reducer] = {"mean": mean_of_counted, "mean_active": mean_of_active, "sum": total}


def output(per_row: Array, counts: Array, stats: Mapping[str, Array], *, reducer: Reducer) -> LossOutput:
    """Returns the output of a loss, in which rows that do not count are set to 0 and get no gradient.

    Args:
        per_row: Loss of each row, `f32[rows]`.
        counts: Mask of the rows that count, `bool[rows]`.
        stats: Statistics by name, each `f32[]`; their gradient is cut.
        reducer: Reduction of the losses of the rows to one number.
    """
    per_row = jnp.where(counts, per_row, jnp.float32(0))
    return LossOutput(reducer(per_row, counts), per_row, counts, jax.lax.stop_gradient(dict(stats)))


def mean_where(values: Array, where: Array) -> Array:
    """Returns the mean of `values`, `f32[rows]`, over the rows of the mask `where`, for telemetry; 0 without any."""
    return mean_of_counted(values, where)


def count_where(where: Array) -> Array:
    """Returns the number of rows of the mask `where`, `bool[rows]`, for telemetry: `f32[]`."""
    return where.sum(dtype=jnp.float32)


def _number(counts: Array) -> Array:
    return jnp.maximum(counts.sum(dtype=jnp.float32), jnp.float32(1))
