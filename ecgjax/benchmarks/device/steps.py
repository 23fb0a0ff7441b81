"""The training step of encoders on one device, beside a matrix product of the same run and the chip's peak."""

from __future__ import annotations

import functools
import gc
import statistics
from pathlib import Path
from typing import Any

import jax

from ecgjax.benchmarks import step_ceilings
from ecgjax.benchmarks.device.jax_side import JaxSide, paired_step
from ecgjax.benchmarks.device.part_report import PartReport
from ecgjax.benchmarks.paired_steps import spent
from ecgjax.encoders import PRECISIONS

#: Encoders and recordings of a step, the most wanted first: the last may take long to compile.
STEPS = (("resnet18", 256), ("vit_b", 256), ("resnet18", 1024), ("temporal_net", 64))
REHEARSED = (("resnet18:small", 4), ("vit_b:small", 4), ("resnet18:small", 8), ("temporal_net:small", 2))
PRECISION, NUM_SAMPLES = "bfloat16", 2500

#: Repetitions, each followed by a matrix product, and the seconds that each should take.
_REPETITIONS, _REPETITION_S = 5, 0.5


def measure(report: PartReport, *, rehearse: bool, folder: Path) -> None:
    """Takes the measurements; arguments are those of `parts.Measure`."""
    del folder
    for encoder, batch in REHEARSED if rehearse else STEPS:
        report.attempt(f"{encoder}, batch {batch}", functools.partial(step_alone, encoder, batch))
        gc.collect()  # The arrays of one step must not be in the way of the next.


def step_alone(encoder: str, batch: int) -> dict[str, Any]:
    """Returns time, rate and memory of an encoder's step, as values for JSON.

    Args:
        encoder: Name of the encoder.
        batch: Recordings of a step.
    """
    side = JaxSide()
    told = side.prepare(paired_step(encoder, batch=batch, num_samples=NUM_SAMPLES, precision=PRECISION))
    told.pop("products")
    product = step_ceilings.matrix_product(PRECISIONS[PRECISION])
    product.run()
    number = max(round(_REPETITION_S / side.steps(1).wall), 1)
    steps, products = [], []
    for _ in range(_REPETITIONS):
        steps.append(side.steps(number).of_each(number).wall)
        products.append(spent(product.run).wall)
    seconds = statistics.median(steps)
    product_rate = product.amount / jax.device_count() / statistics.median(products)
    flops, peak = told["flops_per_step"], told["peak_flops_per_sec"]
    rate = flops / seconds if flops else None
    return {
        "encoder": encoder,
        "batch": batch,
        "precision": PRECISION,
        **told,
        "steps_a_repetition": number,
        "repetitions_ms": [1e3 * value for value in steps],
        "step_ms": 1e3 * seconds,
        "ecgs_per_sec": batch / seconds,
        "flops_per_sec": rate,
        "mfu": rate / peak if rate and peak else None,
        "matrix_product_flops_per_sec": product_rate,
        "of_matrix_product": rate / product_rate if rate else None,
        "memory_so_far": side.memory(),
    }
