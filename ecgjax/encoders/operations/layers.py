"""Layers that several encoders share."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ecgjax.encoders.operations.gradient_sums import Conv
from ecgjax.encoders.operations.portability import takes_cpu_forms, written_out
from ecgjax.errors import ConfigError
from ecgjax.keys import hash_bits

#: Parameters, statistics and normalisation stay in this type whatever the compute type.
PARAM_DTYPE = jnp.float32

_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_ZERO = 1 / math.sqrt(2 * math.pi)


def conv(
    features_in: int,
    features_out: int,
    *,
    kernel: int,
    stride: int = 1,
    padding: str | None = None,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> Conv:
    """Returns a convolution over time, `[batch, time, channel]`, by default padded by (kernel − 1) / 2 on both sides.

    It has no bias: every convolution here stands before a normalisation, where a bias has no gradient. With `padding`
    `"VALID"` there is none, and with `"SAME"` it is that of Keras, where an even kernel's odd sample goes to the end.

    Args:
        features_in: Number of channels of the input.
        features_out: Number of channels of the output.
        kernel: Length of the kernel, in samples.
        stride: Number of samples from one output to the next.
        padding: Padding, `"VALID"` or `"SAME"`; None for (kernel − 1) / 2 on both sides.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Raises:
        ConfigError: The kernel is even, and cannot be padded alike on both sides.
    """
    if padding is None and kernel % 2 == 0:
        raise ConfigError(
            f"config.encoder: a kernel of {kernel} samples cannot be padded alike on both sides; it must be odd"
        )
    return Conv(
        features_in,
        features_out,
        kernel_size=(kernel,),
        strides=(stride,),
        padding=((kernel // 2, kernel // 2),) if padding is None else padding,
        use_bias=False,
        dtype=dtype,
        param_dtype=PARAM_DTYPE,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


def cast_ecg(ecg: Array, dtype: jnp.dtype, *, num_samples: int | None = None) -> Array:
    """Casts recordings, `f32[batch, time, lead]` in mV, to the type that is computed in.

    For bf16 each lead's median is subtracted before: at an electrode offset of 16 mV one step of bf16 is 125 µV.
    `num_samples` interpolates to another length between the two (`resample_linear`).

    Args:
        ecg: Recordings, `f32[batch, time, lead]`, in mV.
        dtype: Type that is computed in.
        num_samples: Number of samples to interpolate to; None leaves the length.

    Returns:
        Recordings in `dtype`, `[batch, num_samples, lead]`.
    """
    if dtype == jnp.bfloat16:
        ecg = ecg - jnp.median(ecg, axis=1, keepdims=True)
    if num_samples is not None:
        ecg = resample_linear(ecg, num_samples)
    return ecg.astype(dtype)


def resample_linear(ecg: Array, num_samples: int) -> Array:
    """Resamples recordings linearly to another length; the first and the last sample do not change.

    Args:
        ecg: Recordings, `f32[batch, time, lead]`.
        num_samples: Number of samples to interpolate to; that of `ecg` leaves it untouched.

    Returns:
        Interpolated recordings, `f32[batch, num_samples, lead]`.
    """
    length = ecg.shape[1]
    if num_samples == length:
        return ecg
    position = np.linspace(0, length - 1, num_samples)
    left = np.clip(position.astype(int), 0, max(length - 2, 0))
    weight = jnp.asarray((position - left)[None, :, None], ecg.dtype)
    return ecg[:, left] * (1 - weight) + ecg[:, np.minimum(left + 1, length - 1)] * weight


class BatchNorm(nnx.Module):
    """Batch normalisation over the valid rows of the global batch, with float32 statistics.

    Arrays are those of the global batch, so that the sums run over all devices and the layer is synchronised by
    construction. Rows are summed over time first and weighted afterwards, which costs nothing; the mask of
    `nnx.BatchNorm` makes that layer three times as slow (measured on a CPU).

    Args:
        features: Number of channels.
        dtype: Type of the normalised activations.
        momentum: Share of the running statistics that an update keeps.
        epsilon: Number that is added to the variance.

    References:
        Ioffe and Szegedy, Batch Normalization, ICML 2015.
    """

    def __init__(self, features: int, *, dtype: jnp.dtype, momentum: float = 0.9, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones((features,), PARAM_DTYPE))
        self.bias = nnx.Param(jnp.zeros((features,), PARAM_DTYPE))
        self.mean = nnx.BatchStat(jnp.zeros((features,), PARAM_DTYPE))
        self.var = nnx.BatchStat(jnp.ones((features,), PARAM_DTYPE))
        self.dtype, self.momentum, self.epsilon = dtype, momentum, epsilon
        self.frozen = False  # `encoders.freezing.freeze` sets it.

    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        """Normalises every channel.

        Args:
            x: Activations, `[batch, time, channel]`.
            train: Whether the batch's mean and (biased) variance are used and the running ones updated, instead of
                using the running ones.
            valid: Mask of the rows whose samples make up the statistics, `bool[batch]`; None for all. Where no row
                counts, the running statistics are used and stay.

        Returns:
            Normalised activations, `[batch, time, channel]`, in the type that is computed in.
        """
        mean, var = self.mean[...], self.var[...]
        if not train or self.frozen:
            scale = self.scale[...] * jax.lax.rsqrt(var + jnp.float32(self.epsilon))
            return _affine(x.astype(PARAM_DTYPE) - mean[None, None], scale, self.bias[...]).astype(self.dtype)
        weight = jnp.ones(x.shape[0], PARAM_DTYPE) if valid is None else valid.astype(PARAM_DTYPE)
        y, *of_batch = _normalise(x, weight, self.scale[...], self.bias[...], mean, var, self.epsilon)
        self._update(*of_batch)
        return y.astype(self.dtype)

    def rectified(self, x: Array, *, train: bool, valid: Array | None = None, skip: Array | None = None) -> Array:
        """Returns the ReLU of the normalised activations, with a skip added before.

        On a CPU it is written out, and the backward pass reads from it where the ReLU was zero.

        Args:
            x: Activations, `[batch, time, channel]`.
            train: Whether the batch's statistics are used, as when the layer is called.
            valid: Mask of the rows whose samples make up the statistics, as when the layer is called.
            skip: Activations that are added to the normalised ones, of the same shape; None for none.

        Returns:
            Activations of 0 or more, `[batch, time, channel]`, in the type that is computed in.
        """
        if not takes_cpu_forms(self.dtype):
            y = self(x, train=train, valid=valid)
            return jax.nn.relu(y if skip is None else skip + y)
        mean, var = self.mean[...], self.var[...]
        if not train or self.frozen:
            scale = self.scale[...] * jax.lax.rsqrt(var + jnp.float32(self.epsilon))
            return written_out(_rectify, x, skip, mean, scale, self.bias[...])
        weight = jnp.ones(x.shape[0], PARAM_DTYPE) if valid is None else valid.astype(PARAM_DTYPE)
        y, *of_batch = _rectified(x, skip, weight, self.scale[...], self.bias[...], mean, var, self.epsilon)
        self._update(*of_batch)
        return y

    def _update(self, mean: Array, var: Array) -> None:
        """Moves the running statistics towards those of a batch."""
        for running, batch in ((self.mean, mean), (self.var, var)):
            running[...] = self.momentum * running[...] + (1 - self.momentum) * jax.lax.stop_gradient(batch)


def _affine(centred: Array, scale: Array, bias: Array) -> Array:
    return centred * scale[None, None] + bias[None, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _normalise(
    x: Array, weight: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Normalises by the statistics of the rows that count.

    The gradient is written out. So it takes two sums over the activations, that of the upstream gradient and that of
    its product with the centred activations, where differentiating the statements would take three.

    Args:
        x: Activations, `[batch, time, channel]`.
        weight: Weight of every row in the statistics, `f32[batch]`, 0 or 1.
        scale: Scale γ of each channel, `f32[channel]`.
        bias: Shift β of each channel, `f32[channel]`.
        mean: Mean to use where no row counts, `f32[channel]`.
        var: Variance to use where no row counts, `f32[channel]`.
        epsilon: Number that is added to the variance.

    Returns:
        Normalised activations, `f32[batch, time, channel]`, and the mean and the variance used, `f32[channel]`, which
        carry no gradient.
    """
    return _normalise_forward(x, weight, scale, bias, mean, var, epsilon)[0]


