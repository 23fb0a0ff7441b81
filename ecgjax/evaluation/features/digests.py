"""Digests of arrays and weights, by which results are identified."""

from __future__ import annotations

import hashlib

import jax
import numpy as np

from ecgjax import encoders


def of_arrays(*arrays: np.ndarray) -> str:
    """Returns a digest of the bytes of arrays, one after the other, in hexadecimal; shapes and dtypes do not count."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def of_weights(split: encoders.Split[encoders.Encoder]) -> str:
    """Returns a digest of an encoder's parameters, as hexadecimal text."""
    return of_arrays(*(np.asarray(leaf) for leaf in jax.tree.leaves(split.params)))
