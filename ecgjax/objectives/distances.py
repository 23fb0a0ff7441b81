"""Distances between embeddings by name, and their safe derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_TINY = 1e-24


def normalise(embeddings: Array) -> Array:
    """Scales rows to unit length; a row of zeros, or shorter than 1e-12, is zero and has zero gradient.

    Args:
        embeddings: `[rows, dim]`.

    Returns:
        `f32[rows, dim]`.
    """
    x = embeddings.astype(jnp.float32)
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    some = squares > jnp.float32(_TINY)
    # A bound on the length alone would leave a zero row the gradient times 1e12.
    return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, squares, jnp.float32(1))), jnp.float32(0))


def inner_products(anchors: Array, keys: Array) -> Array:
    """`f32[anchors, keys]` inner products in full float32, on devices too whose default is less."""
    return jnp.matmul(anchors, keys.T, precision=jax.lax.Precision.HIGHEST)


def centred(x: Array, valid: Array) -> Array:
    """Rows shifted by what they have in common, which distances between them do not see but inner products do.

    |a|² + |k|² − 2 a·k of rows that all lie about 1,000 from the origin keeps no digit of a distance of 1. The shift is
    the mean of the valid rows, rounded to multiples of a power of two near their root mean square distance from it (a
    dimension): it is 0 where rows lie about the origin anyway, and otherwise the same however they are spread over
    devices, but where the rounding of a sum decides. The subtraction rounds little or nothing. The shift carries no
    gradient: that of a distance is exact without.

    Args:
        x: Rows of the whole batch, `f32[rows, dim]`.
        valid: Rows that count, `bool[rows]`; the others, whatever they hold, have no say, and are shifted all the same.

    Returns:
        `f32[rows, dim]`.
    """
    rows = jnp.where(valid[:, None], jax.lax.stop_gradient(x), jnp.float32(0))
    number = jnp.maximum(valid.sum(dtype=jnp.float32), jnp.float32(1))
    mean = rows.sum(0, keepdims=True) / number
    spread = jnp.where(valid[:, None], rows - mean, jnp.float32(0))
    variance = (spread * spread).sum() / (number * x.shape[1])
    step = jax.lax.reduce_precision(jnp.sqrt(variance), exponent_bits=8, mantissa_bits=0)
    some = step > jnp.float32(_TINY)
    shift = jnp.where(some, jnp.round(mean / jnp.where(some, step, jnp.float32(1))) * step, mean)
    # A row that is not finite spoils its own distances, and need not spoil those of all.
    return x - jnp.where(jnp.isfinite(shift), shift, jnp.float32(0))


class Distance(NamedTuple):
    """A distance with a name.

    Attributes:
        on_sphere: whether embeddings are scaled to unit length first.
        of_differences: Whether it depends on a − k alone, so that a shift of all rows changes nothing.
        matrix: `(f32[anchors, dim], f32[keys, dim]) → f32[anchors, keys]`; by inner products, so that points much
            nearer to each other than to the origin lose digits: for choosing pairs, after `for_matrix`.
        of_pairs: `(f32[..., dim], f32[..., dim]) → f32[...]` by differences: for losses.
    """

    on_sphere: bool
    of_differences: bool
    matrix: Callable[[Array, Array], Array]
    of_pairs: Callable[[Array, Array], Array]

    def prepare(self, embeddings: Array) -> Array:
        """Returns `f32[rows, dim]`, of unit length where the distance asks for it."""
        return normalise(embeddings) if self.on_sphere else embeddings.astype(jnp.float32)

    def for_matrix(self, embeddings: Array, valid: Array) -> Array:
        """Returns `f32[rows, dim]` as `matrix` takes them: prepared, and `centred` where that changes no distance."""
        prepared = self.prepare(embeddings)
        return centred(prepared, valid) if self.of_differences else prepared


def squared_euclidean_matrix(anchors: Array, keys: Array) -> Array:
    """‖a − k‖², never below 0."""
    squares = jnp.sum(anchors * anchors, -1)[:, None] + jnp.sum(keys * keys, -1)[None, :]
    return jnp.maximum(squares - 2 * inner_products(anchors, keys), jnp.float32(0))


def squared_euclidean(a: Array, b: Array) -> Array:
    """‖a − b‖² along the last axis."""
    return jnp.sum((a - b) ** 2, axis=-1)


def safe_sqrt(x: Array) -> Array:
    """Square root whose derivative at 0 is 0 and not infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, jnp.float32(1))), jnp.float32(0))


def euclidean_matrix(anchors: Array, keys: Array) -> Array:
    """‖a − k‖."""
    return safe_sqrt(squared_euclidean_matrix(anchors, keys))


def euclidean(a: Array, b: Array) -> Array:
    """‖a − b‖ along the last axis; where they are equal its gradient is 0."""
    return safe_sqrt(squared_euclidean(a, b))


def cosine_matrix(anchors: Array, keys: Array) -> Array:
    """1 − cosine of unit vectors."""
    return 1 - inner_products(anchors, keys)


def cosine(a: Array, b: Array) -> Array:
    """1 − cosine of unit vectors along the last axis."""
    return 1 - jnp.sum(a * b, axis=-1)


#: Name in a config → distance. `…_on_sphere` first scale embeddings to unit length; cosine does so by definition.
DISTANCES: Mapping[str, Distance] = {
    "squared_euclidean": Distance(False, True, squared_euclidean_matrix, squared_euclidean),
    "euclidean": Distance(False, True, euclidean_matrix, euclidean),
    "squared_euclidean_on_sphere": Distance(True, True, squared_euclidean_matrix, squared_euclidean),
    "euclidean_on_sphere": Distance(True, True, euclidean_matrix, euclidean),
    "cosine": Distance(True, False, cosine_matrix, cosine),
}
