"""Weights of an encoder as arrays with flat names, such as `params/blocks/0/conv1/kernel`, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ecgjax import encoders
from ecgjax.errors import CheckpointError

#: Weights by their flat names.
Tensors = Mapping[str, np.ndarray]


def flat_leaves(encoder: encoders.Split[encoders.Encoder]) -> dict[str, Any]:
    """Returns parameters, then running statistics, by their flat names, in the order in which JAX flattens them.

    A name is `params/` or `stats/` and the path of the weight in the module.
    """
    # "params" comes before "stats" in the alphabet, by which JAX orders a dictionary.
    leaves = jax.tree_util.tree_leaves_with_path(_tree(encoder))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def flat_tensors(encoder: encoders.Split[encoders.Encoder]) -> dict[str, np.ndarray]:
    """Returns the arrays of `flat_leaves` in the memory of the host."""
    return {name: np.asarray(leaf) for name, leaf in flat_leaves(encoder).items()}


def _tree(encoder: encoders.Split[encoders.Encoder]) -> dict[str, encoders.Arrays]:
    return {"params": encoder.params, "stats": encoder.stats}


def with_tensors(
    encoder: encoders.Split[encoders.Encoder], tensors: Tensors, *, source: str = "the weights"
) -> encoders.Split[encoders.Encoder]:
    """Returns an encoder with other weights.

    Args:
        encoder: Encoder of the same architecture, as `encoders.create` or `encoders.abstract` returns it.
        tensors: Weights by their flat names.
        source: Name of where the weights come from, for messages.

    Raises:
        CheckpointError: A weight is missing, there is one too many, or one has another shape or type.
    """
    leaves = flat_leaves(encoder)
    if apart := sorted({*leaves} ^ {*tensors}):
        missing = "misses" if apart[0] in leaves else "has, and the encoder has not,"
        raise CheckpointError(
            f"{source}: {len(apart)} names differ from the encoder's; it {missing} {apart[0]!r}; "
            "make the encoder with the settings that the weights were written with"
        )
    for name, leaf in leaves.items():
        if (tensors[name].shape, tensors[name].dtype) != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{source}: {name!r} is {tensors[name].dtype}{list(tensors[name].shape)}, and the encoder's is "
                f"{leaf.dtype}{list(leaf.shape)}; make the encoder with the settings that the weights were written with"
            )
    arrays = [jnp.asarray(tensors[name]) for name in leaves]
    filled = jax.tree.unflatten(jax.tree.structure(_tree(encoder)), arrays)
    return encoder._replace(params=filled["params"], stats=filled["stats"])


def digest_of(tensors: Tensors) -> str:
    """Returns a hex digest of names, types, shapes and numbers; the order of the names makes no difference."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(repr((name, array.dtype.str, tensors[name].shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
