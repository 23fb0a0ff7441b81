"""Programs for devices other than those of the machine that traces them, and forms that suit CPUs alone."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.xla_metadata import set_xla_metadata

from ecgjax.placement.target import for_cpu

_PORTABLE: contextvars.ContextVar[bool] = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Lets encoders that are traced in the block take no form that suits the devices of this machine alone."""
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def is_portable() -> bool:
    """Whether the program that is traced will run on other devices."""
    return _PORTABLE.get()


def takes_cpu_forms(dtype: Any) -> bool:
    """Whether the program that is traced takes forms that suit CPUs: where it runs on CPUs alone, and in float32.

    Args:
        dtype: Type that is computed in.
    """
    return not is_portable() and for_cpu() and dtype == jnp.float32


def written_out(function: Callable[..., Array], *arrays: Array | None) -> Array:
    """Returns `function(*arrays)`, computed once in a loop of its own and kept for all that need it.

    XLA's CPU compiler fuses whatever is cheap into each of its users. In a residual network every block's output is the
    sum of all before it, so that each of its users computes the whole chain again, and the kernels' gradients do so
    sample by sample in another order of the axes: that was two fifths of a step of xresnet1d50 (docs/speed.md). A
    barrier does not help, because the compiler takes it out before it fuses; a call that is not inlined does.

    Args:
        function: Function of arrays, the same object at every call.
        *arrays: Arrays. Each is read from memory, so that they should be what is kept anyway.
    """
    with set_xla_metadata(inlineable="false"):
        result: Array = jax.jit(function)(*arrays)
    return result
