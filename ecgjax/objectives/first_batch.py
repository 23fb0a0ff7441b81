"""What a loss takes from the first batch of a run and keeps: the size of distances before anything is trained."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from ecgjax.objectives.pairs.distances import Distance
from ecgjax.objectives.pairs.relations import Rows

#: Rows of a batch whose pairs are looked at: their distances are sorted at once, 4 MiB of float32.
_MOST_ROWS = 1024


def median_distance(embeddings: Array, rows: Rows, distance: Distance) -> Array:
    """Returns the median distance of all pairs of valid rows, among the first 1,024 of a batch.

    Args:
        embeddings: Embeddings of the global batch, `[rows, dim]`.
        rows: Metadata of the rows.
        distance: Distance of the loss.

    Returns:
        Median, `f32[]`; 0 where there is no pair.
    """
    z, valid = embeddings[:_MOST_ROWS], rows.valid[:_MOST_ROWS]
    points = distance.points(z, distance.shift(z, valid))
    number = jnp.arange(len(z))
    pairs = (valid[:, None] & valid[None, :]) & (number[:, None] < number[None, :])
    ordered = jnp.sort(jnp.where(pairs, distance.matrix(points, points), jnp.float32(jnp.inf)).ravel())
    count = pairs.sum(dtype=jnp.int32)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return jnp.where(count > 0, middle, jnp.float32(0))
