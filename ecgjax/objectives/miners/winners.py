"""The keys with the highest scores for every anchor, updated tile by tile."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_NONE = -jnp.inf
_NO_ROW = jnp.iinfo(jnp.int32).max


class Winners(NamedTuple):
    """The keys with the highest scores so far, best first.

    The lower row number wins a tie, in whatever order the keys came. Every leaf is `[anchors, num]`. Where there was no
    candidate the score is −∞ and the others are 0.

    Attributes:
        score: Score of the pair, `f32`.
        row: Row number of the key, `i32`.
        position: Position of the key in the global batch, `i32`.
        value: Value that the tile gave with the pair, such as its distance, `f32`.
    """

    score: Array
    row: Array
    position: Array
    value: Array

    @classmethod
    def empty(cls, anchors: int, num: int) -> Winners:
        """Returns the winners before the first tile."""
        zero = jnp.zeros((anchors, num), jnp.int32)
        score = jnp.full((anchors, num), _NONE, jnp.float32)
        return cls(score, zero, zero, jnp.zeros((anchors, num), jnp.float32))

    @property
    def found(self) -> Array:
        """Mask of the winners that exist, `bool[anchors, num]`."""
        return self.score > _NONE

    def add(self, score: Array, row: Array, position: Array, value: Array | None = None) -> Winners:
        """Returns the winners after a further tile of candidates.

        Args:
            score: Scores of the pairs, `f32[anchors, keys]`; −∞ where a key is no candidate.
            row: Row numbers of the keys, `i32[keys]`; unique among candidates.
            position: Positions of the keys in the global batch, `i32[keys]`.
            value: Values to keep with the pairs, `f32[anchors, keys]`; None for 0.
        """
        num = self.score.shape[1]
        tile = _best(num, score, row[None, :], position[None, :], value)
        # The tile is first cut down to its own best, so that what is merged is of 2 · num keys and not of all of the
        # tile.
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), self, tile)
        return _best(num, *both)


def _best(num: int, score: Array, row: Array, position: Array, value: Array | None) -> Winners:
    """Returns the `num` best keys, by one pass for each: a sort would cost more than the tile's inner products."""
    found = []
    key = jax.lax.broadcasted_iota(jnp.int32, score.shape, 1)
    for _ in range(num):
        top, row_of_top, order = (x[:, None] for x in _highest(score, jnp.broadcast_to(row, score.shape), key))
        some = top > _NONE
        found.append(
            Winners(
                top,
                jnp.where(some, row_of_top, 0),
                jnp.where(some, _at(position, order), 0),
                jnp.zeros_like(top) if value is None else jnp.where(some, _at(value, order), jnp.float32(0)),
            )
        )
        score = jnp.where(key == order, _NONE, score)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *found)


def _highest(score: Array, row: Array, key: Array) -> tuple[Array, Array, Array]:
    """Finds the highest score of every anchor, its row number and its column; of equal scores the lowest row counts.

    The column is carried along with the maximum. Looking for the score that equals it afterwards may find none: XLA may
    compute the scores a second time for the comparison, and then a last bit can differ.

    Args:
        score: Scores, `f32[anchors, keys]`.
        row: Row numbers, `i32[anchors, keys]`.
        key: Column numbers, `i32[anchors, keys]`.

    Returns:
        Score, row number and column of each anchor's best key, each `[anchors]`.
    """

    def better(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
        second = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
        return tuple(jnp.where(second, y, x) for x, y in zip(a, b, strict=True))

    nothing = (np.float32(_NONE), np.int32(_NO_ROW), np.int32(0))
    return jax.lax.reduce((score, row, key), nothing, better, (1,))


def _at(values: Array, order: Array) -> Array:
    """Returns the values in column `order`, `i32[anchors, 1]`, of `[anchors, keys]` or `[1, keys]`: `[anchors, 1]`."""
    if values.shape[0] == 1 < order.shape[0]:
        return values[0][order]
    return jnp.take_along_axis(values, order, axis=1)
