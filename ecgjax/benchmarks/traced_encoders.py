"""Training steps of encoders at their published settings, traced and neither compiled nor run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from data_pipelines.records import SignalFormat
from ecgjax import encoders, optim
from ecgjax.benchmarks.memory_traffic import Traffic, traffic_of_trace
from ecgjax.encoders import cost
from ecgjax.encoders.operations.portability import portable
from ecgjax.errors import chosen
from ecgjax.keys import row_keys
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.settings.leaf import Value
from ecgjax.training.steps import Batch, Metrics, init_state, train_step

# The type that every step computes in: peaks of chips are those of bf16.
_PRECISION = "bfloat16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What an encoder is trained on, as the recipe of its system has it.

    Attributes:
        recipe: Name of the recipe, with its variant; another system's for an encoder that no recipe trains.
        batch: Recordings of a step.
        signals: Signals that are encoded for each recording.
        share: Share of a recording's time that a signal has.
        num_leads: Leads of a signal.
        settings: Arguments of the encoder that differ from its defaults.
        decodes: Whether the step reconstructs the signals too.
    """

    recipe: str
    batch: int
    signals: int = 2
    share: float = 0.5
    num_leads: int = 12
    settings: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    decodes: bool = False


_SIMCLR = Workload(recipe="simclr", batch=64, settings={"embedding_dim": 128})
_DADE = Workload(recipe="dade_1m", batch=512, num_leads=8, settings={"embedding_dim": 128})

#: Encoder → what it is trained on. No recipe trains LeadResNet, ViT and xresnet, which take SimCLR's place of
#: ResNet-18.
WORKLOADS: Mapping[str, Workload] = {
    "resnet18": _SIMCLR,
    "temporal_net": _DADE,
    "temporal_net_dual": dataclasses.replace(_DADE, recipe="dade_1m:dual"),
    "clocs_cnn": Workload(recipe="clocs", batch=256, settings={"embedding_dim": 128, "input_samples": 2500}),
    "pclr_resnet": Workload(recipe="pclr", batch=512, signals=1, share=1.0, settings={"embedding_dim": 320}),
    "physio_transformer": Workload(
        recipe="physioclr", batch=1024, signals=4, settings={"embedding_dim": 128, "decoder": True}, decodes=True
    ),
    "lead_resnet": _SIMCLR,
    "vit_s": _SIMCLR,
    "vit_b": _SIMCLR,
    "xresnet1d50": _SIMCLR,
    "xresnet1d101": _SIMCLR,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TracedStep:
    """What a training step asks of one chip, and of the network between chips.

    Attributes:
        batch: Recordings of the chip's step.
        model_flops: Floating-point operations that the model asks for, by which MFU is defined.
        traffic: Passes over memory, and the bytes that are needed at once.
        gradient_bytes: Bytes of the gradients that chips add up, in float32 as `config.mesh.reduce` has it by default.
        norms: Batch norms, whose statistics are those of the global batch.
        embedding_bytes: Bytes of a recording's embeddings, in float32.
    """

    batch: int
    model_flops: float
    traffic: Traffic
    gradient_bytes: float
    norms: int
    embedding_bytes: float


@functools.cache
def traced_step(name: str, *, batch: int, signal_format: SignalFormat) -> TracedStep:
    """Traces a step of an encoder: forward and backward pass, and AdamW.

    The loss is the mean square of embeddings (and of the reconstruction, where there is one). Augmentation and the loss
    over pairs are left out: docs/speed.md has their share.

    Args:
        name: Name of the encoder, a key of `WORKLOADS`.
        batch: Recordings of the step.
        signal_format: Rate and length of the stored recordings.

    Raises:
        ConfigError: No such encoder has a workload, or it does not take recordings of that length.
    """
    workload = chosen(WORKLOADS, name, setting="--encoders")
    encoder = encoders.abstract(name, precision=_PRECISION, num_leads=workload.num_leads, **workload.settings)
    params = {"encoder": encoder.params}
    optimizer = optim.create(OptimizerSettings(), num_steps=1000, batch_size=batch, params=params)
    rows, samples = batch * workload.signals, round(workload.share * signal_format.num_samples)
    signals = {
        "signal": jax.ShapeDtypeStruct((rows, samples, workload.num_leads), jnp.float32),
        "row": jax.ShapeDtypeStruct((rows,), jnp.int32),
    }
    # Attention and convolutions are those of any device, not of the one that traces.
    with portable(), jax.numpy_dtype_promotion("standard"):
        state = jax.eval_shape(
            lambda params, stats: init_state(params, stats, optimizer), params, {"encoder": encoder.stats}
        )
        step = train_step(functools.partial(_loss, encoder, decodes=workload.decodes), optimizer)
        trace = jax.make_jaxpr(step)(state, signals).jaxpr
        embeddings = jax.eval_shape(functools.partial(_embeddings, encoder), encoder.params, encoder.stats, signals)
    return TracedStep(
        batch=batch,
        model_flops=2.0 * cost.macs_of_trace(trace),
        traffic=traffic_of_trace(trace),
        gradient_bytes=4.0 * sum(leaf.size for leaf in jax.tree.leaves(params)),
        norms=_norms(encoder.stats),
        embedding_bytes=4.0 * embeddings.size / batch,
    )


def _loss(
    encoder: encoders.Split[encoders.Encoder],
    params: Any,
    stats: Any,
    batch: Batch,
    step: Array,
    *,
    train: bool,
    decodes: bool,
) -> tuple[Array, tuple[Any, Metrics]]:
    split = encoder._replace(params=params["encoder"], stats=stats["encoder"])
    keys = row_keys(0, step, batch["row"], stream="dropout")
    call = encoders.reconstruct if decodes else encoders.apply
    out, after = call(split, batch["signal"], train=train, keys=keys)
    loss = sum((jnp.square(each).mean() for each in jax.tree.leaves(out)), start=jnp.float32(0))
    return loss, ({"encoder": after}, {"loss": loss})


def _embeddings(encoder: encoders.Split[encoders.Encoder], params: Any, stats: Any, batch: Batch) -> Array:
    return encoders.apply(encoder._replace(params=params, stats=stats), batch["signal"], train=False)[0]


def _norms(stats: Any) -> int:
    """Returns the number of batch norms, each of which has one running mean."""
    paths = jax.tree_util.tree_flatten_with_path(stats)[0]
    return sum(path[-1] == jax.tree_util.DictKey("mean") for path, _ in paths)
