"""Random numbers of pairs of rows, the same for any tile size, form, number of devices and order of the rows.

Rows are numbered in the global batch. An anchor has a key, which threefry draws from the step's key and the anchor's
row number; the random number of a pair is a hash of that key and of the other row's number. So a device draws numbers
only for the pairs that it computes.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.keys import hash_bits


def anchor_words(key: Array, row: Array) -> Array:
    """Returns the key of every anchor as two words, from which the random numbers of its pairs are hashed.

    Args:
        key: Random key of the run's seed and step, `key<threefry2x32>[]`.
        row: Row numbers of the anchors in the global batch, `i32[rows]`.

    Returns:
        Two words for each anchor, `u32[rows, 2]`.
    """
    return jax.random.key_data(jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, row))


def uniforms(words: Array, row: Array, *, stream: str) -> Array:
    """Returns a uniform random number between 0 and 1 for every pair, as fine near 0 as 31 bits allow.

    Args:
        words: Words of the anchors, as `anchor_words` returns them, `u32[anchors, 2]`.
        row: Row numbers of the keys in the global batch, `i32[keys]`.
        stream: Name of the numbers' purpose; streams of different names are independent.

    Returns:
        Random numbers, `f32[anchors, keys]`, above 0 and below 1.
    """
    salt = zlib.crc32(stream.encode())
    high, low = words[:, :1] ^ jnp.uint32(salt), words[:, 1:] + jnp.uint32(salt)
    bits = hash_bits(high, low, row.astype(jnp.uint32)[None, :])
    # The bits become signed integers first: every CPU has a conversion of those to floating point.
    number = ((bits >> jnp.uint32(1)).astype(jnp.int32).astype(jnp.float32) + 0.5) * jnp.float32(2**-31)
    # float32 rounds the largest of these numbers to 1, of which the Gumbel number would be infinite.
    return jnp.minimum(number, jnp.float32(1 - 2**-24))


def gumbels(words: Array, row: Array, *, stream: str) -> Array:
    """Returns a standard Gumbel number for every pair; the largest of `log_weight + gumbels` is a draw by the weights.

    Args:
        words: Words of the anchors, as `anchor_words` returns them, `u32[anchors, 2]`.
        row: Row numbers of the keys in the global batch, `i32[keys]`.
        stream: Name of the numbers' purpose; streams of different names are independent.

    Returns:
        Random numbers, `f32[anchors, keys]`.
    """
    # Large Gumbel numbers, which decide, come from uniforms near 0, where those are finest.
    return -jnp.log(-jnp.log1p(-uniforms(words, row, stream=stream)))
