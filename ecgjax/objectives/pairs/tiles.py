"""Folds over the pairs of the global batch, a tile of keys at a time, in memory linear in the batch.

Every objective computes its pairs by `fold`: anchors are the rows of this device, keys are all rows, and the carry
holds the running values of each anchor after some of the keys. Three forms of it give the same numbers:

* dense: all pairs are one tile; the tests compare the other forms with it.
* gathered: every device gathers the keys and scans them in chunks. The backward pass computes each chunk again; in
  batches so small that they cost little memory, the matrix products are kept.
* ring: every device passes its keys on to its neighbour, and no device ever holds all of them. The backward pass sends
  them round once more the other way. On a mesh of several slices a device first gathers the keys of its counterparts
  in the other slices, and the ring runs inside a slice: keys cross the slow links once, and not in every round.

Objectives that need several passes over the pairs call `fold` once for each, and hand results of the first pass to the
second among the anchors' (or keys') arrays.

References:
    Liu, Zaharia and Abbeel, Ring Attention with Blockwise Transformers, 2023 (arXiv 2310.01889).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from ecgjax.errors import check_known
from ecgjax.placement.slices import num_slices
from ecgjax.placement.target import for_cpu

Carry = TypeVar("Carry")
Tree = Any

#: JAX's name for the part of a backward pass that `jax.checkpoint` computes again; the ring gives it to its own.
RECOMPUTED = "rematted_computation"

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
        size = self.num_shards // self.num_slices
        return [list(range(place, self.num_shards, size)) for place in range(size)]

    def chunk_of(self, num_anchors: int, num_keys: int) -> int:
        """Returns the number of keys of a tile, for `num_anchors` anchors on a device and `num_keys` keys in all."""
        if self.form == "dense":
            return num_keys
        chunk = self.chunk
        if chunk is None:
            chunk = CPU_CHUNK if for_cpu() else max(CPU_CHUNK, _ACCELERATOR_TILE // max(num_anchors, 1))
        return max(min(chunk, num_keys) // self.multiple_of, 1) * self.multiple_of


def fold(
    init: Callable[[int], Carry],
    update: Callable[[Carry, Tree, Tree], Carry],
    anchors: Tree,
    keys: Tree,
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
        keys: Tree of `[keys, ...]`, sharded along the tiling's axis.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.

    Returns:
        The carry after the last tile, sharded as the anchors are. It is differentiable in the floating-point leaves of
        anchors and keys.
    """
    if tiling.form == "dense":
        return update(init(_length(anchors)), anchors, keys)
    scan = functools.partial(_scan_tiles, update, tiling=tiling)
    if tiling.num_shards == 1:
        return scan(init(_length(anchors)), anchors, keys)

    def local(anchors: Tree, keys: Tree) -> Carry:
        start = init(_length(anchors))
        if tiling.form == "ring":
            return _ring(scan, start, anchors, _gather_counterparts(keys, tiling), tiling=tiling)
        return scan(start, anchors, _gather(keys, tiling.axis))

    return _per_device(local, tiling)(anchors, keys)


def take(values: Tree, index: Array, *, tiling: Tiling) -> Tree:
    """Takes rows of the global batch by their position; the result is differentiable in the rows.

    Args:
        values: Tree of `[rows, ...]`, sharded along the tiling's axis.
        index: Positions in the global batch, `i32[anchors, ...]`, sharded along the tiling's axis.
        tiling: Way that the rows are exchanged; in a ring no device holds more than its own rows and a neighbour's.

    Returns:
        Tree of `[anchors, ..., ...]`.
    """

    def rows_of(values: Tree, index: Array) -> Tree:
        return jax.tree.map(lambda x: x[index], values)

    if tiling.form == "dense" or tiling.num_shards == 1:
        return rows_of(values, index)

    def local(values: Tree, index: Array) -> Tree:
        if tiling.form == "gathered":
            return rows_of(_gather(values, tiling.axis), index)
        count = _length(values)
        first = jax.lax.axis_index(tiling.axis) * count
        keys = {"position": first + jnp.arange(count, dtype=jnp.int32), "values": values}
        # A block that is sent round has the rows of one shard of each slice.
        parts = [slice(part * count, (part + 1) * count) for part in range(tiling.num_slices)]

        def pick(taken: Tree, anchors: Tree, keys: Tree) -> Tree:
            for part in parts:
                place = anchors - keys["position"][part][0]
                here = (place >= 0) & (place < count)
                own = jax.tree.map(lambda x, part=part: x[part], keys["values"])
                rows = rows_of(own, jnp.clip(place, 0, count - 1))
                taken = jax.tree.map(
                    lambda old, new, here=here: jnp.where(_spread(here, new.ndim), new, old), taken, rows
                )
            return taken

        start = jax.tree.map(lambda x: jnp.zeros((*index.shape, *x.shape[1:]), x.dtype), values)
        return _ring(pick, start, index, _gather_counterparts(keys, tiling), tiling=tiling)

    return _per_device(local, tiling)(values, index)


