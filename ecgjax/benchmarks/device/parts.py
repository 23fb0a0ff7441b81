"""The parts of a visit to a lent accelerator, in the order in which they are worth their minutes."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ecgjax.benchmarks.device.part_report import PartReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A group of measurements that has a process and a time limit of its own.

    Attributes:
        words: Description of what it measures.
        limit_s: Seconds after which its process is killed; what it has written stays.
        module: Name of the module whose `measure` takes the measurements.
        needs: Names of what it cannot do without, keys of `part_process.NEEDS`.
    """

    words: str
    limit_s: float
    module: str
    needs: Sequence[str] = ("accelerator",)

    def limit(self, *, rehearse: bool) -> float:
        """Returns the seconds of its limit, which are more in a rehearsal."""
        return self.limit_s * (_REHEARSAL_FACTOR if rehearse else 1)


class Measure(Protocol):
    """The function `measure` of a part's module."""

    def __call__(self, report: PartReport, *, rehearse: bool, folder: Path) -> None:
        """Takes the measurements.

        Args:
            report: Report that each is added to.
            rehearse: Whether sizes are those of a rehearsal on a CPU.
            folder: Folder for what the part writes beside its report.
        """


#: Name of a part → the part. The first three fit in 8 minutes together, the others in 4.
PARTS: Mapping[str, Part] = {
    "smoke": Part(
        words="versions, devices, a matrix product and a copy, and a first step of a small encoder",
        limit_s=60,
        module=f"{__package__}.smoke",
    ),
    "steps": Part(
        words="the training step of ResNet-18 at two batch sizes, ViT-B and TemporalNet",
        limit_s=180,
        module=f"{__package__}.steps",
    ),
    "torch": Part(
        words="the same steps in PyTorch, plain and compiled, in turns with ours",
        limit_s=180,
        module=f"{__package__}.against_torch",
        needs=("accelerator", "torch", "torch_on_device"),
    ),
    "convolutions": Part(
        words="convolutions of six layer shapes and their kernels' gradients, in three forms",
        limit_s=45,
        module=f"{__package__}.convolution_forms",
    ),
    "flags": Part(
        words="the step of ResNet-18 with and without flags of XLA, in turns",
        limit_s=65,
        module=f"{__package__}.xla_flags",
    ),
    "run": Part(
        words="pretraining and a probe on simulated recordings, by the commands themselves",
        limit_s=130,
        module=f"{__package__}.whole_run",
        needs=("accelerator", "installed"),
    ),
}

#: Factor of the limits in a rehearsal, whose compiler has fewer and slower cores.
_REHEARSAL_FACTOR = 4


def measure_of(part: Part) -> Measure:
    """Returns the function that takes a part's measurements."""
    measure: Measure = importlib.import_module(part.module).measure
    return measure
