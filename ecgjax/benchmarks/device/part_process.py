"""The process of one part: it says on what it runs, checks what it needs, and measures."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from data_pipelines.benchmarks.machine import describe_machine
from ecgjax.benchmarks.device.part_report import PartReport
from ecgjax.benchmarks.device.parts import Part, measure_of
from ecgjax.system.environment import installed_version

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "triton")
#: Variables whose values change what is compiled, or how much memory is taken.
_VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_NVIDIA_SMI = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "power.limit", "temperature.gpu")


def measure_part(name: str, part: Part, out: Path, *, rehearse: bool) -> None:
    """Takes the measurements of a part, and writes them to `out/NAME.json`.

    Args:
        name: Name of the part.
        part: The part itself.
        out: Folder of the reports.
        rehearse: Whether sizes are those of a rehearsal on a CPU.
    """
    stated = {
        "part": name,
        "measures": part.words,
        "rehearsal": rehearse,
        "limit_s": part.limit(rehearse=rehearse),
        "surroundings": surroundings(),
    }
    report = PartReport(out / f"{name}.json", stated)
    for need in part.needs:
        if (not rehearse or need not in _OF_DEVICES) and (reason := NEEDS[need]()):
            report.end("skipped", reason)
            return
    measure_of(part)(report, rehearse=rehearse, folder=out)
    report.end("done")


def surroundings() -> dict[str, Any]:
    """Returns devices, versions, and what else changes a speed, as values for JSON."""
    device = jax.local_devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "num_devices": jax.device_count(),
        "compute_capability": getattr(device, "compute_capability", None),
        "device_memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "versions": {package: installed_version(package) for package in _PACKAGES},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "nvidia_smi": _nvidia_smi(),
        "machine": describe_machine(),
    }


def _nvidia_smi() -> dict[str, str] | None:
    """Returns what the driver says of the first GPU; None without its program."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={','.join(_NVIDIA_SMI)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    values = done.stdout.splitlines()[0].split(", ") if done.stdout else []
    return dict(zip(_NVIDIA_SMI, values, strict=False))


def _accelerator() -> str | None:
    if jax.default_backend() != "cpu":
        return None
    return "JAX sees no accelerator, only the CPU; --rehearse runs a small form of the parts there"


def _installed() -> str | None:
    if installed_version("ecgjax") is not None:
        return None
    return "ecgjax itself is not installed, and runs record its version; a wheel of it will do (docs/speed.md)"


def _torch() -> str | None:
    return None if importlib.util.find_spec("torch") else "PyTorch is not installed"


def _torch_on_device() -> str | None:
    # A process of its own asks, because the libraries of two frameworks may not go together.
    program = "import torch; raise SystemExit(not torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    return "PyTorch sees no GPU" if done.returncode else None


#: What a part may need → a function that returns why it is missing, or None where it is there.
NEEDS: Mapping[str, Callable[[], str | None]] = {
    "accelerator": _accelerator,
    "installed": _installed,
    "torch": _torch,
    "torch_on_device": _torch_on_device,
}
_OF_DEVICES = ("accelerator", "torch_on_device")
