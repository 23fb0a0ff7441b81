"""Convolutions of the encoders' layers in bf16, and their kernels' gradients, in several forms of the same product.

The first measurement is one of the layout `[batch, channel, time]`, for which cuDNN was reported to have no
configuration (github.com/jax-ml/jax/issues/37922); runs use `[batch, time, channel]`.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.benchmarks.device.part_report import PartReport
from ecgjax.benchmarks.paired_steps import Product, spent
from ecgjax.encoders.operations import gradient_sums

_TYPE = jnp.bfloat16

#: Layer → samples, channels in and out, kernel and stride: stem and stages of ResNet-18, and the stem of TemporalNet.
LAYERS = {
    "128→128": (313, 128, 128, 7, 1),
    "512→512": (79, 512, 512, 7, 1),
    "64→64": (625, 64, 64, 7, 1),
    "256→256": (157, 256, 256, 7, 1),
    "12→64": (2500, 12, 64, 15, 2),
    "1→32": (2500, 1, 32, 7, 1),
}

#: Runs that are queued one behind the other, so that starting each does not count, and their repetitions.
_RUNS, _REPETITIONS = 20, 3


def measure(report: PartReport, *, rehearse: bool, folder: Path) -> None:
    """Takes the measurements; arguments are those of `parts.Measure`."""
    del folder
    rows = 2 if rehearse else 1024
    report.attempt("channels first, 64→64", functools.partial(_time, layer("64→64", rows), channels_first, "forward"))
    for name, form in FORMS.items():
        for of in LAYERS:
            for role in ("forward", "kernel gradient"):
                report.attempt(f"{of}, {name}, {role}", functools.partial(_time, layer(of, rows), form, role))


def layer(name: str, rows: int) -> Product:
    """Returns the convolution of a layer of `LAYERS`, padded alike on both sides."""
    length, width_in, width, kernel, stride = LAYERS[name]
    return Product(
        name=name,
        rows=rows,
        length=length,
        width_in=width_in,
        width=width,
        kernel=kernel,
        stride=stride,
        padding=(kernel // 2, kernel // 2),
    )


Form = Callable[[Product, Array, Array], Array]


def ours(product: Product, x: Array, kernel: Array) -> Array:
    """Returns the convolution of `[batch, time, in]` with `f32[time, in, out]` as encoders compute it."""
    return gradient_sums.convolution(x, kernel, padding=product.padding, stride=product.stride)


def two_dimensional(product: Product, x: Array, kernel: Array) -> Array:
    """Returns the same by a convolution over images of height 1."""
    return jax.lax.conv_general_dilated(
        x[:, None],
        kernel[None].astype(x.dtype),
        (1, product.stride),
        [(0, 0), product.padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[:, 0]


def patches(product: Product, x: Array, kernel: Array) -> Array:
    """Returns the same by one matrix product over gathered windows."""
    padded = jnp.pad(x, ((0, 0), product.padding, (0, 0)))
    length = (padded.shape[1] - product.kernel) // product.stride + 1
    last = (length - 1) * product.stride + 1
    windows = [padded[:, place : place + last : product.stride] for place in range(product.kernel)]
    return jnp.concatenate(windows, axis=2) @ kernel.astype(x.dtype).reshape(-1, product.width)


def channels_first(product: Product, x: Array, kernel: Array) -> Array:
    """Returns the same of signals and to signals that lie as `[batch, time, channel]`, by the other layout."""
    y = jax.lax.conv_general_dilated(
        x.swapaxes(1, 2),
        kernel.astype(x.dtype).transpose(2, 1, 0),
        (product.stride,),
        [product.padding],
        dimension_numbers=("NCW", "OIW", "NCW"),
    )
    return y.swapaxes(1, 2)


FORMS: Mapping[str, Form] = {"ours": ours, "two_dimensional": two_dimensional, "patches": patches}


def _time(product: Product, form: Form, role: str) -> dict[str, Any]:
    """Returns milliseconds and FLOP/s of a convolution, or of its kernel's gradient, as values for JSON."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (product.rows, product.length, product.width_in), _TYPE)
    kernel = jax.random.normal(keys[1], (product.kernel, product.width_in, product.width), jnp.float32)
    forward = functools.partial(form, product)
    upstream = jax.random.normal(keys[2], jax.eval_shape(forward, x, kernel).shape, _TYPE)

    def gradient(x: Array, kernel: Array, upstream: Array) -> Array:
        with gradient_sums.gradients_summed_in("float32"):
            return jax.vjp(functools.partial(forward, x), kernel)[1](upstream)[0]

    program: Callable[[], Array] = (
        functools.partial(jax.jit(forward), x, kernel)
        if role == "forward"
        else functools.partial(jax.jit(gradient), x, kernel, upstream)
    )
    compiled = spent(lambda: jax.block_until_ready(program())).wall
    times = [
        spent(lambda: jax.block_until_ready([program() for _ in range(_RUNS)])).wall / _RUNS
        for _ in range(_REPETITIONS)
    ]
    seconds = statistics.median(times)
    return {
        "ms": 1e3 * seconds,
        "gflop": product.flops / 1e9,
        "flops_per_sec": product.flops / seconds,
        "first_run_s": compiled,
    }
