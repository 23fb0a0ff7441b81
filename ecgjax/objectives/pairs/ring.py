"""Folds over keys that are sent round in a ring of devices, so that no device ever holds all of them.

References:
    Liu, Zaharia and Abbeel, Ring Attention with Blockwise Transformers, 2023 (arXiv 2310.01889).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Carry = TypeVar("Carry")
Tree = Any

#: JAX's name for the part of a backward pass that `jax.checkpoint` computes again; the ring gives it to its own.
RECOMPUTED = "rematted_computation"


class Links(NamedTuple):
    """Rings of shards that follow one another.

    Attributes:
        axis: Name of the mesh's axis that the rows are sharded over.
        num_shards: Number of shards along the axis, a multiple of `size`.
        size: Number of shards in a ring.
    """

    axis: str
    num_shards: int
    size: int

    def to_next(self, step: int) -> list[tuple[int, int]]:
        """Returns sender and receiver of each block that goes `step` places on in its ring."""
        rings = range(0, self.num_shards, self.size)
        return [(first + place, first + (place + step) % self.size) for first in rings for place in range(self.size)]


def ring(
    update: Callable[[Carry, Tree, Tree], Carry], start: Carry, anchors: Tree, keys: Tree, *, links: Links
) -> Carry:
    """Folds over the keys of a ring: each device folds over the block that it holds, and passes it to its neighbour.

    If the scan were differentiated as it stands, it would keep every block of keys that came by, which is all keys. So
    only the small carries are kept, and the backward pass sends the blocks round again, each with its gradient so far.

    Args:
        update: Step of the fold, `(carry, anchors, keys of a block) → carry`.
        start: Carry before the first block.
        anchors: Anchors of this device, which stay here.
        keys: Keys of this device, its first block.
        links: Links of the rings; where there are slices, each has a ring of its own.

    Returns:
        The carry of this device's anchors after the blocks of all devices of its ring.
    """
    forwards, backwards = links.to_next(-1), links.to_next(1)

    def send(tree: Tree, to: list[tuple[int, int]]) -> Tree:
        return jax.tree.map(lambda x: jax.lax.ppermute(x, links.axis, to), tree)

    # 1. Separate the floating-point leaves, which are differentiated, from the others.
    (anchor_values, anchors_fixed), (key_values, keys_fixed) = _split_floats(anchors), _split_floats(keys)

    # 2. Forward: fold over the block that is here, send it on, and keep the carry from before it.
    def forward(start: Carry, anchor_values: list, key_values: list, fixed: Tree) -> tuple[Carry, Carry]:
        def step(state: tuple, _: None) -> tuple[tuple, Carry]:
            carry, block, block_fixed = state
            here = _join_floats(anchors, anchor_values, fixed[0]), _join_floats(keys, block, block_fixed)
            out = update(carry, *here)
            return (out, send(block, forwards), send(block_fixed, forwards)), carry

        (carry, _, _), carries = jax.lax.scan(step, (start, key_values, fixed[1]), None, length=links.size)
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
