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
        embeddings: Embeddings, `[rows, dim]`.

    Returns:
        Vectors of unit length, `f32[rows, dim]`.
    """
    x = embeddings.astype(jnp.float32)
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    some = squares > jnp.float32(_TINY)
    # With only a lower bound on the length, the gradient of a zero row would be multiplied by 1e12.
    return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, squares, jnp.float32(1))), jnp.float32(0))


def inner_products(anchors: Array, keys: Array) -> Array:
    """Returns inner products, `f32[anchors, keys]`, in full float32, also on devices whose default is less."""
    return jnp.matmul(anchors, keys.T, precision=jax.lax.Precision.HIGHEST)


def centred(x: Array, valid: Array) -> Array:
    """Subtracts one common vector from all rows: distances do not change, and inner products keep their digits.

    |a|² + |k|² − 2 a·k of rows that all lie about 1,000 from the origin keeps no digit of a distance of 1. The
    subtraction of `common_vector` rounds little or nothing.

    Args:
        x: Rows of the whole batch, `f32[rows, dim]`.
        valid: Rows that the shift is computed from, `bool[rows]`; the other rows are shifted too.

    Returns:
        Shifted rows, `f32[rows, dim]`.
    """
    return x - common_vector(x, valid)


def common_vector(x: Array, valid: Array) -> Array:
    """Returns the vector that `centred` subtracts from all rows, `f32[1, dim]`.

    It is the mean of the valid rows, rounded to multiples of a power of two near their root mean square distance from
    it (a dimension): it is 0 where rows lie about the origin anyway, and otherwise the same however they are spread
    over devices, but where the rounding of a sum decides. It carries no gradient, because the gradient of a distance is
    exact without it.

    Args:
        x: Rows of the whole batch, `f32[rows, dim]`.
        valid: Rows that count, `bool[rows]`.
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
    return jnp.where(jnp.isfinite(shift), shift, jnp.float32(0))


class Points(NamedTuple):
    """Embeddings in the form that `Distance.matrix` takes.

    Attributes:
        place: Vectors, `f32[rows, dim]`, from all of which `centred` has subtracted one vector.
        zero: Mask of the rows of zeros, which have no direction, `bool[rows]`; None for distances that are not on the
            sphere.
    """

    place: Array
    zero: Array | None = None


class Distance(NamedTuple):
    """A distance with a name.

    Attributes:
        on_sphere: Whether embeddings are scaled to unit length first.
        of_places: Distances of all pairs, `(f32[anchors, dim], f32[keys, dim]) → f32[anchors, keys]`, a function of a −
            k alone, so that a shift of all rows changes nothing. It goes by inner products, so that points much nearer
            to each other than to the origin lose digits: call `matrix` instead.
        of_pairs: Distances of given pairs, `(f32[..., dim], f32[..., dim]) → f32[...]`, by differences; losses use it.
        from_zero: Distance of a row of zeros from any other, if that is not the distance of their places.
    """

    on_sphere: bool
    of_places: Callable[[Array, Array], Array]
    of_pairs: Callable[[Array, Array], Array]
    from_zero: float | None = None

    def prepare(self, embeddings: Array) -> Array:
        """Returns embeddings `f32[rows, dim]`, of unit length where the distance asks for it."""
        return normalise(embeddings) if self.on_sphere else embeddings.astype(jnp.float32)

    def shift(self, embeddings: Array, valid: Array) -> Array:
        """Returns the vector that `points` subtracts, `f32[1, dim]`.

        Args:
            embeddings: Embeddings of the whole batch, `[rows, dim]`.
            valid: Rows that count, `bool[rows]`.
        """
        prepared = self.prepare(embeddings)
        # Zero rows have no say in the shift: they lie far from unit vectors that are all alike, and would spoil it.
        return common_vector(prepared, valid & ~_is_zero(prepared) if self.on_sphere else valid)

    def points(self, embeddings: Array, shift: Array) -> Points:
        """Returns embeddings as `matrix` takes them: prepared and less a common vector.

        Args:
            embeddings: Embeddings, `[rows, dim]`.
            shift: The same vector for all rows that are compared, `f32[1, dim]`, as the method `shift` returned it.
        """
        prepared = self.prepare(embeddings)
        return Points(prepared - shift, _is_zero(prepared) if self.on_sphere else None)

    def matrix(self, anchors: Points, keys: Points) -> Array:
        """Returns the distances of all pairs, `f32[anchors, keys]`, by which pairs are chosen."""
        apart = self.of_places(anchors.place, keys.place)
        if self.from_zero is None:
            return apart
        if anchors.zero is None or keys.zero is None:
            raise ValueError("these points do not say which of them are zero")
        return jnp.where(anchors.zero[:, None] | keys.zero[None, :], jnp.float32(self.from_zero), apart)


