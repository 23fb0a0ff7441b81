"""Slices of TPUs: their generations, which topologies each has, and how many hosts and chips these are."""

from __future__ import annotations

import dataclasses
import math
import re

from ecgjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPUs.

    Attributes:
        label: What Google Kubernetes Engine calls it (the node label `cloud.google.com/gke-tpu-accelerator`).
        vm_type: Beginning of the type of a TPU virtual machine.
        type_counts: Number that the type counts for each chip: cores of early generations, chips of others.
        runtime: Software of a TPU virtual machine.
        dimensions: Number of dimensions of a topology.
        most_chips: Number of chips of the largest slice.
    """

    label: str
    vm_type: str
    type_counts: int
    runtime: str
    dimensions: int
    most_chips: int


#: Generations by their common names; docs.cloud.google.com/tpu/docs tells of each.
GENERATIONS = {
    "v4": Generation("tpu-v4-podslice", "v4", 2, "tpu-ubuntu2204-base", 3, 4096),
    "v5e": Generation("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite", 2, 256),
    "v5p": Generation("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5", 3, 6144),
    "v6e": Generation("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e", 2, 256),
}

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_CHIPS_OF_A_HOST = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of TPUs.

    Attributes:
        generation: Its generation.
        topology: Its topology, such as `16x16`.
        chips: Number of its chips.
        chips_per_host: Number of chips of each of its hosts.
    """

    generation: Generation
    topology: str
    chips: int
    chips_per_host: int

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return self.chips // self.chips_per_host

    @property
    def vm_type(self) -> str:
        """Type of the virtual machines, such as `v5litepod-256`."""
        return f"{self.generation.vm_type}-{self.chips * self.generation.type_counts}"


def slice_of(text: str, *, chips_per_host: int | None = None) -> Slice:
    """Returns the slice that a text names.

    Args:
        text: Generation and topology, such as `v5e:16x16`.
        chips_per_host: Number of chips of a host; None for the usual one.

    Raises:
        ConfigError: There is no such generation or topology, or no such host.
    """
    name, colon, topology = text.partition(":")
    if name not in GENERATIONS or not colon:
        raise ConfigError(
            f"--tpu={text!r} is no slice; write GENERATION:TOPOLOGY such as v5e:16x16, of {', '.join(GENERATIONS)}"
        )
    generation = GENERATIONS[name]
    if re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})+", topology) is None:
        raise ConfigError(f"--tpu={text!r}: {topology!r} is no topology; write it as {_examples(generation)}")
    sides = [int(side) for side in topology.split("x")]
    chips = math.prod(sides)
    if not (topology in _FLAT if generation.dimensions == 2 else topology in _SMALL or _is_cube(sides)):
        raise ConfigError(f"--tpu={text}: {name} has no slice {topology}; there are {_examples(generation)}")
    if chips > generation.most_chips:
        raise ConfigError(f"--tpu={text} has {chips} chips; the largest slice of {name} has {generation.most_chips}")
    usual = min(chips, _CHIPS_OF_A_HOST)
    # Eight chips of these generations can be one host or two.
    possible = (usual, 8) if topology == "2x4" else (usual,)
    if chips_per_host is not None and chips_per_host not in possible:
        raise ConfigError(
            f"--chips_per_host={chips_per_host}: a host of {text} has {' or '.join(map(str, possible))} chips"
        )
    return Slice(generation, topology, chips, chips_per_host or usual)


def _is_cube(sides: list[int]) -> bool:
    """Returns whether a topology is made of cubes of 4 × 4 × 4 chips, with the longest side last."""
    return len(sides) == 3 and all(side % 4 == 0 for side in sides) and sides == sorted(sides)


def _examples(generation: Generation) -> str:
    if generation.dimensions == 2:
        return ", ".join(_FLAT)
    return f"{', '.join(_SMALL)}, and 4x4x4, 4x4x8, … (multiples of 4, the longest last)"
