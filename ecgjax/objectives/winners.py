"""The best few keys of every anchor, kept while tiles of keys go by."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_NONE = -jnp.inf
_NO_ROW = jnp.iinfo(jnp.int32).max


class Winners(NamedTuple):
    """The keys with the highest scores so far, best first; the lower row number wins a tie, in whatever order it came.

    Every leaf is `[anchors, num]`. Where there was no candidate the score is −∞ and the others are 0.

    Attributes:
        score: `f32`.
        row: row number, `i32`.
        position: in the global batch, `i32`.
        value: what the tile said of the pair besides, such as its distance, `f32`.
    """

    score: Array
    row: Array
    position: Array
    value: Array

    @classmethod
    def empty(cls, anchors: int, num: int) -> Winners:
        """Before the first tile."""
        zero = jnp.zeros((anchors, num), jnp.int32)
        score = jnp.full((anchors, num), _NONE, jnp.float32)
        return cls(score, zero, zero, jnp.zeros((anchors, num), jnp.float32))

    @property
    def found(self) -> Array:
        """Which are there, `bool[anchors, num]`."""
        return self.score > _NONE

    def add(self, score: Array, row: Array, position: Array, value: Array | None = None) -> Winners:
        """Takes a tile of candidates into account.

        Args:
            score: `f32[anchors, keys]`; −∞ where a key is no candidate.
            row: row numbers of the keys, `i32[keys]`; unique among candidates.
            position: of the keys in the global batch, `i32[keys]`.
            value: of the pairs, `f32[anchors, keys]`; None for 0.
        """
        num = self.score.shape[1]
        tile = _best(num, score, row[None, :], position[None, :], value)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), self, tile)
        return _best(num, *both)


def _best(num: int, score: Array, row: Array, position: Array, value: Array | None) -> Winners:
    """One pass of maxima for each winner: a sort would cost more than the inner products of the tile."""
    found = []
    for _ in range(num):
        top = score.max(1, keepdims=True)
        at_top = score == top
        chosen_row = jnp.where(at_top, row, _NO_ROW).min(1, keepdims=True)
        chosen = at_top & (row == chosen_row)
        some = top > _NONE
        found.append(
            Winners(
                top,
                jnp.where(some, chosen_row, 0),
                jnp.where(chosen & some, position, 0).sum(1, keepdims=True, dtype=jnp.int32),
                jnp.zeros_like(top)
                if value is None
                else jnp.where(chosen & some, value, jnp.float32(0)).sum(1, keepdims=True),
            )
        )
        score = jnp.where(chosen, _NONE, score)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *found)
