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


class Distance(NamedTuple):
    """A distance with a name.

    Attributes:
        on_sphere: whether embeddings are scaled to unit length first.
        matrix: `(f32[anchors, dim], f32[keys, dim]) → f32[anchors, keys]`; by inner products, so that near points lose
            digits: for choosing pairs.
        of_pairs: `(f32[..., dim], f32[..., dim]) → f32[...]` by differences: for losses.
    """

    on_sphere: bool
    matrix: Callable[[Array, Array], Array]
    of_pairs: Callable[[Array, Array], Array]

    def prepare(self, embeddings: Array) -> Array:
        """Returns `f32[rows, dim]`, of unit length where the distance asks for it."""
        return normalise(embeddings) if self.on_sphere else embeddings.astype(jnp.float32)


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
    "squared_euclidean": Distance(False, squared_euclidean_matrix, squared_euclidean),
    "euclidean": Distance(False, euclidean_matrix, euclidean),
    "squared_euclidean_on_sphere": Distance(True, squared_euclidean_matrix, squared_euclidean),
    "euclidean_on_sphere": Distance(True, euclidean_matrix, euclidean),
    "cosine": Distance(True, cosine_matrix, cosine),
}
