"""Type, shape and digest of every array of a tree, by which a checkpoint is compared with what was saved."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

PyTree = Any


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Returns the leaves of a tree with their paths, such as `blocks/0/kernel`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def describe(tree: PyTree) -> dict[str, list[Any]]:
    """Returns [dtype, shape, digest] of each leaf by name."""
    named = named_leaves(tree)
    digests = jax.device_get(_digests([leaf for _, leaf in named]))
    return {
        # The bytes' order is fixed, so that a digest is the same text on every machine.
        name: [str(leaf.dtype), list(leaf.shape), np.asarray(digest).astype(">u4").tobytes().hex()]
        for (name, leaf), digest in zip(named, digests, strict=True)
    }


@jax.jit
def _digests(leaves: list[Array]) -> list[Array]:
    return [jnp.stack([_digest(leaf, salt) for salt in (0x9E3779B9, 0x85EBCA6B)]) for leaf in leaves]


def _digest(leaf: Array, salt: int) -> Array:
    """Returns a checksum, `u32[]`, that any change of a single element changes, and that no sharding changes.

    It is Σ bits · m(position) modulo 2³² with odd m. Integer sums are exact in any order, so that devices and processes
    agree without gathering the leaf. A changed bit b moves the sum by ±2^b · m, which is never 0.
    """
    if leaf.dtype == jnp.bool_:
        bits = leaf.astype(jnp.uint32)
    else:
        unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    strides = np.cumprod([1, *leaf.shape[:0:-1]])[::-1]
    position = functools.reduce(
        jnp.add,
        [
            # Positions count modulo 2³², which the largest arrays exceed: what matters is that multipliers are odd.
            jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(int(stride) % 2**32)
            for axis, stride in enumerate(strides[: leaf.ndim])  # A scalar has no axis, and still one stride.
        ],
        jnp.uint32(0),
    )
    mixed = (position + jnp.uint32(1)) * jnp.uint32(salt)
    mixed = (mixed ^ (mixed >> jnp.uint32(15))) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(bits * (mixed | jnp.uint32(1)), dtype=jnp.uint32)
