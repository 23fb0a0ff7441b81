"""Narrow convolutions over time, computed as one matrix product over blocks of samples.

A convolution of few channels does little for every sample that it moves: XLA's CPU kernels reach a hundredth of a
matrix product's rate with 1 → 4 channels. Here `block` neighbouring outputs become the columns of one product. Its
rows are windows, the samples that such a block of outputs depends on, and its matrix holds the kernel once for every
output of the block, each time one stride further down. The zeros beside the kernel are multiplied too, and the product
is still several times as fast (docs/speed.md), for both gradients as well, which are matrix products themselves.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.encoders.operations.portability import takes_cpu_forms

#: Most channels that come in and go out of a convolution that is computed over blocks; with 12 or 16 channels coming in
#: XLA's own kernels are as fast.
_MOST_IN, _MOST_OUT = 8, 16
#: Number of columns of the product that a block is chosen for: two of a processor's widest registers.
_COLUMNS = 32

_USEFUL = re.compile(r"useful_(\d+)_of_(\d+)")


def block_of(x: Array, kernel: Array, *, stride: int, padding: Sequence[int]) -> int | None:
    """Returns the number of outputs of a block that a convolution is computed by, or None where it should not be.

    Blocks are for programs that run on CPUs in float32, with few channels and a kernel of several samples. The choice
    depends on shapes and on the devices that the program is for, and on nothing else.

    Args:
        x: Activations, `[batch, time, in]`.
        kernel: Kernel, `[time, in, out]`.
        stride: Number of samples from one output to the next.
        padding: Number of zeros before and after.
    """
    length, width_in, width = kernel.shape
    if not takes_cpu_forms(x.dtype):
        return None
    if length == 1 or width_in > _MOST_IN or width > _MOST_OUT:
        return None
    least = _COLUMNS // max(width_in, width)
    outputs = _outputs(x, kernel, stride, padding)
    if outputs < least:
        return None
    # Blocks that divide the outputs leave none to be cut off.
    return next((block for block in range(least, 2 * least) if outputs % block == 0), least)


def convolution_over_blocks(x: Array, kernel: Array, *, stride: int, padding: Sequence[int], block: int) -> Array:
    """Returns a convolution over time, equal to XLA's but for rounding.

    Args:
        x: Activations, `[batch, time, in]`.
        kernel: Kernel, `[time, in, out]`, of the same type.
        stride: Number of samples from one output to the next.
        padding: Number of zeros before and after.
        block: Number of outputs of a block.

    Returns:
        Activations, `[batch, outputs, out]`.
    """
    batch, _, width_in = x.shape
    length, _, width = kernel.shape
    outputs = _outputs(x, kernel, stride, padding)
    blocks = -(-outputs // block)
    window = stride * (block - 1) + length
    with jax.named_scope(f"useful_{outputs * length}_of_{blocks * block * window}"):
        rows = _windows(x, blocks, window=window, step=stride * block, before=padding[0])
        matrix = _shifted(kernel, block, stride=stride).reshape(window * width_in, block * width)
        product = jax.lax.dot(rows.reshape(batch * blocks, window * width_in), matrix)
    return product.reshape(batch, blocks * block, width)[:, :outputs]


def useful(scopes: str, macs: int) -> int:
    """Returns a product's multiply-accumulates without those of the zeros beside the kernel.

    Args:
        scopes: Scopes that the product was traced in, as JAX writes them.
        macs: Multiply-accumulates that are computed.
    """
    for wanted, computed in _USEFUL.findall(scopes):
        macs = macs * int(wanted) // int(computed)
    return macs


def _outputs(x: Array, kernel: Array, stride: int, padding: Sequence[int]) -> int:
    return (x.shape[1] + sum(padding) - kernel.shape[0]) // stride + 1


def _windows(x: Array, blocks: int, *, window: int, step: int, before: int) -> Array:
    """Returns the samples that each block of outputs depends on, `[batch, blocks, window · in]`.

    Args:
        x: Activations, `[batch, time, in]`.
        blocks: Number of windows.
        window: Number of samples of a window.
        step: Number of samples from one window to the next.
        before: Number of zeros before the first sample.
    """
    batch, time, width = x.shape
    reach = math.ceil(window / step)
    after = (blocks + reach - 1) * step - before - time
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (before, after, 0), (0, 0, 0)))
    steps = padded.reshape(batch, blocks + reach - 1, step * width)
    parts = [steps[:, place : place + blocks, : min(step, window - place * step) * width] for place in range(reach)]
    return jnp.concatenate(parts, axis=2)


def _shifted(kernel: Array, block: int, *, stride: int) -> Array:
    """Returns a kernel once for every output of a block, `[window, in, block, out]`, with zeros around it."""
    after = stride * (block - 1)
    pad = functools.partial(jnp.pad, kernel)
    return jnp.stack(
        [pad(((stride * place, after - stride * place), (0, 0), (0, 0))) for place in range(block)], axis=2
    )
