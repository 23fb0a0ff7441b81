"""Max-pooling over time whose gradient is fast, and always goes to the sample that the forward pass chose."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

#: Longest window, in samples: the places of a window are noted in a signed byte.
_LONGEST_WINDOW = 128


def max_pool(x: Array, *, window: int, stride: int, padding: str | tuple[int, int] = "VALID") -> Array:
    """Returns the greatest sample of every window: `[batch, time, channel]` → `[batch, windows, channel]`.

    The result and its gradient are those of `nnx.max_pool`: the gradient goes to the first of a window's greatest
    samples, of which there are often several after a ReLU. XLA computes that gradient one sample after the other on a
    CPU, which takes 40 times as long as the forward pass; here it is one comparison for each place of a window.

    The forward pass notes which place of a window was the greatest, and the backward pass uses that note. It must not
    look for the sample that equals the maximum: XLA may compute `x` once more for the backward pass, in another fusion
    and with another last bit, and where nothing equals the maximum the window's gradient is lost.

    Args:
        x: Activations, `[batch, time, channel]`.
        window: Length of a window in samples, at most 128.
        stride: Number of samples from one window to the next.
        padding: Padding `"VALID"` or `"SAME"`, or numbers of samples before and after, which are never the greatest.

    Raises:
        ValueError: The window is longer than 128 samples.
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
    """Returns the maxima, and as residuals their places in the windows, `i8[batch, windows, channel]`, and an array
    `[0, time]` that keeps length and type of `x`.
    """
    batch, length, channels = x.shape
    windows = (sum(padding) + length - window) // stride + 1
    padded = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), (*padding, 0), (0, 0, 0)))

    def samples(k: int) -> Array:
        # This is a slice with strides, and not a slice of `x` in the shape `[batch, window, place, channel]`. XLA on
        # CPUs takes a reshaped array for another one: a fusion that reads `x` in both shapes may write its result over
        # `x` while other windows' samples are still to be read (jax 0.10.2 and 0.11.2).
        last = k + (windows - 1) * stride
        return jax.lax.slice(padded, (0, k, 0), (batch, last + 1, channels), (1, stride, 1))

    greatest = samples(0)
    place = jnp.zeros(greatest.shape, jnp.int8)
    for k in range(1, window):
        sample = samples(k)
        place = jnp.where(sample > greatest, jnp.int8(k), place)
        greatest = jnp.maximum(greatest, sample)
    return greatest, (place, jnp.zeros((0, length), x.dtype))


def _backward(
    window: int, stride: int, padding: tuple[int, int], residuals: tuple[Array, Array], g: Array
) -> tuple[Array]:
    chosen, like = residuals
    batch, windows, channels = chosen.shape
    length, reach = like.shape[1], (window - 1) // stride
    blocks = windows + reach
    none, zero = (0, 0, 0), jnp.zeros((), g.dtype)
    dx = jnp.zeros((batch, blocks, stride, channels), g.dtype)
    # Time is divided into blocks as long as the stride. A window reaches into `reach` blocks after its own.
    for block in range(reach + 1):
        around = (none, (block, reach - block, 0), none)
        of_block = jax.lax.pad(g, zero, around)[:, :, None]
        place = jax.lax.pad(chosen, jnp.int8(-1), around)[:, :, None]
        places = jnp.arange(block * stride, (block + 1) * stride).reshape(1, 1, stride, 1)
        dx += jnp.where(place.astype(jnp.int32) == places, of_block, zero)
    after = blocks * stride - padding[0] - length
    return (jax.lax.pad(dx.reshape(batch, blocks * stride, channels), zero, (none, (-padding[0], -after, 0), none)),)


_max_pool.defvjp(_forward, _backward)
