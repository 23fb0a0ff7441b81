"""Random keys as a pure function of (seed, step, global row).

A row's randomness depends on nothing else, neither on the number of devices or processes nor on the other rows of its
batch. Threefry is fixed because under `vmap` the `rbg` generator is not keyed per row.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
from jax import Array


def row_keys(seed: Array | int, step: Array | int, row: Array, *, stream: str) -> Array:
    """Returns one key for each row.

    Args:
        seed: Seed of the run, `u32[]` where traced.
        step: Training step, `i32[]`.
        row: Global row numbers of the batch, `i32[batch]`.
        stream: Purpose of the keys, such as `"views"`; streams of different names are independent.

    Returns:
        Keys of the rows, `key<threefry2x32>[batch]`.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key(seed, step, stream=stream), row)


def step_key(seed: Array | int, step: Array | int, *, stream: str) -> Array:
    """Returns the one key of a step, `key<threefry2x32>[]`; arguments are those of `row_keys`."""
    # The generator is named, because a flag of JAX can change its default and with it every draw. Streams are told
    # apart by a checksum: Python's `hash` of a text is another in every process.
    base = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), zlib.crc32(stream.encode()))
    return jax.random.fold_in(base, step)


def split_rows(keys: Array, num: int) -> Array:
    """Splits each row's key, `key[batch]`, into `key[batch, num]`."""
    return jax.vmap(lambda key: jax.random.split(key, num))(keys)


def hash_bits(high: Array, low: Array, position: Array) -> Array:
    """Returns random bits as a function of two words of a key and of a position, by MurmurHash3's finaliser.

    Threefry for every element would take a large part of a step; it makes the keys there, and this function the bits of
    each key.

    Args:
        high: First word of the key, `u32[...]`.
        low: Second word of the key, of the same shape.
        position: Positions among the key's bits, `u32[...]`, broadcast against the words.

    Returns:
        Random bits, `u32[...]` of the broadcast shape.
    """
    h = (position * jnp.uint32(0x9E3779B9)) ^ high
    for multiplier, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13), (0x27D4EB2F, 15)):
        h = (h ^ (h >> jnp.uint32(shift)) ^ low) * jnp.uint32(multiplier)
    return h ^ (h >> jnp.uint32(16))
