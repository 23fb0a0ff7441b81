"""Encoders by name, and their use as pure functions.

An encoder maps `f32[batch, time, lead]` in mV to embeddings, `f32[batch, embedding_dim]`, or to one embedding for every
lead or group of leads, `f32[batch, lead_groups, embedding_dim]`. It also gives pooled activations for probes,
`f32[batch, feature_dim]`. Training code never holds the module: it holds its graph definition and two pure dictionaries
of arrays (see `Split`), which `jax.jit` handles far faster than a module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.clocs_cnn import ClocsCNN
from ecgjax.encoders.encoder import Encoder
from ecgjax.encoders.lead_resnet import LeadResNet
from ecgjax.encoders.lead_wise import LeadWise
from ecgjax.encoders.pclr_resnet import PCLRResNet
from ecgjax.encoders.physio_transformer import PhysioTransformer
from ecgjax.encoders.resnet import ResNet18
from ecgjax.encoders.temporal_net import DualTemporalNet, TemporalNet
from ecgjax.encoders.vit import ViT1D
from ecgjax.encoders.xresnet import XResNet1d
from ecgjax.errors import ConfigError
from ecgjax.settings.leaf import Arguments, Value

#: Name → (class, settings that differ from the class's defaults; these may include `lead_wise`, see `create`). Small
#: forms take at most 100 MMAC for 10 s of twelve leads at 250 Hz.
ENCODERS: Mapping[str, tuple[type[Encoder], Arguments]] = {
    "resnet18": (ResNet18, {}),
    "resnet18:small": (ResNet18, {"widths": (16, 32, 64, 128), "dropout": 0.1}),
    "temporal_net": (TemporalNet, {"num_leads": 8, "lead_wise": True}),
    "temporal_net:small": (
        TemporalNet,
        {"num_leads": 8, "lead_wise": True, "widths": (4, 8, 8, 16, 16), "dropout": 0.1},
    ),
    "temporal_net_dual": (DualTemporalNet, {}),
    "temporal_net_dual:small": (DualTemporalNet, {"widths": (4, 8, 8, 16, 16), "dropout": 0.1}),
    "clocs_cnn": (ClocsCNN, {"num_leads": 12, "lead_wise": True}),
    # The small form is the published one, which takes .2 MMAC a lead.
    "clocs_cnn:small": (ClocsCNN, {"num_leads": 12, "lead_wise": True}),
    "pclr_resnet": (PCLRResNet, {}),
    "pclr_resnet:small": (PCLRResNet, {"widths": (16, 32, 48, 64, 80), "input_samples": 2048}),
    "physio_transformer": (PhysioTransformer, {}),
    "physio_transformer:small": (
        PhysioTransformer,
        {
            "stem_width": 48,
            "dim": 96,
            "depth": 3,
            "num_heads": 3,
            "hidden_dim": 384,
            "position_kernel": 32,
            "position_groups": 4,
            "decoder_widths": (48, 24, 24, 24),
        },
    ),
    "vit_s": (ViT1D, {"dim": 384, "depth": 8, "num_heads": 6}),
    "vit_s:small": (ViT1D, {"dim": 128, "depth": 4, "num_heads": 2}),
    "vit_b": (ViT1D, {"dim": 768, "depth": 12, "num_heads": 12}),
    "vit_b:small": (ViT1D, {"dim": 144, "depth": 3, "num_heads": 3}),
    "lead_resnet": (LeadResNet, {}),
    "lead_resnet:small": (LeadResNet, {"widths": (32,), "num_blocks": (1,), "dropout": 0.1}),
    "xresnet1d50": (XResNet1d, {"num_blocks": (3, 4, 6, 3)}),
    "xresnet1d50:small": (XResNet1d, {"num_blocks": (1, 1, 2, 1), "width": 32, "stem_widths": (16, 16, 32)}),
    "xresnet1d101": (XResNet1d, {"num_blocks": (3, 4, 23, 3)}),
    "xresnet1d101:small": (XResNet1d, {"num_blocks": (1, 1, 4, 1), "width": 32, "stem_widths": (16, 16, 32)}),
}

PRECISIONS: Mapping[str, jnp.dtype] = {"float32": jnp.dtype("float32"), "bfloat16": jnp.dtype("bfloat16")}

#: Arguments of encoders that no config sets.
NOT_LEAVES = ("self", "rngs", "dtype", "return")

Arrays = dict[str, Any]

#: Class of a module: an encoder, or a head on an encoder.
M = TypeVar("M", bound=nnx.Module)


class Split(NamedTuple, Generic[M]):
    """A module (an encoder, or a head on one) as graph definition, parameters and running statistics.

    Attributes:
        graph: Graph definition of flax, the structure without arrays; it is hashable, and static in compiled functions.
        params: Parameters that the optimiser updates, a nested dictionary of float32 arrays.
        stats: Running statistics of batch norm, a nested dictionary of float32 arrays.
    """

    graph: nnx.GraphDef[M]
    params: Arrays
    stats: Arrays


def create(name: str, *, seed: int, precision: str = "float32", **settings: Value) -> Split[Encoder]:
    """Initialises the encoder called `name`.

    Args:
        name: Name of the encoder, a key of `ENCODERS`; `:small` forms keep the architecture at a fraction of the cost.
        seed: Seed of the initialisation.
        precision: Name of the type that is computed in, a key of `PRECISIONS`; parameters and statistics are float32
            either way.
        **settings: Arguments of the class that differ from its defaults, such as `embedding_dim`; and `lead_wise`, True
            for one network of one channel that sees every lead by itself (`LeadWise`).

    Raises:
        ConfigError: The name, the precision or a setting is unknown; the message names those that exist.
    """
    return split(_module(name, seed=seed, precision=precision, **settings))


def abstract(name: str, *, precision: str = "float32", **settings: Value) -> Split[Encoder]:
    """Returns what `create` returns with `jax.ShapeDtypeStruct` in place of arrays, for counting and planning.

    Nothing is computed and no memory taken, however large the encoder. Arguments and errors are those of `create`.
    """
    return split(nnx.eval_shape(lambda: _module(name, seed=0, precision=precision, **settings)))


def _module(name: str, *, seed: int, precision: str, **settings: Value) -> Encoder:
    if name not in ENCODERS:
        raise ConfigError(f"config.encoder.name={name!r} is unknown; there are: {', '.join(sorted(ENCODERS))}")
    if precision not in PRECISIONS:
        raise ConfigError(f"config.encoder.precision={precision!r} is unknown; there are: {', '.join(PRECISIONS)}")
    cls, defaults = ENCODERS[name]
    arguments = inspect.signature(cls.__init__).parameters
    known = {*arguments, "lead_wise"} - {*NOT_LEAVES}
    if unknown := set(settings) - known:
        raise ConfigError(f"config.encoder has unknown settings {sorted(unknown)}; {name} takes: {sorted(known)}")
    settings = {"num_leads": arguments["num_leads"].default, "lead_wise": False, **defaults, **settings}
    make: Callable[..., Encoder] = cls  # The type is this wide because every class has arguments of its own.
    build = functools.partial(make, dtype=PRECISIONS[precision], rngs=nnx.Rngs(seed))
    if not settings.pop("lead_wise"):
        return build(**settings)
    num_leads = settings.pop("num_leads")
    if not isinstance(num_leads, int):
        raise ConfigError(f"config.encoder.num_leads={num_leads!r} must be a whole number")
    return LeadWise(build(num_leads=1, **settings), num_leads=num_leads)


def split(module: M) -> Split[M]:
    """Splits a module (an encoder, or a head on one) into graph definition and arrays."""
    graph, params, *others = nnx.split(module, nnx.Param, nnx.BatchStat)
    (stats,) = others
    return Split(graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats))


def stats_of(module: nnx.Module) -> Arrays:
    """Returns the module's running statistics in the form of `Split.stats`."""
    return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def merge(encoder: Split[M]) -> M:
    """Returns the module that was split, for use inside a traced function."""
    return nnx.merge(encoder.graph, nnx.State(encoder.params), nnx.State(encoder.stats))