def _is_zero(x: Array) -> Array:
    """Returns which vectors along the last axis are all zeros, `[..., dim]` → `bool[...]`."""
    return ~jnp.any(jnp.abs(x) > 0, axis=-1)


def squared_euclidean_matrix(anchors: Array, keys: Array) -> Array:
    """Returns ‖a − k‖² of all pairs, never below 0: `f32[anchors, dim]`, `f32[keys, dim]` → `f32[anchors, keys]`."""
    squares = jnp.sum(anchors * anchors, -1)[:, None] + jnp.sum(keys * keys, -1)[None, :]
    return jnp.maximum(squares - 2 * inner_products(anchors, keys), jnp.float32(0))


def squared_euclidean(a: Array, b: Array) -> Array:
    """Returns ‖a − b‖² along the last axis, `f32[...]`."""
    return jnp.sum((a - b) ** 2, axis=-1)


def safe_sqrt(x: Array) -> Array:
    """Returns the square root, whose derivative at 0 is 0 here and not infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, jnp.float32(1))), jnp.float32(0))


def euclidean_matrix(anchors: Array, keys: Array) -> Array:
    """Returns ‖a − k‖ of all pairs: `f32[anchors, dim]`, `f32[keys, dim]` → `f32[anchors, keys]`."""
    return safe_sqrt(squared_euclidean_matrix(anchors, keys))


def euclidean(a: Array, b: Array) -> Array:
    """Returns ‖a − b‖ along the last axis, `f32[...]`; where `a` equals `b` the gradient is 0."""
    return safe_sqrt(squared_euclidean(a, b))


def cosine_matrix(anchors: Array, keys: Array) -> Array:
    """Returns 1 − cosine of all pairs of unit vectors, also if one vector was subtracted from all of them (`centred`).

    It is computed as ½‖a − k‖², which such a shift does not change, and because 1 − a·k of small angles keeps no digit.

    Args:
        anchors: Unit vectors less the shift, `f32[anchors, dim]`.
        keys: Unit vectors less the same shift, `f32[keys, dim]`.

    Returns:
        Distances, `f32[anchors, keys]`.
    """
    return squared_euclidean_matrix(anchors, keys) / 2


def cosine(a: Array, b: Array) -> Array:
    """Returns 1 − cosine of unit vectors along the last axis, as ½‖a − b‖²; it is 1 where either is zero."""
    return jnp.where(_is_zero(a) | _is_zero(b), jnp.float32(1), squared_euclidean(a, b) / 2)


#: Name in a config → distance. `…_on_sphere` first scale embeddings to unit length; cosine does so by definition.
DISTANCES: Mapping[str, Distance] = {
    "squared_euclidean": Distance(False, squared_euclidean_matrix, squared_euclidean),
    "euclidean": Distance(False, euclidean_matrix, euclidean),
    "squared_euclidean_on_sphere": Distance(True, squared_euclidean_matrix, squared_euclidean),
    "euclidean_on_sphere": Distance(True, euclidean_matrix, euclidean),
    "cosine": Distance(True, cosine_matrix, cosine, from_zero=1.0),
}
