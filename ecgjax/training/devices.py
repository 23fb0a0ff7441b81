"""Accelerators: what they can do at most, and what is known of those of this run; MFU is measured against the peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax

from data_pipelines.system.process_usage import peak_memory_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Memory of a chip, and its way to others: by fast links within a domain, by the data centre's network beyond.

    Attributes:
        memory_bytes: Bytes of its memory.
        memory_bandwidth: Bytes a second that it reads and writes.
        chips_per_host: Chips of a host.
        domain: Chips that fast links join.
        torus_axes: Axes of the torus of these links; 0 for a switch.
        link_bandwidth: Bytes a second that a chip sends over all its fast links together.
        link_latency_s: Seconds of a hop over a link.
        far_bandwidth: Bytes a second that a chip sends to other domains, its share of the host's adapters.
        far_latency_s: Seconds of a hop between domains.
        start_latency_s: Seconds before a collective operation's first hop.
    """

    memory_bytes: float
    memory_bandwidth: float
    chips_per_host: int
    domain: int
    torus_axes: int
    link_bandwidth: float
    link_latency_s: float
    far_bandwidth: float
    far_latency_s: float
    start_latency_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """An accelerator.

    Attributes:
        kinds: Beginnings of the `device_kind` by which JAX calls it.
        peak_bf16_flops: Dense bf16 matrix FLOP/s of one JAX device.
        network: Memory and network, by the vendor's data sheet; None for a chip that the roofline does not know.
    """

    kinds: tuple[str, ...]
    peak_bf16_flops: float
    network: Network | None = None


# A hop, and the start of an operation, by the constants that NCCL plans with for small messages in a tree (`hwLat`,
# `baseLat` in github.com/NVIDIA/nccl, src/graph/tuning.cc). The links of a TPU take about 1 µs a hop
# (jax-ml.github.io/scaling-book/sharding). No figure was found of a start, or of a hop between TPU slices: the former
# counts as 0, the latter as NCCL's.
_NVLINK_HOP_S, _NETWORK_HOP_S, _NCCL_START_S, _ICI_HOP_S = 0.52e-6, 5.0e-6, 4.4e-6, 1e-6

# DGX/HGX H100 and H200: eight GPUs at a switch, 900 GB/s of NVLink each in both directions together, and an adapter of
# 400 Gbit/s for each (nvidia.com/en-us/data-center/h100, /h200, docs.nvidia.com/dgx/dgxh100-user-guide).
_H100 = Network(
    memory_bytes=80e9,
    memory_bandwidth=3.35e12,
    chips_per_host=8,
    domain=8,
    torus_axes=0,
    link_bandwidth=450e9,
    link_latency_s=_NVLINK_HOP_S,
    far_bandwidth=50e9,
    far_latency_s=_NETWORK_HOP_S,
    start_latency_s=_NCCL_START_S,
)
_H200 = dataclasses.replace(_H100, memory_bytes=141e9, memory_bandwidth=4.8e12)

# docs.cloud.google.com/tpu/docs/v5e: 400 GB/s of links in both directions together, 2 × 100 Gbit/s a host of eight.
_V5E = Network(
    memory_bytes=16e9,
    memory_bandwidth=819e9,
    chips_per_host=8,
    domain=256,
    torus_axes=2,
    link_bandwidth=200e9,
    link_latency_s=_ICI_HOP_S,
    far_bandwidth=3.125e9,
    far_latency_s=_NETWORK_HOP_S,
    start_latency_s=0.0,
)
# docs.cloud.google.com/tpu/docs/v5p: 1,200 GB/s in both directions together, 50 Gbit/s of network a chip; 6,144 chips
# are scheduled as one slice at most.
_V5P = dataclasses.replace(
    _V5E,
    memory_bytes=95e9,
    memory_bandwidth=2765e9,
    chips_per_host=4,
    domain=6144,
    torus_axes=3,
    link_bandwidth=600e9,
    far_bandwidth=6.25e9,
)
# docs.cloud.google.com/tpu/docs/v6e: 800 GB/s in both directions together, 4 × 200 Gbit/s a host of eight.
_V6E = dataclasses.replace(_V5E, memory_bytes=32e9, memory_bandwidth=1638e9, link_bandwidth=400e9, far_bandwidth=12.5e9)

#: Chips by name. Peaks come from the vendors' data sheets (cloud.google.com/tpu/docs, nvidia.com data sheets, without
#: sparsity).
CHIPS: Mapping[str, Chip] = {
    "v3": Chip(kinds=("TPU v3",), peak_bf16_flops=123e12 / 2),  # A JAX device is one of the chip's two cores.
    "v4": Chip(kinds=("TPU v4",), peak_bf16_flops=275e12),
    "v5e": Chip(kinds=("TPU v5 lite", "TPU v5e"), peak_bf16_flops=197e12, network=_V5E),
    "v5p": Chip(kinds=("TPU v5p", "TPU v5"), peak_bf16_flops=459e12, network=_V5P),
    "v6e": Chip(kinds=("TPU v6 lite", "TPU v6e"), peak_bf16_flops=918e12, network=_V6E),
    "a100": Chip(kinds=("NVIDIA A100",), peak_bf16_flops=312e12),
    "h100_pcie": Chip(kinds=("NVIDIA H100 PCIe",), peak_bf16_flops=756e12),
    "h100": Chip(kinds=("NVIDIA H100",), peak_bf16_flops=989e12, network=_H100),
    "h200": Chip(kinds=("NVIDIA H200",), peak_bf16_flops=989e12, network=_H200),
    "l4": Chip(kinds=("NVIDIA L4",), peak_bf16_flops=121e12),
    "v100": Chip(kinds=("NVIDIA V100", "Tesla V100"), peak_bf16_flops=125e12),  # This is fp16: it has no bf16.
}


def peak_flops() -> float | None:
    """Returns the peak dense bf16 FLOP/s of all devices of the run together; None where the table lacks the device."""
    kind = jax.devices()[0].device_kind
    peaks = {start: chip.peak_bf16_flops for chip in CHIPS.values() for start in chip.kinds if kind.startswith(start)}
    # The longest match counts.
    return peaks[max(peaks, key=len)] * jax.device_count() if peaks else None


def memory_metrics() -> dict[str, float]:
    """Returns peak memory in bytes: `mem/host_peak_bytes`, and `mem/peak_bytes` of the fullest device where known."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return {
        "mem/host_peak_bytes": float(peak_memory_bytes()),
        **({"mem/peak_bytes": float(max(peaks))} if peaks else {}),
    }
