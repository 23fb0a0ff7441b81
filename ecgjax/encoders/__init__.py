"""Encoders, a file an architecture, by name.

An encoder maps `f32[batch, time, lead]` in mV to `f32[batch, embedding_dim]`. Training code never holds the module: it
holds its graph definition and two pure dictionaries of arrays (see `Split`), which `jax.jit` handles far faster than
a module.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.resnet import ResNet18
from ecgjax.errors import ConfigError

#: Name → (class, settings that differ from the class's published defaults).
ENCODERS: Mapping[str, tuple[type[nnx.Module], Mapping[str, Any]]] = {
    "resnet18": (ResNet18, {}),
    # An eighth to a quarter of the widths: 27 MMAC for 12 leads of 1,000 samples.
    "resnet18:small": (ResNet18, {"widths": (16, 32, 64, 128), "dropout": 0.1}),
}

PRECISIONS: Mapping[str, jnp.dtype] = {"float32": jnp.dtype("float32"), "bfloat16": jnp.dtype("bfloat16")}

Arrays = dict[str, Any]


class Split(NamedTuple):
    """An encoder as graph definition and pure dictionaries of arrays.

    Attributes:
        graph: static structure; hashable, compiled into the step.
        params: what the optimiser updates, float32.
        stats: running statistics of batch norm, float32.
    """

    graph: nnx.GraphDef
    params: Arrays
    stats: Arrays


def create(name: str, *, seed: int, precision: str = "float32", **settings: Any) -> Split:
    """Initialises the encoder called `name`.

    Args:
        name: a key of `ENCODERS`; `:small` forms keep the architecture at a fraction of the cost.
        seed: of the initialisation.
        precision: compute type, a key of `PRECISIONS`; parameters and statistics are float32 either way.
        **settings: overrides of the class's arguments, such as `embedding_dim`.

    Raises:
        ConfigError: unknown name, precision or setting, naming those that exist.
    """
    if name not in ENCODERS:
        raise ConfigError(f"config.encoder.name={name!r} is unknown; there are: {', '.join(sorted(ENCODERS))}")
    if precision not in PRECISIONS:
        raise ConfigError(f"config.encoder.precision={precision!r} is unknown; there are: {', '.join(PRECISIONS)}")
    cls, defaults = ENCODERS[name]
    known = set(inspect.signature(cls.__init__).parameters) - {"self", "rngs", "dtype"}
    if unknown := set(settings) - known:
        raise ConfigError(f"config.encoder has unknown settings {sorted(unknown)}; {name} takes: {sorted(known)}")
    rngs = nnx.Rngs(seed)
    module = cls(**{**defaults, **settings}, dtype=PRECISIONS[precision], rngs=rngs)
    graph, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    return Split(graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats))


def merge(encoder: Split) -> nnx.Module:
    """The module again, for use inside a traced function."""
    return nnx.merge(encoder.graph, nnx.State(encoder.params), nnx.State(encoder.stats))


def apply(
    encoder: Split,
    ecg: Array,
    *,
    train: bool,
    keys: Array | None = None,
    valid: Array | None = None,
    features: bool = False,
) -> tuple[Array, Arrays]:
    """Runs the encoder as a pure function.

    Args:
        encoder: what `create` returned, or the same with other arrays.
        ecg: `f32[batch, time, lead]`, mV.
        train: use the batch's statistics and update the running ones.
        keys: `key[batch]` for dropout, None without.
        valid: `bool[batch]`, rows that hold a recording; the others stay out of the batch's statistics. None for all.
        features: return the pooled activations before the last layer instead of the embedding.

    Returns:
        `f32[batch, dim]` and the statistics after the call (unchanged unless `train`).
    """
    module = merge(encoder)
    out = (module.features if features else module)(ecg, train=train, keys=keys, valid=valid)
    return out, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