def _per_device(function: Callable[[Tree, Tree], Tree], tiling: Tiling) -> Callable[[Tree, Tree], Tree]:
    spec = PartitionSpec(tiling.axis)
    return jax.shard_map(function, mesh=tiling.mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False)


def _gather(tree: Tree, axis: str) -> Tree:
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis, tiled=True), tree)


def _gather_counterparts(tree: Tree, tiling: Tiling) -> Tree:
    """Gathers what the shards have that stand at the same place in other slices; a lone slice keeps its own."""
    if tiling.num_slices == 1:
        return tree
    groups = tiling.counterparts
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


def _ring(
    update: Callable[[Carry, Tree, Tree], Carry], start: Carry, anchors: Tree, keys: Tree, *, tiling: Tiling
) -> Carry:
    """Folds over the keys of a slice: each device folds over the block that it holds, and passes it to its neighbour.

    If the scan were differentiated as it stands, it would keep every block of keys that came by, which is all keys. So
    only the small carries are kept, and the backward pass sends the blocks round again, each with its gradient so far.

    Args:
        update: Step of the fold, `(carry, anchors, keys of a block) → carry`.
        start: Carry before the first block.
        anchors: Anchors of this device, which stay here.
        keys: Keys of this device, its first block.
        tiling: Axis and slices of the mesh; each slice has a ring of its own.

    Returns:
        The carry of this device's anchors after the blocks of all devices of its slice.
    """
    axis, size = tiling.axis, tiling.num_shards // tiling.num_slices
    rings = range(0, tiling.num_shards, size)
    forwards = [(first + place, first + (place - 1) % size) for first in rings for place in range(size)]
    backwards = [(first + place, first + (place + 1) % size) for first in rings for place in range(size)]

    def send(tree: Tree, to: list[tuple[int, int]]) -> Tree:
        return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, to), tree)

    # 1. Separate the floating-point leaves, which are differentiated, from the others.
    (anchor_values, anchors_fixed), (key_values, keys_fixed) = _split_floats(anchors), _split_floats(keys)

    # 2. Forward: fold over the block that is here, send it on, and keep the carry from before it.
    def forward(start: Carry, anchor_values: list, key_values: list, fixed: Tree) -> tuple[Carry, Carry]:
        def step(state: tuple, _: None) -> tuple[tuple, Carry]:
            carry, block, block_fixed = state
            here = _join_floats(anchors, anchor_values, fixed[0]), _join_floats(keys, block, block_fixed)
            out = update(carry, *here)
            return (out, send(block, forwards), send(block_fixed, forwards)), carry

        (carry, _, _), carries = jax.lax.scan(step, (start, key_values, fixed[1]), None, length=size)
        return carry, carries

    @jax.custom_vjp
    def run(start: Carry, anchor_values: list, key_values: list, fixed: Tree) -> Carry:
        return forward(start, anchor_values, key_values, fixed)[0]

    def run_forward(start: Carry, anchor_values: list, key_values: list, fixed: Tree) -> tuple[Carry, tuple]:
        carry, carries = forward(start, anchor_values, key_values, fixed)
        return carry, (anchor_values, key_values, fixed, carries)

    # 3. Backward: take the carries in reverse order and fetch each block back from the neighbour, with the gradient
    #    that it has gathered so far. Compute the update again, and add its gradients to those of anchors and block.
    def run_backward(saved: tuple, gradient: Carry) -> tuple:
        anchor_values, key_values, fixed, carries = saved

        def step(state: tuple, carry: Carry) -> tuple[tuple, None]:
            gradient, of_anchors, block, block_fixed, of_block = state
            block, block_fixed, of_block = send((block, block_fixed, of_block), backwards)
            with jax.named_scope(RECOMPUTED):
                _, pull = jax.vjp(
                    lambda carry, a, k: update(
                        carry, _join_floats(anchors, a, fixed[0]), _join_floats(keys, k, block_fixed)
                    ),
                    carry,
                    anchor_values,
                    block,
                )
            gradient, more_of_anchors, more_of_block = pull(gradient)
            add = functools.partial(jax.tree.map, jnp.add)
            return (gradient, add(of_anchors, more_of_anchors), block, block_fixed, add(of_block, more_of_block)), None

        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        state = (gradient, zeros(anchor_values), key_values, fixed[1], zeros(key_values))
        (gradient, of_anchors, _, _, of_block), _ = jax.lax.scan(step, state, carries, reverse=True)
        return gradient, of_anchors, of_block, None

    run.defvjp(run_forward, run_backward)
    return run(start, anchor_values, key_values, (anchors_fixed, keys_fixed))


def _is_float(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _split_floats(tree: Tree) -> tuple[list, list]:
    """Returns the floating-point leaves of a tree, and its other leaves."""
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if _is_float(leaf)], [leaf for leaf in leaves if not _is_float(leaf)]


def _join_floats(like: Tree, values: list, fixed: list) -> Tree:
    """Puts floating-point leaves and the others back into a tree of the structure of `like`."""
    leaves, structure = jax.tree.flatten(like)
    values_left, fixed_left = iter(values), iter(fixed)
    joined = [next(values_left if _is_float(leaf) else fixed_left) for leaf in leaves]
    return jax.tree.unflatten(structure, joined)
