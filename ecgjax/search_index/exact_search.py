"""Exact neighbours by cosine among stored float16 embeddings.

The cosine is that of the stored numbers: products of two float16 numbers, and the sums of them over a unit vector, are
exact in float64, so that it does not depend on any order of adding. Of equal cosines the lower row comes first.

The search has two parts. The device folds blocks of rows in float32 and keeps a few more candidates than were asked
for. The host then computes the candidates' cosines in float64. The answer is complete if the lowest candidate, by as
much as float32 can be wrong, is still below the last neighbour. Where it is not, as among many copies of one embedding,
the host goes through all rows in float64. So neither the size of blocks nor the number of devices changes an answer.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.retrieval import greatest
from ecgjax.training.device_mesh import make_mesh

#: Largest number of neighbours of a query.
MOST_NEIGHBOURS = 1000

#: Rows of the index in a block, and queries that are answered in one pass over the blocks.
BLOCK_ROWS, QUERIES_AT_ONCE = 65_536, 256

# Candidates beyond the neighbours that are asked for: the more, the rarer a pass in float64.
_SLACK = 32

# The k greatest of many are among the k groups with the greatest maxima, and a maximum is cheaper than a selection.
_GROUP = 64

# Rows of a pass in float64, and bytes of candidates whose cosines are computed at a time.
_EXACT_ROWS, _EXACT_BYTES = 16_384, 2**26

# Row numbers on the device are int32.
_MOST_ROWS = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apart:
    """Codes of what must not be neighbours, such as patients; a negative code is equal to none.

    Attributes:
        rows: Codes of the rows of the index, `int32[n, kinds]`.
        queries: Codes of the queries, `int32[m, kinds]`. A row is no neighbour of a query that it shares a code with.
    """

    rows: np.ndarray
    queries: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Neighbours of queries, the nearest first.

    Attributes:
        rows: Row numbers, `int64[m, k]`; −1 where a query has fewer neighbours.
        similarity: Cosines of the stored numbers, `f64[m, k]`; −inf there.
        passes_in_float64: Number of queries that were answered by a pass in float64 over all rows.
    """

    rows: np.ndarray
    similarity: np.ndarray
    passes_in_float64: int


def nearest(
    stored: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    rows: np.ndarray | None = None,
    apart: Apart | None = None,
    block_rows: int = BLOCK_ROWS,
    devices: Sequence[jax.Device] | None = None,
    tell: Callable[[int], Any] = lambda num_rows: None,
) -> Neighbours:
    """Finds the k rows of the greatest cosine with each query.

    Args:
        stored: Embeddings of about length 1, `f16[n, dim]`; they may be a memory map, and are read block by block.
        queries: Embeddings of about length 1, `f16[m, dim]`.
        k: Number of neighbours, 1 to `MOST_NEIGHBOURS`.
        rows: Row numbers that may be neighbours, `int64[…]`, ascending; None for all.
        apart: Codes of what must not be neighbours; None where every row may be a neighbour of every query.
        block_rows: Number of rows on the devices at a time.
        devices: Devices to search with; None for all of this process.
        tell: Function that is called with the number of rows of each block that was searched.

    Raises:
        DataError: `k` is not possible, or there are too many rows.
    """
    _check(stored, queries, k)
    rows = np.arange(len(stored)) if rows is None else rows
    apart = apart or Apart(
        rows=np.full((len(stored), 2), -1, np.int32), queries=np.full((len(queries), 2), -1, np.int32)
    )
    found = np.full((len(queries), k), -1, np.int64)
    similarity = np.full((len(queries), k), -np.inf)
    mesh = make_mesh(devices=tuple(jax.local_devices() if devices is None else devices))
    passes = 0
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        batch = slice(start, start + QUERIES_AT_ONCE)
        part = _Part(stored, rows, queries[batch], Apart(rows=apart.rows, queries=apart.queries[batch]))
        candidates, lowest = _candidates(part, k + _SLACK, block_rows=block_rows, mesh=mesh, tell=tell)
        found[batch], similarity[batch] = _ordered(part, candidates, k)
        open_ones = np.flatnonzero(~_complete(similarity[batch], lowest, dim=stored.shape[1]))
        passes += len(open_ones)
        if len(open_ones):
            found[start + open_ones], similarity[start + open_ones] = _in_float64(part.of(open_ones), k)
    return Neighbours(rows=found, similarity=similarity, passes_in_float64=passes)