def _normalise_forward(
    x: Array, weight: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    mean, var = _statistics(x, weight, mean, var)
    rate = jax.lax.rsqrt(var + jnp.float32(epsilon))
    y = _affine(x.astype(PARAM_DTYPE) - mean[None, None], scale * rate, bias)
    return (y, mean, var), (x, weight, scale, mean, rate)


def _normalise_backward(
    epsilon: float, residuals: tuple[Array, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array | None, ...]:
    x, weight, scale, mean, rate = residuals
    g = gradients[0]
    centred = x.astype(PARAM_DTYPE) - mean[None, None]
    total, along = g.sum((0, 1)), (g * centred).sum((0, 1))
    # A row that counts also gets the gradient of its share in mean and variance.
    share = weight[:, None, None] / (jnp.maximum(weight.sum(), jnp.float32(1)) * jnp.float32(x.shape[1]))
    dx = g * (scale * rate)[None, None] - share * _affine(centred, scale * rate**3 * along, scale * rate * total)
    return dx.astype(x.dtype), None, rate * along, total, None, None


_normalise.defvjp(_normalise_forward, _normalise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def _rectified(
    x: Array, skip: Array | None, weight: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Normalises as `_normalise` does, adds a skip, `f32[batch, time, channel]` or None, and applies a ReLU."""
    return _rectified_forward(x, skip, weight, scale, bias, mean, var, epsilon)[0]


def _rectified_forward(
    x: Array, skip: Array | None, weight: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple[Array | None, ...]]:
    mean, var = _statistics(x, weight, mean, var)
    rate = jax.lax.rsqrt(var + jnp.float32(epsilon))
    y = written_out(_rectify, x, skip, mean, scale * rate, bias)
    return (y, mean, var), (y, skip, x, weight, scale, mean, rate)


def _rectified_backward(
    epsilon: float, residuals: tuple[Any, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array | None, ...]:
    y, skip, *of_norm = residuals
    g = written_out(_where_positive, y, gradients[0])
    dx, *others = _normalise_backward(epsilon, tuple(of_norm), (g, *gradients[1:]))
    return dx, None if skip is None else g, *others


_rectified.defvjp(_rectified_forward, _rectified_backward)


def _rectify(x: Array, skip: Array | None, mean: Array, scale: Array, bias: Array) -> Array:
    y = _affine(x - mean[None, None], scale, bias)
    return _relu(y if skip is None else skip + y)


@jax.custom_vjp
def _relu(x: Array) -> Array:
    """Returns max(x, 0), whose gradient is read off the result."""
    return jax.lax.max(x, jnp.zeros((), x.dtype))


def _relu_forward(x: Array) -> tuple[Array, Array]:
    y = _relu(x)
    return y, y


def _where_positive(y: Array, gradient: Array) -> Array:
    return jax.lax.select(y > 0, gradient, jnp.zeros_like(gradient))


_relu.defvjp(_relu_forward, lambda y, gradient: (_where_positive(y, gradient),))


def _statistics(x: Array, weight: Array, mean: Array, var: Array) -> tuple[Array, Array]:
    """Returns mean and variance of the rows that count, or the given ones where none does."""
    some = weight.any()
    of_batch = _moments(x.astype(PARAM_DTYPE), weight)
    return jnp.where(some, of_batch[0], mean), jnp.where(some, of_batch[1], var)


def _moments(x: Array, weight: Array) -> tuple[Array, Array]:
    """Returns mean and biased variance of every channel, accurate even where the mean is large.

    E[x²] − E[x]² would lose the variance where the mean is large beside the deviation. So each row is summed over time
    about its middle sample, in one pass over the activations, and rows are joined by their means and squared
    deviations, which are a few numbers a row.

    Args:
        x: Activations, `f32[batch, time, channel]`.
        weight: Weight of every row, `f32[batch]`, 0 or 1.

    Returns:
        Mean and variance, each `f32[channel]`; both are 0 where no row has a weight.

    References:
        Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, The American Statistician 37, 1983.
    """
    # 1. Sum each row about its middle sample.
    length = x.shape[1]
    shift = x[:, length // 2]
    shifted = x - shift[:, None]
    sums, squares = shifted.sum(1), (shifted * shifted).sum(1)
    row_mean = shift + sums / length
    row_squares = squares - sums * sums / length
    # 2. Join the rows by their means and squared deviations.
    weight = weight[:, None] / jnp.maximum(weight.sum(), jnp.float32(1))
    roughly = jnp.sum(weight * row_mean, 0)
    between = row_mean - roughly[None]
    mean = roughly + jnp.sum(weight * between, 0)  # The second sum takes the rounding of the first back.
    var = jnp.sum(weight * (row_squares / length + between * between), 0)
    return mean, jnp.where(var > 0, var, jnp.float32(0))


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """Returns x · Φ(x), the exact GELU; Φ is the standard normal distribution function.

    It is computed in float32 and returned in the type of `x`. The gradient is written out, so that the backward pass
    keeps `x` alone. JAX's own keeps several arrays of that size, whose values come from a function that costs twice as
    much (docs/speed.md).

    Args:
        x: Activations of any shape.

    References:
        Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.
    """
    wide = x.astype(jnp.float32)
    return (wide * _distribution(wide)).astype(x.dtype)


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _gelu_backward(x: Array, gradient: Array) -> tuple[Array]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * jnp.float32(_DENSITY_AT_ZERO)
    slope = _distribution(wide) + wide * density
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


def _distribution(x: Array) -> Array:
    """Returns Φ(x)."""
    return 0.5 + 0.5 * jax.lax.erf(x * jnp.float32(_SQRT_HALF))


gelu.defvjp(_gelu_forward, _gelu_backward)


def row_dropout(x: Array, keys: Array | None, rate: float) -> Array:
    """Applies dropout whose mask for a row depends on that row's key alone.

    Args:
        x: Activations, `[batch, ...]`.
        keys: Random key of each row, `key[batch]`; None at inference, which returns `x`.
        rate: Share of the elements that are dropped, in [0, 1).

    Returns:
        Activations with dropped elements zero and the rest scaled by 1 / (1 − rate).
    """
    if keys is None or rate == 0.0:
        return x
    bits = _row_bits(keys, x.shape[1:])
    keep = bits >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def _row_bits(keys: Array, shape: tuple[int, ...]) -> Array:
    """Returns random bits, `u32[batch, *shape]`; those of a row are a function of its key and the position alone.

    They are hashed. Threefry for every element of every dropout would take a third of the step's time on a CPU, and
    most of its compilation.
    """
    words = jax.random.key_data(keys).astype(jnp.uint32)
    high, low = (words[:, i].reshape(-1, *(1,) * len(shape)) for i in (0, 1))
    position = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(1, *shape)
    return hash_bits(high, low, position)
