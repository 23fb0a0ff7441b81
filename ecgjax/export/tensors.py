"""Weights of an encoder and its head as arrays with flat names, such as `params/blocks/0/conv1/kernel`, and back.

Those of a head that answers a question have `head/` before them, as in `head/params/kernel`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

from ecgjax import encoders
from ecgjax.errors import CheckpointError
from ecgjax.finetuning.answering_head import Head

#: Weights by their flat names.
Tensors = Mapping[str, np.ndarray]

#: Names of the modules whose weights leave together → what stands before the flat names of each.
PREFIXES = {"encoder": "", "head": "head/"}

M = TypeVar("M", bound=nnx.Module)


def flat_leaves(module: encoders.Split[M], *, of: str = "encoder") -> dict[str, Any]:
    """Returns parameters, then running statistics, by their flat names, in the order in which JAX flattens them.

    A name is `params/` or `stats/` and the path of the weight in the module, with a prefix before it for a head.

    Args:
        module: Encoder or head.
        of: Kind of the module, `"encoder"` or `"head"`.
    """
    return {PREFIXES[of] + name: leaf for name, leaf in named_leaves(arrays_of(module)).items()}


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths with slashes, in the order in which JAX flattens it."""
    # "head" comes before "params", and "params" before "stats", in the alphabet, by which JAX orders a dictionary.
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def flat_tensors(module: encoders.Split[M], *, of: str = "encoder") -> dict[str, np.ndarray]:
    """Returns the arrays of `flat_leaves` in the memory of the host; its arguments are those of `flat_leaves`."""
    return {name: np.asarray(leaf) for name, leaf in flat_leaves(module, of=of).items()}


def model_tensors(encoder: encoders.Split[encoders.Encoder], head: Head | None) -> dict[str, np.ndarray]:
    """Returns the weights of an encoder, and of its head where it has one, by their flat names."""
    return flat_tensors(encoder) | ({} if head is None else flat_tensors(head, of="head"))


def arrays_of(module: encoders.Split[M]) -> dict[str, encoders.Arrays]:
    """Returns the arrays of an encoder or head as one tree."""
    return {"params": module.params, "stats": module.stats}


def with_tensors(
    module: encoders.Split[M], tensors: Tensors, *, source: str = "the weights", of: str = "encoder"
) -> encoders.Split[M]:
    """Returns an encoder or a head with other weights.

    Args:
        module: Encoder or head of the same architecture, as `encoders.create` or `encoders.abstract` returns it.
        tensors: Weights by their flat names.
        source: Name of where the weights come from, for messages.
        of: Kind of the module, `"encoder"` or `"head"`.

    Raises:
        CheckpointError: A weight is missing, there is one too many, or one has another shape or type.
    """
    leaves = flat_leaves(module, of=of)
    remedy = f"make the {of} with the settings that the weights were written with"
    if apart := sorted({*leaves} ^ {*tensors}):
        missing = "misses" if apart[0] in leaves else f"has, and the {of} has not,"
        raise CheckpointError(
            f"{source}: {len(apart)} names differ from the {of}'s; it {missing} {apart[0]!r}; {remedy}"
        )
    for name, leaf in leaves.items():
        if (tensors[name].shape, tensors[name].dtype) != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{source}: {name!r} is {tensors[name].dtype}{list(tensors[name].shape)}, and the {of}'s is "
                f"{leaf.dtype}{list(leaf.shape)}; {remedy}"
            )
    # Copies, as the device may share the memory of what it is given; `jnp.asarray` compiles a program for every shape.
    arrays = [jax.device_put(np.array(tensors[name])) for name in leaves]
    filled = jax.tree.unflatten(jax.tree.structure(arrays_of(module)), arrays)
    return module._replace(params=filled["params"], stats=filled["stats"])


def by_module(tensors: Tensors) -> dict[str, dict[str, np.ndarray]]:
    """Returns the weights of each module of a file, `"encoder"` and `"head"`, under their flat names."""
    head = {name: array for name, array in tensors.items() if name.startswith(PREFIXES["head"])}
    return {"encoder": {name: array for name, array in tensors.items() if name not in head}, "head": head}


def digest_of(tensors: Tensors) -> str:
    """Returns a hex digest of names, types, shapes and numbers; the order of the names makes no difference."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(repr((name, array.dtype.str, tensors[name].shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
