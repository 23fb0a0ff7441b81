"""Devices that a traced program is for: those of the run's mesh, which need not be those of the machine that traces.

A program may take another form on another kind of device. Traced code asks here, and never JAX's backend: one that
is compiled ahead for a TPU is traced on a machine that has none.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

_TARGET: contextvars.ContextVar[jax.Device | None] = contextvars.ContextVar("target", default=None)


@contextlib.contextmanager
def traced_for(mesh: Mesh) -> Iterator[None]:
    """Lets programs that are traced in the block take the forms that suit the devices of a mesh.

    Args:
        mesh: Mesh of devices of one kind.
    """
    token = _TARGET.set(mesh.devices.flat[0])
    try:
        yield
    finally:
        _TARGET.reset(token)


def target_device() -> jax.Device:
    """Returns a device of the kind that the traced program is for: outside `traced_for`, one of this process."""
    return _TARGET.get() or jax.local_devices()[0]


def for_cpu() -> bool:
    """Whether the traced program is for CPUs."""
    return target_device().platform == "cpu"
