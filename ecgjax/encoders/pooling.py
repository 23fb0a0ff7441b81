"""Max-pooling over time whose gradient is as fast as its forward pass, and goes where the forward pass looked."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

#: Places of a window are noted in a signed byte.
_LONGEST_WINDOW = 128


def max_pool(x: Array, *, window: int, stride: int, padding: str | tuple[int, int] = "VALID") -> Array:
    """The greatest of every window, `[batch, time, channel]` → `[batch, windows, channel]`.

    As `nnx.max_pool`, gradient included: it goes to the first of a window's greatest samples, which after a ReLU are
    often several. XLA takes that gradient one sample after the other on a CPU, 40 times as long as the forward pass;
    here it is one comparison for each place of a window.

    The forward pass notes which place of its window was the greatest, and the backward pass goes by the note. It must
    not look for the sample that equals the maximum: XLA may compute `x` once more for the backward pass, in another
    fusion and with another last bit, and where nothing equals the maximum the window's gradient is lost.

    Args:
        x: `[batch, time, channel]`.
        window: Samples of a window, at most 128.
        stride: Samples from one window to the next.
        padding: `"VALID"`, `"SAME"`, or numbers of samples before and after, which are never the greatest.

    Raises:
        ValueError: The window is longer than its places can be noted.
    """
    if window > _LONGEST_WINDOW:
        raise ValueError(f"max_pool: window={window} samples, at most {_LONGEST_WINDOW} are possible")
    if isinstance(padding, str):
        ((before, after),) = jax.lax.padtype_to_pads((x.shape[1],), (window,), (stride,), padding)
        padding = (before, after)
    return _max_pool(x, window, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: int, stride: int, padding: tuple[int, int]) -> Array:
    return nnx.max_pool(x, window_shape=(window,), strides=(stride,), padding=(padding,))


def _forward(x: Array, window: int, stride: int, padding: tuple[int, int]) -> tuple[Array, tuple[Array, Array]]:
    """Returns the maxima, and as residuals their places, `i8[batch, windows, channel]`, and an empty array like `x`."""
    length = x.shape[1]
    windows = (sum(padding) + length - window) // stride + 1
    parts = _in_blocks(x, windows, window, stride, padding)
    greatest = parts[:, :windows, 0]
    place = jnp.zeros(greatest.shape, jnp.int8)
    for k in range(1, window):
        block, within = divmod(k, stride)
        sample = parts[:, block : block + windows, within]
        place = jnp.where(sample > greatest, jnp.int8(k), place)
        greatest = jnp.maximum(greatest, sample)
    # Maxima and places are kept as they were found together. Without the barrier XLA 0.11 on CPUs compiles the gradient
    # of `pclr_resnet:small` to something else (`python -m tests.support.gradient_table`).
    greatest, place = jax.lax.optimization_barrier((greatest, place))
    return greatest, (place, jnp.zeros((0, length), x.dtype))


def _in_blocks(x: Array, windows: int, window: int, stride: int, padding: tuple[int, int]) -> Array:
    """Pads `x` to `[batch, block, place, channel]` with blocks as long as the stride.

    The samples at one place of all windows are then one slice.
    """
    batch, length, channels = x.shape
    blocks = windows + (window - 1) // stride
    after = blocks * stride - padding[0] - length
    lowest = jnp.array(-jnp.inf, x.dtype)
    padded = jax.lax.pad(x, lowest, ((0, 0, 0), (padding[0], after, 0), (0, 0, 0)))
    return padded.reshape(batch, blocks, stride, channels)


def _backward(
    window: int, stride: int, padding: tuple[int, int], residuals: tuple[Array, Array], g: Array
) -> tuple[Array]:
    chosen, like = residuals
    batch, windows, channels = chosen.shape
    length, blocks = like.shape[1], windows + (window - 1) // stride
    none = (0, 0, 0)
    zero = jnp.zeros((), g.dtype)
    places = [jnp.zeros((batch, blocks, channels), g.dtype)] * stride
    for k in range(window):
        block, place = divmod(k, stride)
        of_place = jnp.where(chosen == k, g, zero)
        places[place] += jax.lax.pad(of_place, zero, (none, (block, blocks - windows - block, 0), none))
    dx = jnp.stack(places, axis=2).reshape(batch, blocks * stride, channels)
    after = blocks * stride - padding[0] - length
    return (jax.lax.pad(dx, zero, (none, (-padding[0], -after, 0), none)),)


_max_pool.defvjp(_forward, _backward)