def apply(
    encoder: Split[Encoder],
    ecg: Array,
    *,
    train: bool,
    keys: Array | None = None,
    valid: Array | None = None,
    features: bool = False,
) -> tuple[Array, Arrays]:
    """Runs the encoder as a pure function.

    Args:
        encoder: Encoder as `create` returns it, or the same one with other arrays.
        ecg: Recordings, `f32[batch, time, lead]`, in mV.
        train: Whether the batch's statistics are used and the running ones updated.
        keys: Random key of each row for dropout, `key[batch]`; None switches dropout off.
        valid: Mask of the rows that hold a recording, `bool[batch]`; the others stay out of the batch's statistics.
            None for all.
        features: Whether the pooled activations before the last layer are returned instead of the embedding.

    Returns:
        Embeddings or features, `f32[batch, dim]`, or embeddings `f32[batch, lead_groups, dim]` of an encoder with
        several groups of leads, and the statistics after the call (unchanged unless `train`).
    """
    module = merge(encoder)
    out = (module.features if features else module)(ecg, train=train, keys=keys, valid=valid)
    return out, stats_of(module)


def apply_with_features(
    encoder: Split[Encoder], ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
) -> tuple[tuple[Array, Array], Arrays]:
    """Runs the encoder once for both embeddings and features; arguments are those of `apply`.

    Returns:
        What `apply` returns without and with `features`, and the statistics after the call.
    """
    module = merge(encoder)
    out = module.with_features(ecg, train=train, keys=keys, valid=valid)
    return out, stats_of(module)


def reconstruct(
    encoder: Split[Encoder], ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
) -> tuple[tuple[Array, Array], Arrays]:
    """Runs an encoder with a decoder as a pure function; arguments are those of `apply`.

    Returns:
        Embeddings and signals, `(f32[batch, dim], f32[batch, time, lead])`, and the statistics after the call.

    Raises:
        ConfigError: The encoder was made without a decoder.
        NotImplementedError: Encoders of its class have no decoder.
    """
    module = merge(encoder)
    out = module.reconstruct(ecg, train=train, keys=keys, valid=valid)
    return out, stats_of(module)
