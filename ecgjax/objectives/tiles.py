"""Folds over the tiles of anchors × keys of the global batch, in memory linear in the batch.

`fold` is the one way an objective sees pairs. The dense form is a single tile, and the oracle of the tests; the tiled
form scans chunks of keys and recomputes each in the backward pass; with a mesh every device folds its own anchors over
all-gathered keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from ecgjax.objectives.relations import Pairs, Relation, Rows

Carry = TypeVar("Carry")

#: Keys a tile. On two CPU cores 256 beat larger and smaller tiles at 4,096 rows.
DEFAULT_CHUNK = 256


def fold(
    init: Callable[[int], Carry],
    update: Callable[[Carry, Array, Pairs], Carry],
    embeddings: Array,
    rows: Rows,
    *,
    relation: Relation,
    mesh: Mesh | None = None,
    chunk: int | None = DEFAULT_CHUNK,
    axis: str = "data",
) -> Carry:
    """Folds `update` over tiles of similarities, anchors being all rows and keys being all rows.

    Args:
        init: number of anchors → the carry before the first tile; every leaf has the anchors as its first axis.
        update: `(carry, similarity f32[anchors, keys], pairs) → carry`; the tiles come in order of the keys.
        embeddings: `f32[rows, dim]`; similarity is their inner product.
        rows: metadata of the same rows.
        relation: what a pair is.
        mesh: with one, rows are sharded along `axis`; keys are all-gathered. None folds on one device's view.
        chunk: keys a tile, or None for the dense form. It need not divide the number of rows.
        axis: the mesh axis that rows are sharded over.

    Returns:
        The carry after the last tile, sharded as the rows are.
    """
    run = functools.partial(_fold_keys, init, update, relation=relation, chunk=chunk)
    if mesh is None or mesh.shape[axis] == 1:
        return run(embeddings, rows, embeddings, rows)

    def local(embeddings: Array, rows: Rows) -> Carry:
        keys, key_rows = jax.tree.map(lambda x: jax.lax.all_gather(x, axis, tiled=True), (embeddings, rows))
        return run(embeddings, rows, keys, key_rows)

    spec = PartitionSpec(axis)
    return jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False)(embeddings, rows)


def _fold_keys(
    init: Callable[[int], Carry],
    update: Callable[[Carry, Array, Pairs], Carry],
    anchors: Array,
    anchor_rows: Rows,
    keys: Array,
    key_rows: Rows,
    *,
    relation: Relation,
    chunk: int | None,
) -> Carry:
    def tile(carry: Carry, keys: Array, key_rows: Rows) -> Carry:
        similarity = jnp.matmul(anchors, keys.T, precision=jax.lax.Precision.HIGHEST)
        return update(carry, similarity, relation(anchor_rows, key_rows))

    carry = init(anchors.shape[0])
    num_keys = keys.shape[0]
    if chunk is None or num_keys <= chunk:
        return tile(carry, keys, key_rows)
    # Padding rows are not valid, so that they pair with nothing.
    padding = -num_keys % chunk
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1)), (keys, key_rows))
    tiles: Any = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), padded)
    body = jax.checkpoint(tile)
    return jax.lax.scan(lambda carry, xs: (body(carry, *xs), None), carry, tiles)[0]
