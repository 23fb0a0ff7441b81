"""Slices of TPUs: what clusters call their generations, and how many hosts and chips they have."""

from __future__ import annotations

import dataclasses

from ecgjax.errors import ConfigError
from ecgjax.placement.tpu_shapes import num_chips


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPUs.

    Attributes:
        label: What Google Kubernetes Engine calls it (the node label `cloud.google.com/gke-tpu-accelerator`).
        vm_type: Beginning of the type of a TPU virtual machine.
        type_counts: Number that the type counts for each chip: cores of early generations, chips of others.
        runtime: Software of a TPU virtual machine.
    """

    label: str
    vm_type: str
    type_counts: int
    runtime: str


#: Generations by their common names; docs.cloud.google.com/tpu/docs tells of each.
GENERATIONS = {
    "v4": Generation("tpu-v4-podslice", "v4", 2, "tpu-ubuntu2204-base"),
    "v5e": Generation("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite"),
    "v5p": Generation("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5"),
    "v6e": Generation("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e"),
}

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
    chips = num_chips(text, flag="--tpu")
    name, _, topology = text.partition(":")
    usual = min(chips, _CHIPS_OF_A_HOST)
    # Eight chips of these generations can be one host or two.
    possible = (usual, 8) if topology == "2x4" else (usual,)
    if chips_per_host is not None and chips_per_host not in possible:
        raise ConfigError(
            f"--chips_per_host={chips_per_host}: a host of {text} has {' or '.join(map(str, possible))} chips"
        )
    return Slice(GENERATIONS[name], topology, chips, chips_per_host or usual)
