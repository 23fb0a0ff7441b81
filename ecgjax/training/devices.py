"""Peak FLOP/s and memory of the accelerators of this run; MFU is measured against the former."""

from __future__ import annotations

import jax

from data_pipelines.system.process_usage import peak_memory_bytes

#: Dense bf16 matrix FLOP/s of one JAX device, by the start of `device_kind`, from the vendors' data sheets
#: (cloud.google.com/tpu/docs, nvidia.com data sheets, without sparsity). The longest match counts.
PEAK_BF16_FLOPS: dict[str, float] = {
    "TPU v3": 123e12 / 2,  # A JAX device is one of the chip's two cores.
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA V100": 125e12,  # This is fp16: the V100 has no bf16.
    "Tesla V100": 125e12,
}


def peak_flops() -> float | None:
    """Returns the peak dense bf16 FLOP/s of all devices of the run together; None where the table lacks the device."""
    kind = jax.devices()[0].device_kind
    matches = [name for name in PEAK_BF16_FLOPS if kind.startswith(name)]
    return PEAK_BF16_FLOPS[max(matches, key=len)] * jax.device_count() if matches else None


def memory_metrics() -> dict[str, float]:
    """Returns peak memory in bytes: `mem/host_peak_bytes`, and `mem/peak_bytes` of the fullest device where known."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return {
        "mem/host_peak_bytes": float(peak_memory_bytes()),
        **({"mem/peak_bytes": float(max(peaks))} if peaks else {}),
    }
