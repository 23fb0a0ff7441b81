"""The same training steps in this library and in PyTorch, in turns."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ecgjax.benchmarks.device.comparison import compare
from ecgjax.benchmarks.device.jax_side import paired_step
from ecgjax.benchmarks.device.part_report import PartReport
from ecgjax.errors import check_each_once

#: Encoders that have a copy in PyTorch → recordings of a step on two cores of a CPU, and on an accelerator.
BATCHES = {
    "resnet18": (64, 256),
    "temporal_net": (4, 64),
    "xresnet1d50": (64, 256),
    "vit_s": (16, 256),
    "vit_b": (4, 256),
    "resnet18:small": (64, 256),
    "temporal_net:small": (16, 64),
    "xresnet1d50:small": (64, 256),
    "vit_s:small": (64, 256),
    "vit_b:small": (64, 256),
}

_NUM_SAMPLES = 2500

#: Pairs in a part, as encoder and the side that ours takes turns with.
_PAIRS = (("resnet18", "torch"), ("resnet18", "torch_compiled"), ("vit_b", "torch"))
_REHEARSED = (("vit_b:small", "torch"), ("vit_b:small", "torch_compiled"))
_REHEARSED_BATCH = 4


def measure(report: PartReport, *, rehearse: bool, folder: Path) -> None:
    """Takes the measurements; arguments are those of `parts.Measure`."""
    del folder
    for encoder, other in _REHEARSED if rehearse else _PAIRS:
        batch = _REHEARSED_BATCH if rehearse else BATCHES[encoder][1]
        step = paired_step(encoder, batch=batch, num_samples=_NUM_SAMPLES, precision="bfloat16")
        pair = functools.partial(
            compare, step, sides=("jax", other), rounds=6, steps=1 if rehearse else 20, by_product=False
        )
        report.attempt(f"{encoder} against {other}", pair)


def chosen_encoders(names: Sequence[str]) -> list[str]:
    """Returns the encoders that `--encoders` names, each once; ResNet-18 without names.

    Raises:
        ConfigError: An encoder has no copy in PyTorch, or is named twice.
    """
    check_each_once(names, BATCHES, setting="--encoders")
    return list(names) or ["resnet18"]


def compare_encoders(names: Sequence[str], *, rounds: int) -> dict[str, Any]:
    """Compares encoders one after the other, with their products alone; in float32 on CPUs, in bf16 elsewhere.

    Args:
        names: Names of the encoders, keys of `BATCHES`.
        rounds: Number of rounds.

    Returns:
        Values for JSON, by encoder.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {
        name: compare(
            paired_step(
                name,
                batch=BATCHES[name][0 if on_cpu else 1],
                num_samples=_NUM_SAMPLES,
                precision="float32" if on_cpu else "bfloat16",
            ),
            sides=("jax", "torch") if on_cpu else ("jax", "torch", "torch_compiled"),
            rounds=rounds,
            steps=1 if on_cpu else 20,
            by_product=True,
        )
        for name in names
    }