def _check(stored: np.ndarray, queries: np.ndarray, k: int) -> None:
    if not 1 <= k <= MOST_NEIGHBOURS:
        raise DataError(f"--k={k}: 1 to {MOST_NEIGHBOURS} neighbours can be asked for")
    if len(stored) > _MOST_ROWS:
        raise DataError(
            f"{len(stored)} rows are more than the {_MOST_ROWS} that one search can number; divide the index"
        )
    if stored.dtype != np.float16 or queries.dtype != np.float16 or stored.shape[1:] != queries.shape[1:]:
        raise ValueError(f"{queries.dtype}{queries.shape} cannot be looked for in {stored.dtype}{stored.shape}")


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some queries, and the rows that may be their neighbours."""

    stored: np.ndarray
    rows: np.ndarray
    queries: np.ndarray
    apart: Apart

    def of(self, queries: np.ndarray) -> _Part:
        """Returns the part of some of the queries."""
        apart = Apart(rows=self.apart.rows, queries=self.apart.queries[queries])
        return dataclasses.replace(self, queries=self.queries[queries], apart=apart)

    def block(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns row numbers, `int64[≤ size]`, and their embeddings, `f16[≤ size, dim]`."""
        rows = self.rows[start : start + size]
        # Without a filter they are consecutive, and a slice of a memory map is faster than a list of rows.
        consecutive = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        return rows, np.asarray(self.stored[rows[0] : rows[-1] + 1] if consecutive else self.stored[rows])


