"""Random keys as a pure function of (seed, step, global row).

A row's randomness depends on nothing else: not on the number of devices or processes, not on the other rows of its
batch. Threefry is pinned because under `vmap` the `rbg` generator is not keyed per row.
"""

from __future__ import annotations

import zlib

import jax
from jax import Array


def row_keys(seed: int, step: Array | int, row: Array, *, stream: str) -> Array:
    """Returns one key a row.

    Args:
        seed: the run's seed.
        step: training step, `i32[]`.
        row: global row numbers of the batch, `i32[batch]`.
        stream: what the keys are for, such as `"views"`; streams of different names are independent.

    Returns:
        `key<threefry2x32>[batch]`.
    """
    base = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), zlib.crc32(stream.encode()))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(base, step), row)


def split_rows(keys: Array, num: int) -> Array:
    """Splits each row's key: `key[batch]` → `key[batch, num]`."""
    return jax.vmap(lambda key: jax.random.split(key, num))(keys)
