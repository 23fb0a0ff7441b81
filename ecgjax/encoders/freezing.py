"""Freezing of parts of an encoder, which then compute as at inference.

It is not enough that the optimiser leaves their parameters alone: batch norm in training mode would go on normalising
by the batch and moving its running statistics, and dropout would go on dropping.
"""

from __future__ import annotations

from collections.abc import Collection

import jax
from flax import nnx

from ecgjax import encoders
from ecgjax.encoders.operations.layers import BatchNorm


def freeze(encoder: encoders.Split[encoders.Encoder], frozen: Collection[str]) -> encoders.Split[encoders.Encoder]:
    """Returns the encoder with a graph whose frozen modules have no dropout and do not update running statistics.

    Args:
        encoder: Encoder to freeze parts of; its arrays stay the same.
        frozen: Names of the frozen parameters, which begin with `encoder/` for those of the encoder. A module is frozen
            when all its own parameters are.
    """
    if not frozen:
        return encoder
    module = encoders.merge(encoder)
    for path, part in nnx.iter_modules(module):
        own = nnx.to_pure_dict(nnx.state(part, nnx.Param))
        names = {
            "/".join(["encoder", *map(str, path), jax.tree_util.keystr(inner, simple=True, separator="/")])
            for inner, _ in jax.tree_util.tree_leaves_with_path(own)
        }
        if names and names <= set(frozen):
            if isinstance(part, BatchNorm):
                part.frozen = True
            if hasattr(part, "dropout"):
                part.dropout = 0.0
    return encoder._replace(graph=nnx.split(module, nnx.Param, nnx.BatchStat)[0])


def has_batch_statistics(encoder: encoders.Split[encoders.Encoder]) -> bool:
    """Whether the encoder normalises by the batch anywhere; frozen batch norm does not."""
    return any(isinstance(part, BatchNorm) and not part.frozen for _, part in nnx.iter_modules(encoders.merge(encoder)))
