"""The step of ResNet-18 with flags of XLA, each in turns with the step without them."""

from __future__ import annotations

import functools
import os
import statistics
from pathlib import Path
from typing import Any

from ecgjax.benchmarks.device.jax_side import paired_step
from ecgjax.benchmarks.device.part_report import PartReport
from ecgjax.benchmarks.device.sides import RemoteSide, side_in_a_process
from ecgjax.benchmarks.paired_steps import PairedStep

#: Flags that guides to JAX on GPUs name (docs.jax.dev, GPU performance tips), the most promising first.
VARIANTS = {
    "latency_hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "triton_gemm_any": "--xla_gpu_triton_gemm_any=true",
    "no_command_buffers": "--xla_gpu_enable_command_buffer=",
}

_ROUNDS = 5


def measure(report: PartReport, *, rehearse: bool, folder: Path) -> None:
    """Takes the measurements; arguments are those of `parts.Measure`."""
    del folder
    encoder, batch = ("vit_b:small", 4) if rehearse else ("resnet18", 256)
    step = paired_step(encoder, batch=batch, num_samples=2500, precision="bfloat16")
    steps = 1 if rehearse else 20
    with side_in_a_process("jax", environment={}) as plain:
        plain.prepare(step)
        for name, flag in VARIANTS.items():
            report.attempt(name, functools.partial(_against_plain, plain, step, flag, steps=steps))


def _against_plain(plain: RemoteSide, step: PairedStep, flag: str, *, steps: int) -> dict[str, Any]:
    """Returns the times of the step with a flag and without, and the median of their ratios."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    with side_in_a_process("jax", environment={"XLA_FLAGS": flags}) as flagged:
        compile_s = flagged.prepare(step)["compile_s"]
        pairs = [(plain.steps(steps).wall / steps, flagged.steps(steps).wall / steps) for _ in range(_ROUNDS)]
    return {
        "flags": flags,
        "compile_s": compile_s,
        "plain_ms": [1e3 * without for without, _ in pairs],
        "flagged_ms": [1e3 * with_flag for _, with_flag in pairs],
        "ratio_to_plain": statistics.median(with_flag / without for without, with_flag in pairs),
    }
