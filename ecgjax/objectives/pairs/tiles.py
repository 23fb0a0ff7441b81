"""Folds over the pairs of the global batch, a tile of keys at a time, in memory linear in the batch.

Every objective computes its pairs by `fold`: anchors are the rows of this device, keys are all rows, and the carry
holds the running values of each anchor after some of the keys. Three forms of it give the same numbers:

* dense: all pairs are one tile; the tests compare the other forms with it.
* gathered: every device gathers the keys and scans them in chunks. The backward pass computes each chunk again; in
  batches so small that they cost little memory, the matrix products are kept.
* ring: every device passes its keys on to its neighbour, and no device ever holds all of them. The backward pass sends
  them round once more the other way.

On a mesh of several slices a device first gathers the keys of its counterparts in the other slices (`exchange`), and
gathering or ring go on inside a slice: keys cross the slow links once, and not in every round.

Objectives that need several passes over the pairs call `fold` once for each, and hand results of the first pass to the
second among the anchors' (or keys') arrays. They exchange the keys once for all passes: then the gradients of the keys
are summed over the passes before they cross back, once as well.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from ecgjax.errors import check_known
from ecgjax.objectives.pairs.ring import Links, ring
from ecgjax.placement.slices import num_slices
from ecgjax.placement.target import for_cpu

Carry = TypeVar("Carry")
Tree = Any

FORMS = ("dense", "gathered", "ring")

#: Keys of a tile on CPUs, where a tile of similarities should stay in the cache: 256 beat larger and smaller ones at
#: 4,096 rows on two cores.
CPU_CHUNK = 256

#: Elements of a tile of similarities on accelerators: 64 MiB of float32, enough to keep any matrix unit busy.
_ACCELERATOR_TILE = 2**24

#: Pairs of a device whose inner products are kept for the backward pass instead of computed again: 64 MiB of float32.
#: At 4,096 rows on two cores this takes .89 of the dense form's time, and 1.0 without (NT-Xent, value and gradient).
_KEPT_PAIRS = 2**24


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Split of the pairs of the global batch into tiles and over devices; it does not change the results.

    Attributes:
        form: Form of the pass, one of `FORMS`.
        mesh: Mesh whose `axis` the rows are sharded over; None where one device has all rows.
        chunk: Keys of a tile; None chooses by the kind of device. It need not divide the number of keys.
        multiple_of: Number that a chunk is rounded down to a multiple of, for objectives that process several keys
            together.
        axis: Name of the mesh's axis that the rows are sharded over.
    """

    form: str = "gathered"
    mesh: Mesh | None = None
    chunk: int | None = None
    multiple_of: int = 1
    axis: str = "data"

    def __post_init__(self) -> None:
        """Checks the form.

        Raises:
            ConfigError: `form` is not one of `FORMS`.
        """
        check_known(self.form, FORMS, setting="config.tiling.form")

    @property
    def num_shards(self) -> int:
        """Number of parts that the rows are cut into."""
        return 1 if self.mesh is None else self.mesh.shape[self.axis]

    @property
    def num_slices(self) -> int:
        """Number of slices, which slow links join, that the rows are cut into."""
        return num_slices(self.mesh)

    @property
    def counterparts(self) -> list[list[int]]:
        """Groups of shards that have the same place in their slices."""
        return [list(range(place, self.num_shards, self.slice_size)) for place in range(self.slice_size)]

    @property
    def slice_size(self) -> int:
        """Number of parts that the rows of a slice are cut into."""
        return self.num_shards // self.num_slices

    @property
    def links(self) -> Links:
        """Links of the rings, one in each slice."""
        return Links(self.axis, self.num_shards, self.slice_size)

    def chunk_of(self, num_anchors: int, num_keys: int) -> int:
        """Returns the number of keys of a tile, for `num_anchors` anchors on a device and `num_keys` keys in all."""
        if self.form == "dense":
            return num_keys
        chunk = self.chunk
        if chunk is None:
            chunk = CPU_CHUNK if for_cpu() else max(CPU_CHUNK, _ACCELERATOR_TILE // max(num_anchors, 1))
        return max(min(chunk, num_keys) // self.multiple_of, 1) * self.multiple_of


class Exchanged(NamedTuple):
    """Arrays of the rows that have crossed the slow links between slices, for passes to share.

    Attributes:
        arrays: Tree of `[slices · rows, ...]`, sharded along the tiling's axis. A device's part are its own rows and
            those of its counterparts, slice by slice. On one slice these are the rows themselves.
    """

    arrays: Tree


def exchange(tree: Tree, *, tiling: Tiling) -> Exchanged:
    """Gathers what the shards have that stand at the same place in other slices; a lone slice keeps its own.

    Arrays of one type and shape are stacked, so that they cross in one operation.

    Args:
        tree: Tree of `[rows, ...]`, sharded along the tiling's axis.
        tiling: Split of the pairs into tiles and over devices, with the slices.

    Returns:
        What `fold` takes for keys, and `take` for values. It is differentiable in the floating-point leaves, whose
        gradients cross back in one operation for each type and shape, however many passes use the arrays.
    """
    if _is_whole(tiling) or tiling.num_slices == 1:
        return Exchanged(tree)
    leaves, structure = jax.tree.flatten(tree)
    alike: dict[Any, list[int]] = {}
    for place, leaf in enumerate(leaves):
        alike.setdefault((leaf.dtype, leaf.shape), []).append(place)

    def local(leaves: list[Array]) -> list[Array]:
        arrived = list(leaves)
        for places in alike.values():
            together = jnp.stack([leaves[place] for place in places], axis=1)
            together = jax.lax.all_gather(together, tiling.axis, tiled=True, axis_index_groups=tiling.counterparts)
            for number, place in enumerate(places):
                arrived[place] = together[:, number]
        return arrived

    return Exchanged(jax.tree.unflatten(structure, _per_device(local, tiling)(leaves)))


def exchange_before(make: Callable[[Tree], Tree], tree: Tree, made: Tree, *, tiling: Tiling) -> Exchanged:
    """Exchanges rows, and computes something of each row where it has arrived.

    So several things that are made of the same rows cross as one.

    Args:
        make: Function of the rows, each by itself.
        tree: Tree of `[rows, ...]`, sharded along the tiling's axis.
        made: Value of `make(tree)`, which a lone slice takes as it is.
        tiling: Split of the pairs into tiles and over devices, with the slices.
    """
    arrived = exchange(tree, tiling=tiling).arrays
    return Exchanged(made if arrived is tree else make(arrived))


def positions(num_rows: int, *, tiling: Tiling) -> Exchanged:
    """Returns the positions in the global batch of rows that were exchanged, `i32[slices · rows]`."""
    position = jnp.arange(num_rows, dtype=jnp.int32)
    slices = 1 if _is_whole(tiling) else tiling.num_slices
    if slices > 1:
        of_places = position.reshape(slices, tiling.slice_size, -1).swapaxes(0, 1)
        position = jnp.tile(of_places.reshape(-1), slices)
    return Exchanged(position)


def fold(
    init: Callable[[int], Carry],
    update: Callable[[Carry, Tree, Tree], Carry],
    anchors: Tree,
    keys: Tree | Exchanged,
    *,
    tiling: Tiling,
) -> Carry:
    """Folds `update` over tiles of keys, for all anchors.

    Args:
        init: Function from the number of anchors to the carry before the first tile. Every leaf of the carry has the
            anchors as its first axis.
        update: Step of the fold, `(carry, anchors, keys of a tile) → carry`. It must not depend on the order of the
            tiles beyond rounding, and must close over nothing that is differentiated: such things are columns of the
            anchors. Where a tile is filled up, the keys added are all zeros, so that a boolean column (`Rows.valid`)
            tells them apart.
        anchors: Tree of `[rows, ...]`, sharded along the tiling's axis.
        keys: Tree of `[keys, ...]`, sharded along the tiling's axis; or what `exchange` made of it, where several
            passes go through the same keys.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The carry after the last tile, sharded as the anchors are. It is differentiable in the floating-point leaves of
        anchors and keys.
    """
    arrived = (keys if isinstance(keys, Exchanged) else exchange(keys, tiling=tiling)).arrays
    if tiling.form == "dense":
        return update(init(_length(anchors)), anchors, arrived)
    scan = functools.partial(_scan_tiles, update, tiling=tiling)
    if tiling.num_shards == 1:
        return scan(init(_length(anchors)), anchors, arrived)

    def local(anchors: Tree, keys: Tree) -> Carry:
        start = init(_length(anchors))
        if tiling.form == "ring":
            return ring(scan, start, anchors, keys, links=tiling.links)
        return scan(start, anchors, _gather(keys, tiling))

    return _per_device(local, tiling)(anchors, arrived)


def take(values: Tree | Exchanged, index: Array, *, tiling: Tiling) -> Tree:
    """Takes rows of the global batch by their position; the result is differentiable in the rows.

    Args:
        values: Tree of `[rows, ...]`, sharded along the tiling's axis, or what `exchange` made of it.
        index: Positions in the global batch, `i32[anchors, ...]`, sharded along the tiling's axis.
        tiling: Way that the rows are exchanged; in a ring no device holds more than its own rows and a neighbour's.

    Returns:
        Tree of `[anchors, ..., ...]`.
    """

    def rows_of(values: Tree, index: Array) -> Tree:
        return jax.tree.map(lambda x: x[index], values)

    arrived = (values if isinstance(values, Exchanged) else exchange(values, tiling=tiling)).arrays
    if _is_whole(tiling):
        return rows_of(arrived, index)
    slices, size = tiling.num_slices, tiling.slice_size

    def local(values: Tree, index: Array) -> Tree:
        count = _length(values) // slices
        if tiling.form == "gathered":
            # Shards that were gathered stand in the order of their places, and at each place in that of the slices.
            shard, row = index // count, index % count
            there = (shard % size * slices + shard // size) * count + row
            return rows_of(_gather(values, tiling), there)
        # A block that is sent round has the rows of one shard of each slice.
        place = jax.lax.axis_index(tiling.axis) % size
        keys = {"first": (jnp.arange(slices, dtype=jnp.int32) * size + place) * count, "values": values}
        parts = [slice(part * count, (part + 1) * count) for part in range(slices)]

        def pick(taken: Tree, anchors: Tree, keys: Tree) -> Tree:
            for number, part in enumerate(parts):
                place = anchors - keys["first"][number]
                here = (place >= 0) & (place < count)
                own = jax.tree.map(lambda x, part=part: x[part], keys["values"])
                rows = rows_of(own, jnp.clip(place, 0, count - 1))
                taken = jax.tree.map(
                    lambda old, new, here=here: jnp.where(_spread(here, new.ndim), new, old), taken, rows
                )
            return taken

        start = jax.tree.map(lambda x: jnp.zeros((*index.shape, *x.shape[1:]), x.dtype), values)
        return ring(pick, start, index, keys, links=tiling.links)

    return _per_device(local, tiling)(arrived, index)


def _is_whole(tiling: Tiling) -> bool:
    """Returns whether the rows lie on one device, or are treated as if they did."""
    return tiling.form == "dense" or tiling.num_shards == 1


def _per_device(function: Callable[..., Tree], tiling: Tiling) -> Callable[..., Tree]:
    spec = PartitionSpec(tiling.axis)
    return jax.shard_map(function, mesh=tiling.mesh, in_specs=spec, out_specs=spec, check_vma=False)


def _gather(tree: Tree, tiling: Tiling) -> Tree:
    """Gathers what the shards of a slice have."""
    size = tiling.slice_size
    slices = [list(range(first, first + size)) for first in range(0, tiling.num_shards, size)]
    groups = slices if len(slices) > 1 else None
    return jax.tree.map(lambda x: jax.lax.all_gather(x, tiling.axis, tiled=True, axis_index_groups=groups), tree)


def _length(tree: Tree) -> int:
    return jax.tree.leaves(tree)[0].shape[0]


def _spread(mask: Array, ndim: int) -> Array:
    return mask.reshape(*mask.shape, *(1,) * (ndim - mask.ndim))


def _scan_tiles(
    update: Callable[[Carry, Tree, Tree], Carry], carry: Carry, anchors: Tree, keys: Tree, *, tiling: Tiling
) -> Carry:
    """Folds over the keys that this device has, a chunk at a time, and returns the carry."""
    num_keys = _length(keys)
    chunk = tiling.chunk_of(_length(anchors), num_keys)
    if num_keys <= chunk:
        return update(carry, anchors, keys)
    padding = -num_keys % chunk
    tiles = jax.tree.map(
        lambda x: jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1))).reshape(-1, chunk, *x.shape[1:]), keys
    )
    policies = jax.checkpoint_policies
    kept = policies.dots_saveable if _length(anchors) * num_keys <= _KEPT_PAIRS else policies.nothing_saveable
    # The anchors are an argument and not a closure, so that the backward pass adds up their gradient tile by tile
    # instead of keeping it for every tile.
    body = jax.checkpoint(lambda carry, tile: update(carry, anchors, tile), policy=kept)
    return jax.lax.scan(lambda carry, tile: (body(carry, tile), None), carry, tiles)[0]
