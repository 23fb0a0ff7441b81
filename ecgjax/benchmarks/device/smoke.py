"""First signs of life: rates of a matrix product and of a copy, and a step of a small encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_pipelines.benchmarks import harness
from ecgjax.benchmarks import step_ceilings
from ecgjax.benchmarks.device.jax_side import JaxSide, paired_step
from ecgjax.benchmarks.device.part_report import PartReport
from ecgjax.encoders import PRECISIONS


def measure(report: PartReport, *, rehearse: bool, folder: Path) -> None:
    """Takes the measurements; arguments are those of `parts.Measure`."""
    del folder
    report.attempt("ceilings", _ceilings)
    report.attempt("first_step", lambda: _first_step(4 if rehearse else 64))


def _ceilings() -> dict[str, Any]:
    """Returns the rates of a square matrix product in each type, and of a copy, in turns."""
    programs = {
        f"{name}_matrix_product_flops_per_sec": step_ceilings.matrix_product(dtype)
        for name, dtype in PRECISIONS.items()
    }
    programs["copy_bytes_per_sec"] = step_ceilings.copy()
    seconds = harness.take_turns({name: timed.run for name, timed in programs.items()})
    return {name: timed.amount / seconds[name] for name, timed in programs.items()}


def _first_step(batch: int) -> dict[str, Any]:
    side = JaxSide()
    told = side.prepare(paired_step("resnet18:small", batch=batch, num_samples=2500, precision="bfloat16"))
    told.pop("products")
    return {"encoder": "resnet18:small", "batch": batch, **told, "memory": side.memory()}
