"""Exact nearest neighbours of records among those of other groups, tile by tile.

The distance is that of the stored float32 numbers, computed in float64; of equal distances the lower place comes first.

The search has two parts. A tile of candidates is compared in float32, and a few more of them are kept than were asked
for. The distances of these are then computed in float64. The answer is complete if no candidate that was not kept can
be as near as the last neighbour, by as much as float32 can be wrong. Where one can, as among many equal records, all
candidates are gone through in float64. So the size of tiles changes no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

#: Queries that are answered together, and candidates of a tile: their float32 products stay within the cache of a core.
QUERIES_AT_ONCE, TILE = 256, 8192

# Candidates beyond the neighbours that are asked for: the more, the rarer a pass in float64.
_SLACK = 27


class Neighbours(NamedTuple):
    """Neighbours of queries, the nearest first.

    Attributes:
        places: Places of the neighbours among the points, `int64[m, k]`; −1 where a query has fewer.
        distances: Distances to them, `f64[m, k]`; infinite there.
    """

    places: np.ndarray
    distances: np.ndarray


def nearest(points: np.ndarray, groups: np.ndarray, queries: np.ndarray, *, k: int, tile: int = TILE) -> Neighbours:
    """Finds the k nearest points of other groups.

    Args:
        points: Points, `f32[n, dim]`, finite; they may be a memory map, and are read tile by tile.
        groups: Group of every point, such as its patient, `int[n]`.
        queries: Places of the points whose neighbours are wanted, `int64[m]`.
        k: Number of neighbours, at least 1.
        tile: Number of candidates that are compared at a time.
    """
    found = Neighbours(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf))
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = queries[start : start + QUERIES_AT_ONCE]
        answer = _of_some(points, groups, some, k=k, tile=tile)
        found.places[start : start + len(some)], found.distances[start : start + len(some)] = answer
    return found


def _of_some(points: np.ndarray, groups: np.ndarray, queries: np.ndarray, *, k: int, tile: int) -> Neighbours:
    kept, values = _candidates(points, groups, queries, keep=k + _SLACK, tile=tile)
    own = np.asarray(points[queries])
    squares = _squares_apart(own[:, None], points[np.maximum(kept, 0)])
    squares[kept < 0] = np.inf
    found = _first(squares, kept, k)
    greatest = values.max(axis=1)
    # Where fewer were kept than there was room for, all candidates were.
    full = np.flatnonzero(np.isfinite(greatest))
    for row in full[~_complete(own[full], greatest[full], found.distances[full])]:
        found.places[row], found.distances[row] = _in_float64(points, groups, int(queries[row]), k=k, tile=tile)
    return Neighbours(found.places, np.sqrt(found.distances))


def _candidates(
    points: np.ndarray, groups: np.ndarray, queries: np.ndarray, *, keep: int, tile: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the nearest candidates by float32.

    Returns:
        Places, `int64[m, keep]`, −1 where there are not so many; and half their squared distances less half the
        query's square, `f32[m, keep]`, infinite there. No other candidate has a lower number than the greatest of them.
    """
    own, own_groups = np.asarray(points[queries]), groups[queries]
    kept, values = np.full((len(queries), keep), -1, np.int64), np.full((len(queries), keep), np.inf, np.float32)
    for start, stop in _tiles(len(points), first=keep, most=tile):
        block = np.asarray(points[start:stop])
        half = np.float32(0.5) * np.einsum("nd,nd->n", block, block) - own @ block.T
        half[own_groups[:, None] == groups[start:stop][None, :]] = np.inf
        rows, columns = np.nonzero(half < values.max(axis=1)[:, None])
        if not len(rows):
            continue
        # What is near enough is moved to the left, so that a few numbers are sorted instead of a tile.
        counts = np.bincount(rows, minlength=len(queries))
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        more = np.full((len(queries), counts.max()), np.inf, np.float32)
        more_kept = np.full(more.shape, -1, np.int64)
        more[rows, place], more_kept[rows, place] = half[rows, columns], start + columns
        values, kept = np.concatenate([values, more], axis=1), np.concatenate([kept, more_kept], axis=1)
        order = np.argpartition(values, keep - 1, axis=1)[:, :keep]
        values, kept = np.take_along_axis(values, order, 1), np.take_along_axis(kept, order, 1)
    return kept, values


def _tiles(number: int, *, first: int, most: int) -> Iterator[tuple[int, int]]:
    """Yields first places and ends of tiles that double in size: of a large first one nearly all would be sorted."""
    start, size = 0, min(first, most)
    while start < number:
        yield start, min(start + size, number)
        start, size = start + size, min(2 * size, most)


def _complete(own: np.ndarray, greatest: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Returns which queries have their true neighbours: no candidate that was not kept is as near as the last of them.

    Let h = ½‖c‖² − q·c, of which float32 gives at most ε(‖q‖‖c‖ + ‖c‖²) too much or too little. A candidate that was
    not kept has a computed h of at least g, the greatest of those that were. If ‖c‖ ≤ L its true h is therefore at
    least g − ε(‖q‖L + L²), and beyond L = ‖q‖ + √(‖q‖² + 2 max(g, 0)) it is at least g whatever was computed.

    Args:
        own: Queries, `f32[m, dim]`.
        greatest: Greatest computed h of those that were kept, `f32[m]`.
        squares: Squared distances of the neighbours in ascending order, `f64[m, k]`.
    """
    # Each of the sums of dim products is wrong by at most dim + 1 roundings of 2⁻²⁴; the bound is twice that.
    epsilon = (own.shape[1] + 8) * 2.0**-23
    square = np.einsum("md,md->m", own.astype(np.float64), own.astype(np.float64))
    g, length = greatest.astype(np.float64), np.sqrt(square)
    longest = length + np.sqrt(square + 2 * np.maximum(g, 0))
    least = square + 2 * (g - epsilon * (length * longest + longest**2))
    return least > squares[:, -1]


def _in_float64(
    points: np.ndarray, groups: np.ndarray, query: int, *, k: int, tile: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the neighbours of one query among all points in float64: places and squared distances, `[k]` each."""
    places, squares = np.full(k, -1, np.int64), np.full(k, np.inf)
    for start in range(0, len(points), tile):
        apart = _squares_apart(np.asarray(points[query])[None], points[start : start + tile])
        near = np.flatnonzero((groups[start : start + tile] != groups[query]) & (apart < squares[-1]))
        # What was found before has lower places and stands first, so that it stays first among equals.
        all_squares = np.concatenate([squares, apart[near]])
        order = np.argsort(all_squares, kind="stable")[:k]
        squares, places = all_squares[order], np.concatenate([places, start + near])[order]
    return places, squares


def _squares_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns squared distances along the last axis in float64."""
    apart = np.subtract(one, other, dtype=np.float64)
    return np.einsum("...d,...d->...", apart, apart)


def _first(squares: np.ndarray, places: np.ndarray, k: int) -> Neighbours:
    """Returns the k of each row with the least squared distance, of equal ones those at the lower places."""
    order = np.lexsort((places, squares), axis=1)[:, :k]
    chosen, distances = np.take_along_axis(places, order, 1), np.take_along_axis(squares, order, 1)
    return Neighbours(np.where(np.isfinite(distances), chosen, -1), distances)
