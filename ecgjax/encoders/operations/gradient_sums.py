"""Layers whose parameters have gradients that are summed over the batch in float32, whatever type is computed in.

Kernels are float32 and are multiplied in the type that is computed in. Where a kernel is cast before the product, its
gradient has the narrow type until it comes to the transpose of the cast. XLA adds up the devices' shares right behind
the product, and so in the narrow type, the less accurate the more devices there are. Here the gradient of the product
itself is float32: a device adds up its rows in float32, and devices add up what they have in float32 too.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from ecgjax.encoders.operations.loop_convolutions import convolution_in_loop, takes_loop_form
from ecgjax.encoders.operations.portability import takes_cpu_forms
from ecgjax.encoders.operations.time_blocks import block_of, convolution_over_blocks
from ecgjax.errors import check_known
from ecgjax.placement.settings import SUMMED_IN

_FLOAT32: contextvars.ContextVar[bool] = contextvars.ContextVar("float32", default=False)
_DIMENSIONS = ("NWC", "WIO", "NWC")
#: Of the gradient of a kernel: rows are what is summed over, and time runs along the kernel.
_GRADIENT_DIMENSIONS = ("CWN", "IWO", "WNC")


@contextlib.contextmanager
def gradients_summed_in(name: str) -> Iterator[None]:
    """Lets gradients that are traced in the block be summed over rows and devices in a type.

    Args:
        name: Name of the type, one of `SUMMED_IN`.

    Raises:
        ConfigError: There is no such type.
    """
    check_known(name, SUMMED_IN, setting="config.mesh.reduce")
    token = _FLOAT32.set(name == "float32")
    try:
        yield
    finally:
        _FLOAT32.reset(token)


def _apart(dtype: Any) -> bool:
    """Whether gradients are summed in another type than the one that is computed in."""
    return _FLOAT32.get() and dtype is not None and jnp.dtype(dtype) != jnp.float32


class Linear(nnx.Linear):
    """Linear layer of flax."""

    def __call__(self, inputs: Array) -> Array:  # type: ignore[override]  # No layer here asks for a sharding.
        """Maps `[..., in]` to `[..., out]` in the type that is computed in."""
        if not _apart(self.dtype) and not takes_cpu_forms(self.dtype):
            return super().__call__(inputs)
        y = _weighed(_Product(), inputs.astype(self.dtype), self.kernel[...])
        if self.bias is None:
            return y
        return y + spread(self.bias[...].reshape(*(1,) * (y.ndim - 1), -1), shape=y.shape, dtype=y.dtype)


class Conv(nnx.Conv):
    """Convolution of flax over time, without bias."""

    def __call__(self, inputs: Array) -> Array:  # type: ignore[override]  # No layer here asks for a sharding.
        """Maps `[batch, time, in]` to `[batch, time, out]` in the type that is computed in."""
        x, kernel, padding = inputs.astype(self.dtype), self.kernel[...], self.padding
        (stride,) = cast(tuple[int], self.strides)
        if isinstance(padding, str):
            (pads,) = jax.lax.padtype_to_pads(inputs.shape[1:2], kernel.shape[:1], (stride,), padding)
        else:
            (pads,) = cast(Sequence[tuple[int, int]], padding)
        if len(kernel) == stride == 1 and not any(pads) and takes_cpu_forms(self.dtype):
            return _weighed(_Product(), x, kernel.reshape(kernel.shape[1:]))
        if block := block_of(x, kernel, stride=stride, padding=pads):
            return convolution_over_blocks(x, kernel, stride=stride, padding=pads, block=block)
        if takes_loop_form(self.dtype):
            return convolution_in_loop(x, kernel, stride=stride, padding=pads)
        return convolution(x, kernel, stride=stride, padding=pads) if _apart(self.dtype) else super().__call__(inputs)


def convolution(x: Array, kernel: Array, *, padding: Sequence[int], stride: int = 1, groups: int = 1) -> Array:
    """Returns a convolution over time in the type of the activations.

    Args:
        x: Activations, `[batch, time, in]`.
        kernel: Kernel, `f32[time, in / groups, out]`.
        padding: Number of zeros before and after.
        stride: Number of samples from one output to the next.
        groups: Number of groups of channels.

    Returns:
        Activations, `[batch, time, out]`.
    """
    before, after = padding
    if groups == 1 and takes_loop_form(x.dtype):
        return convolution_in_loop(x, kernel, stride=stride, padding=padding)
    form = _Convolution(stride, before, after, groups)
    return _weighed(form, x, kernel) if _apart(x.dtype) else form(x, kernel.astype(x.dtype))


def spread(values: Array, *, shape: tuple[int, ...], dtype: Any) -> Array:
    """Returns parameters that are added to all rows, in the type of the rows, of a shape that broadcasts to theirs.

    Args:
        values: Parameters, float32, with an axis for each of the rows'.
        shape: Shape of the rows.
        dtype: Type of the rows.
    """
    # Cast after it is repeated, a parameter gets the sum of gradients that were cast before.
    return jnp.broadcast_to(values, shape).astype(dtype) if _apart(dtype) else values.astype(dtype)


@dataclasses.dataclass(frozen=True)
class _Product:
    """Matrix product of activations with a kernel."""

    def __call__(self, x: Array, kernel: Array) -> Array:
        return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))

    def of_kernel(self, x: Array, gradient: Array, length: int) -> Array:
        """Returns the gradient of the kernel, float32, whose first axis has a length."""
        del length
        # As matrices: XLA on CPUs makes transposed copies for a product that sums over more than one axis.
        x, gradient = (each.reshape(-1, each.shape[-1]) for each in (x, gradient))
        return jax.lax.dot_general(x, gradient, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Convolution:
    """Convolution of activations with a kernel over time."""

    stride: int
    before: int
    after: int
    groups: int

    def __call__(self, x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride,),
            [(self.before, self.after)],
            dimension_numbers=_DIMENSIONS,
            feature_group_count=self.groups,
        )

    def of_kernel(self, x: Array, gradient: Array, length: int) -> Array:
        """Returns the gradient of the kernel, float32, whose first axis has a length.

        It is the convolution of activations with the upstream gradient, of which the activations are padded, or cut,
        to what a kernel of that length has seen.
        """
        seen = length + (gradient.shape[1] - 1) * self.stride
        return jax.lax.conv_general_dilated(
            x,
            gradient,
            (1,),
            [(self.before, seen - x.shape[1] - self.before)],
            rhs_dilation=(self.stride,),
            dimension_numbers=_GRADIENT_DIMENSIONS,
            batch_group_count=self.groups,
            preferred_element_type=jnp.float32,
        )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Wanted:
    """Which gradients of a product are wanted: the first layer needs none of its input, and a frozen one no other."""

    of_input: bool
    of_kernel: bool


def _product_of(form: _Product | _Convolution, x: Array, kernel: Array) -> Array:
    """Returns a product in the type of the activations, whose kernel is float32 and gets a float32 gradient."""
    return form(x, kernel.astype(x.dtype))


def _forward(
    form: _Product | _Convolution, x: CustomVJPPrimal, kernel: CustomVJPPrimal
) -> tuple[Array, tuple[Array, Array, _Wanted]]:
    narrow = kernel.value.astype(x.value.dtype)
    return form(x.value, narrow), (x.value, narrow, _Wanted(x.perturbed, kernel.perturbed))


def _backward(
    form: _Product | _Convolution, saved: tuple[Array, Array, _Wanted], gradient: Array | SymbolicZero
) -> tuple[Array | None, Array | None]:
    x, kernel, wanted = saved
    if isinstance(gradient, SymbolicZero):
        return None, None
    of_input = jax.linear_transpose(lambda x: form(x, kernel), x)(gradient)[0] if wanted.of_input else None
    return of_input, form.of_kernel(x, gradient, kernel.shape[0]) if wanted.of_kernel else None


_weighed = jax.custom_vjp(_product_of, nondiff_argnums=(0,))
_weighed.defvjp(_forward, _backward, symbolic_zeros=True)
