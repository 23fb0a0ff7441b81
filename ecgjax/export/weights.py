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


def flat_tensors(encoder: encoders.Split[encoders.Encoder]) -> dict[str, np.ndarray]:
    """Returns parameters and running statistics by their flat names, in the order of the names.

    A name is `params/` or `stats/` and the path of the weight in the module.
    """
    return {name: np.asarray(leaf) for name, leaf in sorted(zip(*_leaves(encoder), strict=True))}


def _leaves(encoder: encoders.Split[encoders.Encoder]) -> tuple[list[str], list[Any]]:
    tree = {"params": encoder.params, "stats": encoder.stats}
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths], [leaf for _, leaf in paths]


def names_of_arguments(params: Any, stats: Any) -> list[str]:
    """Returns the flat names of weights in the order in which a trace takes them, parameters before statistics."""
    trees = ({"params": params}, {"stats": stats})
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for tree in trees
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


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
    names, leaves = _leaves(encoder)
    if names_apart := sorted({*names} ^ {*tensors}):
        name = names_apart[0]
        what = "does not have" if name in names else "has, and the encoder has not,"
        raise CheckpointError(
            f"{source}: {len(names_apart)} of the names differ from the encoder's, such as {name!r}, which it {what}; "
            "make the encoder with the settings that the weights were written with"
        )
    for name, leaf in zip(names, leaves, strict=True):
        if (tensors[name].shape, tensors[name].dtype) != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{source}: {name!r} is {tensors[name].dtype}{list(tensors[name].shape)}, and the encoder's is "
                f"{leaf.dtype}{list(leaf.shape)}; make the encoder with the settings that the weights were written with"
            )
    tree = {"params": encoder.params, "stats": encoder.stats}
    arrays = [jnp.asarray(tensors[name]) for name in names]
    filled = jax.tree.unflatten(jax.tree.structure(tree), arrays)
    return encoder._replace(params=filled["params"], stats=filled["stats"])


def digest(tensors: Tensors) -> str:
    """Returns a hex digest of names, types, shapes and numbers; the order of the names makes no difference."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(repr((name, array.dtype.str, tensors[name].shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
