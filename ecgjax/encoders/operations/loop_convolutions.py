"""Convolutions over time within a loop, in whose gradients XLA's CPU compiler is slow otherwise.

XLA brings a convolution into the form that its fast CPU kernels take only where it stands outside of loops; within one
it is computed by plain nested loops (github.com/jax-ml/jax/issues/12868). Convolutions of our encoders have that form
already, but those that JAX derives for their gradients do not: in a batch that is encoded in parts a step took 18 times
as long (docs/speed.md). Here the gradients are convolutions of the fast form, with the transposes written out.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.encoders.operations.portability import takes_cpu_forms

_LOOP: contextvars.ContextVar[bool] = contextvars.ContextVar("loop", default=False)
#: The only form that XLA's fast CPU kernels take.
_DIMENSIONS = ("NWC", "WIO", "NWC")


@contextlib.contextmanager
def within_loop() -> Iterator[None]:
    """Lets encoders that are traced in the block take forms that suit the body of a loop."""
    token = _LOOP.set(True)
    try:
        yield
    finally:
        _LOOP.reset(token)


def takes_loop_form(dtype: Any) -> bool:
    """Whether a convolution that is traced takes the form for loops: within one, on CPUs alone, and in float32.

    Args:
        dtype: Type that is computed in.
    """
    return _LOOP.get() and takes_cpu_forms(dtype)


def convolution_in_loop(x: Array, kernel: Array, *, stride: int, padding: Sequence[int]) -> Array:
    """Returns a convolution over time, equal to XLA's, whose gradients are equal to XLA's but for rounding.

    Args:
        x: Activations, `[batch, time, in]`.
        kernel: Kernel, `[time, in, out]`, of the same type.
        stride: Number of samples from one output to the next.
        padding: Number of zeros before and after.

    Returns:
        Activations, `[batch, outputs, out]`.
    """
    before, after = padding
    return _convolved(_Window(stride, before, after), x, kernel)


@dataclasses.dataclass(frozen=True)
class _Window:
    """Stride and padding of a convolution."""

    stride: int
    before: int
    after: int


def _plain(window: _Window, x: Array, kernel: Array) -> Array:
    padding = [(window.before, window.after)]
    return jax.lax.conv_general_dilated(x, kernel, (window.stride,), padding, dimension_numbers=_DIMENSIONS)


def _forward(window: _Window, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _plain(window, x, kernel), (x, kernel)


def _backward(window: _Window, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    length, spread = kernel.shape[0], (gradient.shape[1] - 1) * window.stride + 1
    before = length - 1 - window.before
    # Every sample has the gradients of the outputs that it was part of, each times the kernel's value for it.
    of_input = jax.lax.conv_general_dilated(
        gradient,
        jnp.flip(kernel, 0).transpose(0, 2, 1),
        (1,),
        [(before, x.shape[1] + length - 1 - spread - before)],
        lhs_dilation=(window.stride,),
        dimension_numbers=_DIMENSIONS,
    )
    # Channels that come in take the place of rows, and rows that of channels: it is rows that are summed over.
    of_kernel = jax.lax.conv_general_dilated(
        x.transpose(2, 1, 0),
        gradient.transpose(1, 0, 2),
        (1,),
        [(window.before, length - 1 + spread - x.shape[1] - window.before)],
        rhs_dilation=(window.stride,),
        dimension_numbers=_DIMENSIONS,
    )
    return of_input, of_kernel.transpose(1, 0, 2)


_convolved = jax.custom_vjp(_plain, nondiff_argnums=(0,))
_convolved.defvjp(_forward, _backward)
