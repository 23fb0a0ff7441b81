"""Accelerators by name, such as `v5e:4x4`, as devices that a program can be compiled for without having them."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from ecgjax.errors import ConfigError
from ecgjax.placement.tpu_shapes import SHAPES, num_chips
from ecgjax.system.environment import installed_version

#: Most slices that are compiled for, and most simulated devices of a CPU.
MOST_SLICES, MOST_CPUS = 64, 64

_CPU = "cpu"
_GPU = re.compile(r"(gpu|cuda|rocm|a100|h100|h200|b100|b200|gb200|l4|l40s?|t4|v100|mi\d+x?)\b", re.IGNORECASE)

# What libtpu would ask a TPU's machine for; it looks at these before, and complains where it finds nothing.
_OF_NO_MACHINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # Otherwise one process alone may compile: it could hold the machine's chips.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Accelerators that a program is compiled for.

    Attributes:
        name: Name of a slice, such as `v5e:4x4`, or `cpu:8`.
        slices: Number of slices, which the network of a data centre joins.
    """

    name: str
    slices: int = 1

    @property
    def is_simulated(self) -> bool:
        """Whether the devices are parts of this machine's CPU, and no accelerators."""
        return self.name.startswith(_CPU)

    @property
    def title(self) -> str:
        """Name with the number of slices where there are several, such as `2 × v5e:4x4`."""
        return self.name if self.slices == 1 else f"{self.slices} × {self.name}"


def read_topology(name: str, *, slices: int = 1) -> Topology:
    """Reads the name of a topology.

    Args:
        name: Name as `--topology` takes it.
        slices: Number of slices.

    Raises:
        ConfigError: There is no topology of that name, or none that a program can be compiled for without having it.
    """
    chip, _, shape = name.partition(":")
    if _GPU.match(name):
        raise ConfigError(
            f"--topology={name}: XLA compiles for GPUs only where there is one, since it times kernels on it; there "
            f"are: {known()}. What a GPU can reach at most is computed by python -m ecgjax.benchmark --what=roofline"
        )
    if chip == _CPU:
        if not re.fullmatch(r"[1-9]\d?", shape) or int(shape) > MOST_CPUS:
            raise ConfigError(f"--topology={name}: give cpu:N with a number of simulated devices from 1 to {MOST_CPUS}")
        if slices > 1:
            raise ConfigError(f"--slices={slices}: simulated devices of a CPU have no slices; leave it out")
        return Topology(name=name)
    if chip not in SHAPES:
        raise ConfigError(f"--topology={name} is unknown; there are: {known()}")
    num_chips(name, flag="--topology")
    return Topology(name=name, slices=slices)


def known() -> str:
    """Returns the names of all topologies, for messages and help."""
    return "; ".join([*(f"{chip}:SHAPE of {shapes.words}" for chip, shapes in SHAPES.items()), "cpu:N"])


def devices_of(topology: Topology) -> Sequence[jax.Device]:
    """Returns the devices of a topology, slice by slice; those of TPUs can be compiled for and hold no arrays.

    Raises:
        ConfigError: TPUs need libtpu, which is missing or does not fit JAX, or this process has begun with fewer
            simulated devices.
    """
    if topology.is_simulated:
        return _cpu_devices(int(topology.name.partition(":")[2]))
    _check_libtpu()
    for name, value in _OF_NO_MACHINE.items():
        os.environ.setdefault(name, value)
    options: dict[str, object] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    chip, _, shape = topology.name.partition(":")
    if shape == "1x1":
        options["chips_per_host_bounds"] = (1, 1, 1)
    if chip == "v4":
        options["chip_config_name"] = "megacore"  # The two cores of a chip are one device.
    return topologies.get_topology_desc(topology.name, "tpu", **options).devices


def _cpu_devices(count: int) -> Sequence[jax.Device]:
    with contextlib.suppress(RuntimeError):  # JAX has begun, with the devices that it has.
        jax.config.update("jax_num_cpu_devices", count)
    found = jax.devices(_CPU)
    if len(found) < count:
        raise ConfigError(
            f"--topology=cpu:{count}: this process has {len(found)} simulated devices; take no more, or leave "
            "xla_force_host_platform_device_count out of $XLA_FLAGS"
        )
    return found[:count]


def libtpu_version() -> str | None:
    """Returns the version of the TPU compiler that is installed, or None where there is none."""
    return installed_version("libtpu")


def _check_libtpu() -> None:
    installed, wanted = libtpu_version(), _libtpu_of_jax()
    if installed is None:
        raise ConfigError(
            "a dry run for TPUs needs XLA's TPU compiler, libtpu, which is not installed (some 700 MB; no TPU is "
            f"needed): pip install 'ecgjax[tpu-aot]', or pip install 'libtpu=={wanted}'"
        )
    if not re.fullmatch(re.escape(wanted).replace(r"\*", r".*"), installed):
        raise ConfigError(
            f"libtpu {installed} does not fit JAX {jax.__version__}, which is released with {wanted}: "
            f"pip install 'libtpu=={wanted}'"
        )


def _libtpu_of_jax() -> str:
    """Returns the version of libtpu that the installed JAX names for its TPUs, such as `0.0.42.*`."""
    for line in importlib.metadata.requires("jax") or ():
        if match := re.match(r"libtpu\s*==\s*([\w.*]+)", line):
            return match[1]
    return "*"