def _candidates(
    part: _Part, keep: int, *, block_rows: int, mesh: Mesh, tell: Callable[[int], Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the rows of the greatest cosines by float32.

    Returns:
        Row numbers, `int64[m, keep]`, −1 where there are not so many; and the lowest of the cosines that were kept,
        `f64[m]`, which no other row exceeds by float32; −inf where all rows were kept.
    """
    number = len(mesh.devices.flat)
    size = number * math.ceil(max(1, min(block_rows, len(part.rows))) / number)
    over_devices, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    # A power of two, so that few programs are compiled for queries of any number.
    padded = 2 ** math.ceil(math.log2(max(1, len(part.queries))))
    queries = jax.device_put(_filled(part.queries, padded, 0), everywhere)
    codes = jax.device_put(_filled(part.apart.queries, padded, -1), everywhere)
    best = jax.device_put(np.full((number, padded, keep), -np.inf, np.float32), over_devices)
    best_rows = jax.device_put(np.full((number, padded, keep), -1, np.int32), over_devices)
    step = _step(mesh)
    for start in range(0, len(part.rows), size):
        rows, block = part.block(start, size)
        arrays = (
            _filled(block, size, 0),
            _filled(rows.astype(np.int32), size, -1),
            _filled(part.apart.rows[rows], size, -1),
        )
        best, best_rows = step(best, best_rows, *jax.device_put(arrays, over_devices), queries, codes)
        # Without waiting, the blocks of a large index would all lie in memory before the first was searched.
        jax.block_until_ready(best)
        tell(len(rows))
    return _merged(np.asarray(best), np.asarray(best_rows), part.queries)


def _filled(values: np.ndarray, size: int, value: int) -> np.ndarray:
    missing = size - len(values)
    return np.concatenate([values, np.full((missing, *values.shape[1:]), value, values.dtype)]) if missing else values


def _merged(best: np.ndarray, rows: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the greatest of what the devices have kept, `[devices, ≥ m, keep]`, as `_candidates` returns them."""
    keep = best.shape[-1]
    best, rows = (np.moveaxis(each, 0, 1)[: len(queries)].reshape(len(queries), -1) for each in (best, rows))
    order = greatest(best, keep)
    best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    # The device does not divide by the length of the query, which is 1 but for its rounding to float16.
    lowest = best[:, -1].astype(np.float64) / np.sqrt(_squares(queries.astype(np.float64)))
    return np.where(np.isfinite(best), rows, -1).astype(np.int64), lowest


@functools.cache
def _step(mesh: Mesh) -> Callable[..., tuple[Array, Array]]:
    """Returns the compiled step of the fold; each device has a share of the block's rows and keeps its own best."""
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(
        _fold_block,
        mesh=mesh,
        in_specs=(rows, rows, rows, rows, rows, everywhere, everywhere),
        out_specs=(rows, rows),
    )
    return jax.jit(mapped, donate_argnums=(0, 1))


def _fold_block(
    best: Array, best_rows: Array, block: Array, rows: Array, codes: Array, queries: Array, query_codes: Array
) -> tuple[Array, Array]:
    """Folds a device's share of a block into the greatest cosines so far.

    Args:
        best: Greatest cosines so far, `f32[1, m, keep]`.
        best_rows: Their row numbers, `i32[1, m, keep]`.
        block: Embeddings, `f16[b, dim]`.
        rows: Row numbers, `i32[b]`; −1 for what fills up the block.
        codes: Codes of the rows, `i32[b, kinds]`.
        queries: Embeddings of the queries, `f16[m, dim]`.
        query_codes: Codes of the queries, `i32[m, kinds]`.
    """
    wide = block.astype(jnp.float32)
    product = jnp.matmul(queries.astype(jnp.float32), wide.T, precision=lax.Precision.HIGHEST)
    cosine = product / jnp.sqrt(jnp.sum(jnp.square(wide), axis=1))[None, :]
    shared = (codes[None, :, :] == query_codes[:, None, :]) & (query_codes[:, None, :] >= 0)
    cosine = jnp.where(shared.any(axis=2) | (rows < 0)[None, :], -jnp.inf, cosine)
    values, places = _greatest_on_device(cosine, min(best.shape[2], len(block)))
    values = jnp.concatenate([best[0], values], axis=1)
    numbers = jnp.concatenate([best_rows[0], rows[places]], axis=1)
    values, places = lax.top_k(values, best.shape[2])
    return values[None], jnp.take_along_axis(numbers, places, axis=1)[None]


def _greatest_on_device(values: Array, keep: int) -> tuple[Array, Array]:
    """Returns the greatest values of each row and their places, `[m, keep]`; of equal values any may be kept."""
    count, groups = values.shape[1], values.shape[1] // _GROUP
    if count % _GROUP or groups <= keep:
        return lax.top_k(values, keep)
    grouped = values.reshape(len(values), groups, _GROUP)
    _, chosen = lax.top_k(grouped.max(axis=2), keep)
    inside = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(len(values), keep * _GROUP)
    best, places = lax.top_k(inside, keep)
    return best, jnp.take_along_axis(chosen, places // _GROUP, axis=1) * _GROUP + places % _GROUP


def _ordered(part: _Part, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k best of the candidates by their exact cosines: rows, `int64[m, k]`, and cosines, `f64[m, k]`."""
    candidates = np.sort(candidates, axis=1)
    cosine = np.empty(candidates.shape)
    at_once = max(1, _EXACT_BYTES // (8 * candidates.shape[1] * part.stored.shape[1]))
    for start in range(0, len(candidates), at_once):
        some = slice(start, start + at_once)
        values = np.asarray(part.stored[candidates[some].ravel()], np.float64)
        values = values.reshape(*candidates[some].shape, -1)
        queries = part.queries[some].astype(np.float64)
        products = np.einsum("md,mcd->mc", queries, values)
        cosine[some] = products / np.sqrt(_squares(queries)[:, None] * _squares(values))
    cosine[candidates < 0] = -np.inf
    order = greatest(cosine, k)
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(cosine, order, 1)


def _squares(values: np.ndarray) -> np.ndarray:
    """Returns squared lengths along the last axis."""
    return np.einsum("...d,...d->...", values, values)


def _complete(similarity: np.ndarray, lowest: np.ndarray, *, dim: int) -> np.ndarray:
    """Returns which queries have their true neighbours: no row that was not kept can reach the last of them.

    A sum of `dim` float32 products is wrong by at most dim · 2⁻²⁴ of a unit vector's length, and the length that it is
    divided by by half as much; the bound is more than twice both.
    """
    bound = (dim + 8) * 2.0**-22
    return (lowest == -np.inf) | (lowest + bound < similarity[:, -1])


def _in_float64(part: _Part, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the neighbours by going through all rows in float64; returns rows and cosines, `[m, k]`."""
    queries = part.queries.astype(np.float64)
    squares = _squares(queries)
    best_rows, best = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf)
    codes = part.apart.queries[:, None, :]
    for start in range(0, len(part.rows), _EXACT_ROWS):
        rows, block = part.block(start, _EXACT_ROWS)
        wide = block.astype(np.float64)
        cosine = (queries @ wide.T) / np.sqrt(squares[:, None] * _squares(wide)[None, :])
        cosine[((part.apart.rows[rows][None] == codes) & (codes >= 0)).any(axis=2)] = -np.inf
        # What was found before has lower rows and stands first, so that it stays first among equals.
        values = np.concatenate([best, cosine], axis=1)
        numbers = np.concatenate([best_rows, np.broadcast_to(rows, cosine.shape)], axis=1)
        order = greatest(values, k)
        best, best_rows = np.take_along_axis(values, order, 1), np.take_along_axis(numbers, order, 1)
    return np.where(np.isfinite(best), best_rows, -1), best
