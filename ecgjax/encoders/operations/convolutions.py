"""Transposed and grouped convolutions over time, computed by dense convolutions where XLA's own kernels are slow."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.operations.gradient_sums import convolution
from ecgjax.encoders.operations.layers import PARAM_DTYPE
from ecgjax.encoders.operations.portability import is_portable
from ecgjax.placement.target import for_cpu

_KERNEL = 4


class DoublingConv(nnx.Module):
    """Transposed convolution over time of kernel 4 and stride 2, without bias.

    It computes what `nnx.ConvTranspose` does with `"SAME"`. Half of the kernel makes the even samples and half the odd
    samples, so that two dense convolutions of kernel 2, whose results are interleaved, compute the same products. On a
    CPU, XLA's kernel gradient of a dilated convolution took 20 to 30 times as long (docs/speed.md).

    Args:
        width_in: Number of channels of the input.
        width: Number of channels of the output.
        kernel_init: Initialisation of the kernel.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.
    """

    def __init__(self, width_in: int, width: int, *, kernel_init: nnx.Initializer, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (_KERNEL, width_in, width), PARAM_DTYPE))
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """Maps `[batch, time, width_in]` to `[batch, 2 · time, width]`."""
        x, kernel = x.astype(self.dtype), self.kernel[...]
        phases = [convolution(x, kernel[phase::2], padding=padding) for phase, padding in enumerate(((1, 0), (0, 1)))]
        return jnp.stack(phases, axis=2).reshape(x.shape[0], 2 * x.shape[1], kernel.shape[2])


def grouped_conv(x: Array, kernel: Array, *, groups: int, padding: tuple[int, int], apart: bool | None = None) -> Array:
    """Returns a grouped convolution over time: a group of output channels depends on its group of input channels alone.

    Args:
        x: Activations, `[batch, time, width_in]`.
        kernel: Kernel, `f32[time, width_in / groups, width]`.
        groups: Number of groups of channels.
        padding: Number of zeros before and after.
        apart: Whether each group is computed by a dense convolution of its own; None does so on CPUs alone, where the
            kernel's gradient of one grouped convolution took four times as long (docs/speed.md), and not in a portable
            program.

    Returns:
        Activations, `[batch, time, width]`.
    """
    if apart is None:
        apart = not is_portable() and for_cpu()
    if not apart:
        return convolution(x, kernel, padding=padding, groups=groups)
    pairs = zip(jnp.split(x, groups, axis=2), jnp.split(kernel, groups, axis=2), strict=True)
    return jnp.concatenate([convolution(*pair, padding=padding) for pair in pairs], axis=2)
