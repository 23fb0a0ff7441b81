"""A training step that two frameworks take in turns, and the products in it: what both sides are told, without JAX."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

#: Width of the hinge of the triplet loss that both sides compute.
MARGIN = 0.2

#: Number of classes of the rows' made-up labels.
NUM_CLASSES = 4

#: Learning rate and weight decay of AdamW, and the number of steps of its schedule.
LEARNING_RATE, WEIGHT_DECAY, NUM_STEPS = 1e-3, 1e-2, 100_000

#: Parts of a product in a training step: the product itself, and the gradients of its input and of its kernel.
ROLES = ("forward", "input gradient", "kernel gradient")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedStep:
    """A training step: forward pass, triplet loss of the hardest pairs, backward pass and AdamW.

    The loss takes the farthest positive and the nearest negative of every anchor by squared Euclidean distances. An
    encoder that embeds every lead by itself has the mean over its leads for an embedding.

    Attributes:
        encoder: Name of the encoder.
        architecture: Name of the encoder's class.
        settings: Arguments of the class.
        lead_wise: Whether the encoder, of one channel, sees every lead by itself.
        num_leads: Leads of a recording.
        num_samples: Samples of a recording.
        batch: Recordings of a step.
        precision: Type that is computed in, `float32` or `bfloat16`.
    """

    encoder: str
    architecture: str
    settings: Mapping[str, Any]
    lead_wise: bool
    num_leads: int
    num_samples: int
    batch: int
    precision: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """A convolution over time, or a matrix product.

    A matrix product is a convolution of length 1 and kernel 1 here, unless it has `groups`: these are independent
    matrix products, `[groups, rows, width_in] · [groups, width_in, width]`.

    Attributes:
        name: Description in words, unique within a step.
        rows: Rows of the batch, or of the matrix.
        length: Samples of a row.
        width_in: Channels of the input.
        width: Channels of the output.
        kernel: Samples of the kernel.
        stride: Samples from one output to the next.
        padding: Zeros before and after.
        groups: Number of independent matrix products; 0 for a convolution or a product with a kernel.
        times: Number of times that a step computes it.
        first: Whether its input is the recording, which needs no gradient.
    """

    name: str
    rows: int
    length: int
    width_in: int
    width: int
    kernel: int = 1
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 0
    times: int = 1
    first: bool = False

    @property
    def flops(self) -> float:
        """Floating-point operations of the product, or of one of its gradients; those with padding count."""
        length = (sum(self.padding) + self.length - self.kernel) // self.stride + 1
        return 2.0 * math.prod((max(self.groups, 1), self.rows, length, self.kernel, self.width_in, self.width))

    @property
    def roles(self) -> tuple[str, ...]:
        """Parts of the product that a step computes."""
        return tuple(role for role in ROLES if not (self.first and role == "input gradient"))


class Spent(NamedTuple):
    """Time that work took.

    Attributes:
        wall: Seconds by the clock.
        processor: Seconds of processor time of all threads, which other work on the machine moves less.
    """

    wall: float
    processor: float

    def of_each(self, number: int) -> Spent:
        """Returns the time of one of `number` alike runs."""
        return Spent(self.wall / number, self.processor / number)


def spent(work: Callable[[], Any]) -> Spent:
    """Does some work, and returns the time that it took."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


class Side(Protocol):
    """One framework's training step, in a process of its own."""

    def prepare(self, step: PairedStep) -> dict[str, Any]:
        """Makes the step ready to run, and returns values for JSON: what it took and what it is."""

    def steps(self, number: int) -> Spent:
        """Takes some steps, and returns the time of all."""

    def product(self, product: Product, role: str, runs: int) -> Spent:
        """Computes one product alone, some times, and returns the time of all."""

    def memory(self) -> dict[str, float]:
        """Returns the peak memory so far, in bytes by kind."""
