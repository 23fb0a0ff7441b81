"""Every primitive that is converted to ONNX, run by onnxruntime, against brute force in float64 NumPy."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ecgjax.export.onnx.conversion import supported
from tests.ecgjax.export.onnx.running import primitives_of, run

RNG = np.random.default_rng(0)


class Case(NamedTuple):
    """A function of JAX, its arguments, the same in NumPy, and the places of arguments whose first axis is a symbol."""

    function: Any
    arguments: tuple
    expected: Any
    batched: tuple = (0,)


def floats(*shape, scale=1.0):
    return (RNG.normal(size=shape) * scale).astype(np.float32)


def positive(*shape):
    return np.abs(floats(*shape)) + np.float32(0.1)


def integers(*shape, low=-9, high=10):
    return RNG.integers(low, high, shape).astype(np.int32)


def truths(*shape):
    return RNG.random(shape) < 0.5


def unary(function, expected, argument):
    return [Case(function, (argument,), expected)]


def binary(function, expected, *, whole=True):
    """Two of one shape, a scalar, and an array that is broadcast along the batch."""
    pairs = [(floats(3, 5, 2), floats(3, 5, 2))]
    cases = [Case(function, pairs[0], expected, (0, 1))]
    if whole:
        cases.append(Case(function, (integers(3, 5), integers(3, 5, low=1)), expected, (0, 1)))
    cases.append(Case(lambda x: function(x, x.dtype.type(0.5)), (floats(3, 4),), lambda x: expected(x, 0.5)))
    stretched = lambda x, y: function(x, jnp.broadcast_to(y[None, :, None], x.shape))  # noqa: E731
    cases.append(Case(stretched, (floats(3, 4, 2), floats(4)), lambda x, y: expected(x, y[None, :, None])))
    return cases


def truncated(a, b):
    whole = np.issubdtype(np.asarray(a).dtype, np.integer) and np.issubdtype(np.asarray(b).dtype, np.integer)
    return np.trunc(a / b) if whole else a / b


def compared(name, expected):
    function, x = getattr(lax, name), integers(4, 6, low=-2, high=3)
    y = integers(4, 6, low=-2, high=3)
    return [
        Case(function, (x, y), expected, (0, 1)),
        Case(function, (x.astype(np.float32), y.astype(np.float32)), expected, (0, 1)),
        Case(lambda x: function(x, jnp.float32(0)), (x.astype(np.float32),), lambda x: expected(x, 0)),
    ]


def convolved(x, kernel, *, strides, padding, dilation, groups):
    """Convolution of `[batch, *places, in]` with `[*window, in / groups, out]`, place by place."""
    rank = kernel.ndim - 2
    x = crop_or_pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)), 0.0)
    window = kernel.shape[:rank]
    sizes = [(x.shape[1 + axis] - dilation[axis] * (window[axis] - 1) - 1) // strides[axis] + 1 for axis in range(rank)]
    out = np.zeros((len(x), *sizes, kernel.shape[-1]))
    a_group, width = kernel.shape[-2], kernel.shape[-1] // groups
    for place in itertools.product(*map(range, sizes)):
        for step in itertools.product(*map(range, window)):
            at = tuple(p * s + d * k for p, s, d, k in zip(place, strides, dilation, step, strict=True))
            for group in range(groups):
                into = slice(group * width, (group + 1) * width)
                seen = x[(slice(None), *at, slice(group * a_group, (group + 1) * a_group))]
                out[(slice(None), *place, into)] += seen @ kernel[(*step, slice(None), into)].astype(np.float64)
    return out


def crop_or_pad(x, sides, filling):
    x = np.pad(x, [(max(before, 0), max(after, 0)) for before, after in sides], constant_values=filling)
    cuts = [slice(max(-before, 0), n - max(-after, 0)) for (before, after), n in zip(sides, x.shape, strict=True)]
    return x[tuple(cuts)]


def conv(shape, kernel, *, strides, padding, dilation=None, groups=1, layout=("NWC", "WIO", "NWC"), batched=(0,)):
    """Case of a convolution in some layout; the arguments are made in NWC and WIO, and brought into it."""
    rank = len(kernel) - 2
    dilation = dilation or (1,) * rank
    places = "WH"[:rank]
    plain = (f"N{places}C", f"{places}IO", f"N{places}C")
    to = [[names.index(each) for each in wanted] for names, wanted in zip(plain, layout, strict=True)]

    def function(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=layout, feature_group_count=groups
        )

    def expected(x, kernel):
        x, kernel = x.transpose(np.argsort(to[0])), kernel.transpose(np.argsort(to[1]))
        out = convolved(x, kernel, strides=strides, padding=padding, dilation=dilation, groups=groups)
        return out.transpose(to[2])

    arguments = (floats(*shape).transpose(to[0]), floats(*kernel).transpose(to[1]))
    return Case(function, arguments, expected, batched)


def pooled(shape, *, window, strides, padding, dilation=None):
    """Case of a max-pool of numbers that are all below zero, so that a zero of padding would show."""
    dilation = dilation or (1,) * len(shape)

    def function(x):
        return lax.reduce_window_max_p.bind(
            x,
            window_dimensions=window,
            window_strides=strides,
            padding=padding,
            base_dilation=(1,) * len(shape),
            window_dilation=dilation,
        )

    def expected(x):
        x = crop_or_pad(x, padding, -np.inf)
        sizes = [(n - d * (w - 1) - 1) // s + 1 for n, w, s, d in zip(x.shape, window, strides, dilation, strict=True)]
        out = np.full(sizes, -np.inf)
        for place in np.ndindex(*sizes):
            for step in np.ndindex(*window):
                at = tuple(p * s + k * d for p, s, k, d in zip(place, strides, step, dilation, strict=True))
                out[place] = max(out[place], x[at])
        return out

    return Case(function, (-1 - positive(*shape),), expected)


def product(left, right, contracted, batched, *, symbols=(0,), of=floats):
    """Case of `lax.dot_general`, against a sum of products place by place, by `einsum`."""
    letters = iter("abcdefghijklmnop")
    first = [next(letters) for _ in left]
    second = [next(letters) for _ in right]
    for one, other in zip((*contracted[0], *batched[0]), (*contracted[1], *batched[1]), strict=True):
        second[other] = first[one]
    free = [
        [name for axis, name in enumerate(names) if axis not in (*contracted[side], *batched[side])]
        for side, names in enumerate((first, second))
    ]
    out = [first[axis] for axis in batched[0]] + free[0] + free[1]
    equation = f"{''.join(first)},{''.join(second)}->{''.join(out)}"
    return Case(
        lambda x, y: lax.dot_general(x, y, (contracted, batched)),
        (of(*left), of(*right)),
        lambda x, y: np.einsum(equation, x.astype(np.float64), y.astype(np.float64)),
        symbols,
    )


def reduced(function, expected, argument, axes=((1,), (2,), (1, 2))):
    return [
        Case(lambda x, along=along: function(x, along), (argument,), lambda x, along=along: expected(x, axis=along))
        for along in axes
    ]


def custom_jvp(x):
    @jax.custom_jvp
    def function(x):
        return jnp.sin(x) * x

    function.defjvps(lambda tangent, out, x: tangent)
    return function(x)


def custom_vjp(x):
    @jax.custom_vjp
    def function(x):
        return jnp.sin(x) * x

    function.defvjp(lambda x: (x, None), lambda _, g: (g,))
    return function(x)


def scanned(x, rows, weights, *, reverse=False):
    """A carry of the batch, rows that are inputs, and one number for each round."""

    def body(carry, row):
        of_row, weight = row
        carry = carry * weight + of_row[None]
        return carry, carry.sum(1)

    return lax.scan(body, x, (rows, weights), reverse=reverse)


def scanned_by_hand(x, rows, weights, *, reverse=False):
    x, out = x.astype(np.float64), [None] * len(rows)
    for step in reversed(range(len(rows))) if reverse else range(len(rows)):
        x = x * weights[step] + rows[step]
        out[step] = x.sum(1)
    return [x, np.stack(out)]


def along(x, places, mode):
    return jnp.take_along_axis(x, places, axis=1, mode=mode)


ERF = np.vectorize(math.erf, otypes=[float])
SOME = floats(3, 5, 2, scale=2.0)
TIES = np.round(floats(4, 7, 3))
COLUMNS = np.array([4, 0, 2, 2])
CASES = {
    "abs": unary(lax.abs, np.abs, SOME),
    "add": binary(lax.add, np.add),
    "and": [Case(lax.bitwise_and, (truths(3, 5), truths(3, 5)), np.logical_and, (0, 1))],
    "argmax": [
        Case(lambda x, axis=axis: lax.argmax(x, axis, jnp.int32), (TIES,), lambda x, axis=axis: x.argmax(axis))
        for axis in (1, 2)
    ],
    "argmin": [Case(lambda x: lax.argmin(x, 1, jnp.int32), (TIES,), lambda x: x.argmin(1))],
    "broadcast_in_dim": [
        Case(
            lambda x: lax.broadcast_in_dim(x, (2, x.shape[0], 3), (1,)),
            (floats(4),),
            lambda x: np.tile(x[:, None], (2, 1, 3)),
        ),
        # Stretched along an axis that is there, and along the batch, whose length only the input knows.
        Case(lambda x: jnp.broadcast_to(x, (x.shape[0], 4, 3)), (floats(2, 1, 3),), lambda x: np.repeat(x, 4, axis=1)),
        Case(
            lambda x, y: jnp.broadcast_to(y[None], (x.shape[0], 4)).reshape(2, -1),
            (floats(6, 2), floats(4)),
            lambda x, y: np.tile(y, (len(x), 1)).reshape(2, -1),
        ),
        Case(
            lambda x, y: lax.concatenate([x, lax.broadcast_in_dim(y, (x.shape[0], 2), (1,))], 1),
            (floats(3, 4), floats(2)),
            lambda x, y: np.concatenate([x, np.tile(y, (len(x), 1))], 1),
        ),
    ],
    "ceil": unary(lax.ceil, np.ceil, SOME),
    "remat2": [Case(jax.checkpoint(lambda x: jnp.sin(x) * x), (SOME,), lambda x: np.sin(x) * x)],
    "clamp": [
        Case(lambda x: lax.clamp(jnp.float32(-1), x, jnp.float32(0.5)), (SOME,), lambda x: np.clip(x, -1, 0.5)),
        Case(
            lambda low, x: lax.clamp(low, x, low + 3),
            (integers(4, 3), integers(4, 3)),
            lambda low, x: np.clip(x, low, low + 3),
            (0, 1),
        ),
    ],
    "concatenate": [
        Case(
            lambda x, y: lax.concatenate([x, y, x], 1),
            (floats(3, 2, 2), floats(3, 5, 2)),
            lambda x, y: np.concatenate([x, y, x], 1),
            (0, 1),
        ),
        Case(lambda x: lax.concatenate([x[:, :0], x, x[:, 3:]], 1), (floats(2, 3),), lambda x: x),
        Case(
            lambda x: jnp.pad(x, ((0, 0), (0, 3), (0, 0)), mode="edge"),
            (floats(3, 4, 2),),
            lambda x: np.pad(x, ((0, 0), (0, 3), (0, 0)), mode="edge"),
        ),
        # Padding by nothing asks for the batch's last row, and makes nothing of it.
        Case(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 0)), mode="edge"), (floats(3, 4, 2),), lambda x: x),
    ],
    "conv_general_dilated": [
        conv((3, 11, 4), (3, 4, 6), strides=(1,), padding=((1, 1),)),
        conv((3, 12, 4), (5, 4, 3), strides=(3,), padding=((2, 0),)),
        conv((2, 13, 6), (4, 2, 9), strides=(2,), padding=((0, 3),), dilation=(2,), groups=3),
        conv((2, 9, 4), (3, 1, 8), strides=(1,), padding=((4, 5),), dilation=(3,), groups=4),
        conv((2, 9, 3), (3, 3, 2), strides=(2,), padding=((-1, 2),)),
        conv((2, 7, 3), (1, 3, 2), strides=(1,), padding=((0, 0),), layout=("NCW", "OIW", "NWC")),
        conv((2, 7, 3), (3, 3, 2), strides=(2,), padding=((2, 0),), layout=("WNC", "IOW", "CNW"), batched=()),
        conv((2, 6, 7, 3), (3, 2, 3, 4), strides=(2, 1), padding=((1, 0), (0, 2)), layout=("NWHC", "WHIO", "NWHC")),
    ],
    "convert_element_type": [
        Case(lambda x: x.astype(jnp.int32), (SOME,), np.trunc),
        Case(
            lambda x: x.astype(jnp.float32) * jnp.float32(1e-3), (integers(3, 4).astype(np.int16),), lambda x: x * 1e-3
        ),
        Case(lambda x: x.astype(jnp.float32), (truths(3, 4),), lambda x: x.astype(float)),
        Case(lambda x: x.astype(bool), (TIES,), lambda x: x != 0),
        # Half precision is computed in full, which no test in bfloat16 would show.
        Case(lambda x: (x.astype(jnp.bfloat16) * jnp.bfloat16(3)).astype(jnp.float32), (SOME,), lambda x: 3 * x),
    ],
    "copy": unary(lambda x: lax.copy_p.bind(x), lambda x: x, SOME),
    "cos": unary(lax.cos, np.cos, SOME),
    "custom_jvp_call": [Case(custom_jvp, (SOME,), lambda x: np.sin(x) * x)],
    "custom_vjp_call": [Case(custom_vjp, (SOME,), lambda x: np.sin(x) * x)],
    "div": binary(lax.div, truncated),
    "dot_general": [
        product((3, 5, 4), (4, 6), ((2,), (0,)), ((), ())),
        product((3, 4), (6, 4), ((1,), (1,)), ((), ())),
        product((3, 5, 4), (4, 2, 3), ((2,), (0,)), ((), ())),
        product((3, 5, 4), (4, 5), ((2, 1), (0, 1)), ((), ())),
        product((3, 5, 2, 1, 4), (3, 5, 2, 4), ((4,), (3,)), ((0, 2), (0, 2)), symbols=(0, 1)),
        # Attention's weighted values: the batch is the first axis of one, and the second of the other.
        Case(
            lambda x, y: lax.dot_general(x, y[None], (((1,), (4,)), ((0, 2), (1, 2)))),
            (floats(3, 6, 2, 4), floats(3, 2, 5, 6)),
            lambda x, y: np.einsum("bkhd,bhqk->bhdq", x, y)[:, :, :, None],
            (0, 1),
        ),
        product((4,), (3, 4), ((0,), (1,)), ((), ()), symbols=(1,)),
        product((3, 4), (4,), ((1,), (0,)), ((), ())),
        product((3, 4), (2, 5), ((), ()), ((), ())),
        product((3, 5), (5, 4), ((1,), (0,)), ((), ()), of=integers),
    ],
    "eq": compared("eq", np.equal),
    "erf": unary(lax.erf, ERF, SOME),
    "erfc": unary(lax.erfc, lambda x: 1 - ERF(x), SOME),
    "exp": unary(lax.exp, np.exp, SOME),
    "floor": unary(lax.floor, np.floor, SOME),
    "gather": [
        Case(lambda x: x[:, 3], (floats(3, 5, 2),), lambda x: x[:, 3]),
        Case(lambda x: x[..., -1, None], (floats(3, 5, 2),), lambda x: x[..., -1, None]),
        Case(lambda x: x[:, 1:], (floats(3, 5, 2),), lambda x: x[:, 1:]),
        Case(lambda x: x[:, COLUMNS], (floats(3, 5, 2),), lambda x: x[:, COLUMNS]),
        Case(lambda x: x[:, :, COLUMNS[None]], (floats(3, 2, 5),), lambda x: x[:, :, COLUMNS[None]]),
        Case(
            lambda x, at: jnp.take(x, at, axis=1, mode="clip"),
            (floats(3, 5), np.array([7, -2, 3], np.int32)),
            lambda x, at: x[:, [4, 0, 3]],
        ),
        Case(lambda x: x[:, 1], (integers(3, 4),), lambda x: x[:, 1]),
        # The place of each number for itself; what lies outside is NaN where it is filled, and clipped where not.
        Case(
            lambda x, at: along(x, at, "clip"),
            (floats(3, 5, 2), integers(3, 4, 2, low=0, high=5)),
            lambda x, at: np.take_along_axis(x, at, 1),
            (0, 1),
        ),
        Case(
            lambda x, at: along(x, at, "clip"),
            (floats(3, 5), np.array([[9], [0], [5]], np.int32)),
            lambda x, at: np.take_along_axis(x, np.minimum(at, 4), 1),
            (0, 1),
        ),
        Case(
            lambda x, at: along(x, at, "fill"),
            (floats(3, 5), np.array([[9, 1], [-1, 2], [5, 4]], np.int32)),
            lambda x, at: np.where((at < 5), np.take_along_axis(x, at % 5, 1), np.nan),
            (0, 1),
        ),
    ],
    "ge": compared("ge", np.greater_equal),
    "gt": compared("gt", np.greater),
    "integer_pow": unary(lambda x: lax.integer_pow(x, 3), lambda x: x**3, SOME)
    + unary(lambda x: lax.integer_pow(x, 2), np.square, SOME)
    + unary(lambda x: lax.integer_pow(x, -2), lambda x: 1 / x**2, positive(3, 4)),
    "iota": [
        Case(
            lambda x: x + lax.broadcasted_iota(jnp.float32, (x.shape[0], 5), 1),
            (floats(3, 5),),
            lambda x: x + np.arange(5),
        ),
        Case(
            lambda x: lax.broadcasted_iota(jnp.int32, (x.shape[0], 5), 1),
            (floats(3, 5),),
            lambda x: np.tile(np.arange(5), (len(x), 1)),
        ),
    ],
    "jit": [Case(jax.jit(lambda x: jnp.sin(x) * x), (SOME,), lambda x: np.sin(x) * x)],
    "le": compared("le", np.less_equal),
    "log": unary(lax.log, np.log, positive(3, 4)),
    "logistic": unary(lax.logistic, lambda x: 1 / (1 + np.exp(-x)), SOME),
    "lt": compared("lt", np.less),
    "max": binary(lax.max, np.maximum),
    "min": binary(lax.min, np.minimum),
    "mul": binary(lax.mul, np.multiply),
    "ne": compared("ne", np.not_equal),
    "neg": unary(lax.neg, np.negative, SOME) + unary(lax.neg, np.negative, integers(3, 4)),
    "not": unary(lax.bitwise_not, np.logical_not, truths(3, 4)),
    "or": [Case(lax.bitwise_or, (truths(3, 5), truths(3, 5)), np.logical_or, (0, 1))],
    "pad": [
        Case(
            lambda x: lax.pad(x, jnp.float32(7), ((0, 0, 0), (2, 1, 0))),
            (floats(3, 4),),
            lambda x: np.pad(x, ((0, 0), (2, 1)), constant_values=7),
        ),
        Case(
            lambda x: lax.pad(x, jnp.float32(7), ((0, 0, 0), (-1, 2, 0))),
            (floats(3, 4),),
            lambda x: np.pad(x[:, 1:], ((0, 0), (0, 2)), constant_values=7),
        ),
    ],
    "reduce_and": reduced(lambda x, axes: lax.reduce_and(x, axes), np.all, truths(3, 2, 2)),
    "reduce_max": reduced(lambda x, axes: lax.reduce_max(x, axes), np.max, SOME)
    + reduced(lambda x, axes: lax.reduce_max(x, axes), np.max, integers(3, 4, 2)),
    "reduce_min": reduced(lambda x, axes: lax.reduce_min(x, axes), np.min, SOME),
    "reduce_or": reduced(lambda x, axes: lax.reduce_or(x, axes), np.any, truths(3, 2, 2)),
    "reduce_sum": reduced(lambda x, axes: lax.reduce_sum(x, axes), np.sum, SOME)
    + reduced(lambda x, axes: lax.reduce_sum(x, axes), np.sum, integers(3, 4, 2)),
    "reduce_window_max": [
        pooled((2, 12, 3), window=(1, 3, 1), strides=(1, 2, 1), padding=((0, 0), (1, 1), (0, 0))),
        pooled((2, 13, 3), window=(1, 4, 1), strides=(1, 4, 1), padding=((0, 0), (1, 2), (0, 0))),
        pooled((2, 13, 3), window=(1, 3, 1), strides=(1, 1, 1), padding=((0, 0), (2, 0), (0, 0)), dilation=(1, 2, 1)),
        pooled((2, 7, 3), window=(1, 2, 1), strides=(1, 3, 1), padding=((0, 0), (0, 1), (0, 0))),
        pooled((2, 7, 3), window=(1, 2, 1), strides=(1, 2, 1), padding=((0, 0), (-1, 0), (0, 0))),
        pooled((2, 3, 9), window=(1, 1, 3), strides=(1, 1, 2), padding=((0, 0), (0, 0), (1, 0))),
        pooled((2, 6, 5, 3), window=(1, 2, 3, 1), strides=(1, 2, 1, 1), padding=((0, 0), (0, 1), (1, 1), (0, 0))),
    ],
    "reshape": [
        Case(lambda x: x.reshape(-1, 4, 3), (floats(3, 2, 6),), lambda x: x.reshape(-1, 4, 3)),
        Case(lambda x: x.reshape(x.shape[0] * 6, 2), (floats(3, 2, 6),), lambda x: x.reshape(-1, 2)),
        Case(
            lambda x: x.reshape(-1, 2, 2, 3)[:, 0].reshape(-1),
            (floats(3, 2, 6),),
            lambda x: x.reshape(-1, 2, 2, 3)[:, 0].reshape(-1),
        ),
        # What was transposed before is put in order first.
        Case(
            lambda x: x.transpose(2, 0, 1).reshape(6, -1),
            (floats(3, 2, 6),),
            lambda x: x.transpose(2, 0, 1).reshape(6, -1),
        ),
    ],
    "rsqrt": unary(lax.rsqrt, lambda x: 1 / np.sqrt(x), positive(3, 4)),
    "scan": [
        Case(scanned, (floats(2, 3), floats(4, 3), floats(4)), scanned_by_hand),
        Case(
            lambda *each: scanned(*each, reverse=True),
            (floats(2, 3), floats(4, 3), floats(4)),
            lambda *each: scanned_by_hand(*each, reverse=True),
        ),
    ],
    "select_n": [
        Case(lax.select_n, (truths(3, 4), floats(3, 4), floats(3, 4)), lambda c, x, y: np.where(c, y, x), (0, 1, 2)),
        Case(lambda x: lax.select_n(x.sum() > 0, x, -x), (floats(3, 4),), lambda x: -x if x.sum() > 0 else x, ()),
    ],
    "sin": unary(lax.sin, np.sin, SOME),
    "slice": [
        Case(
            lambda x: lax.slice(x, (0, 1, 0), (x.shape[0], 6, 2), (1, 2, 1)), (floats(3, 7, 2),), lambda x: x[:, 1:6:2]
        ),
        Case(lambda x: lax.slice(x, (0, 1), (x.shape[0], 3)), (integers(3, 4),), lambda x: x[:, 1:3]),
    ],
    "sort": [
        Case(lambda x, axis=axis: lax.sort(x, dimension=axis), (TIES,), lambda x, axis=axis: np.sort(x, axis))
        for axis in (1, 2)
    ]
    + [Case(lambda x: jnp.median(x, axis=1), (floats(3, n, 2),), lambda x: np.median(x, axis=1)) for n in (6, 7)],
    "split": [
        Case(lambda x: lax.split(x, (1, 3, 2), 1), (floats(3, 6, 2),), lambda x: [x[:, :1], x[:, 1:4], x[:, 4:]]),
        Case(lambda x: lax.split(x, (2, 0, 2), 1)[::2], (floats(3, 4),), lambda x: [x[:, :2], x[:, 2:]]),
    ],
    "sqrt": unary(lax.sqrt, np.sqrt, positive(3, 4)),
    "square": unary(lax.square, np.square, SOME),
    "squeeze": [Case(lambda x: lax.squeeze(x, (1, 3)), (floats(3, 1, 4, 1),), lambda x: x[:, 0, :, 0])],
    "stack": [
        Case(
            lambda x, axis=axis: jnp.stack([x, -x], axis=axis),
            (floats(3, 4),),
            lambda x, axis=axis: np.stack([x, -x], axis),
        )
        for axis in (0, 1, 2)
    ],
    "stop_gradient": unary(lax.stop_gradient, lambda x: x, SOME),
    "sub": binary(lax.sub, np.subtract),
    "tanh": unary(lax.tanh, np.tanh, SOME),
    "transpose": [
        Case(
            lambda x, order=order: lax.transpose(x, order),
            (floats(3, 2, 4),),
            lambda x, order=order: x.transpose(order),
        )
        for order in ((1, 2, 0), (2, 1, 0), (0, 2, 1))
    ]
    + [
        # Computed in another order of axes, with a broadcast array, a transposed one and a scalar.
        Case(
            lambda x, y: (
                x.transpose(0, 2, 1) * y[None, :, None]
                + x.transpose(0, 2, 1).sum(2, keepdims=True)
                - 2 * (x * x).transpose(0, 2, 1)
            ),
            (floats(3, 2, 4), floats(4)),
            lambda x, y: (x * y + x.sum(1, keepdims=True) - 2 * x * x).transpose(0, 2, 1),
        ),
    ],
    "unstack": [
        Case(
            lambda x, axis=axis: jnp.unstack(x, axis=axis),
            (floats(3, 2, 4),),
            lambda x, axis=axis: [*np.moveaxis(x, axis, 0)],
        )
        for axis in (1, 2)
    ],
}

#: Primitives that JAX itself does not write any more, or only below others.
#: Primitives that a newer or older JAX calls otherwise, or makes of others.
NAMED_OTHERWISE = ("remat2", "square", "stack", "stop_gradient")
NOT_WRITTEN = {"checkpoint", "closed_call", "pjit"}


def test_every_primitive_that_is_converted_has_a_case():
    assert set(CASES) | NOT_WRITTEN == set(supported())


@pytest.mark.parametrize(
    ("primitive", "case"),
    [
        pytest.param(name, case, id=f"{name}-{number}")
        for name, cases in CASES.items()
        for number, case in enumerate(cases)
    ],
)
def test_onnxruntime_computes_what_numpy_does(primitive, case):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        out, trace = run(case.function, case.arguments, batched=case.batched)
    assert primitive in primitives_of(trace.jaxpr) | set(NAMED_OTHERWISE)
    wide = [each.astype(np.float64) if each.dtype == np.float32 else each for each in case.arguments]
    expected = case.expected(*wide)
    for one, other in zip(out, expected if isinstance(expected, list) else [expected], strict=True):
        assert one.shape == np.shape(other)
        # A few roundings of float32 at the scale of the numbers.
        np.testing.assert_allclose(one, other, rtol=5e-6, atol=2e-6 * np.nanmax(np.abs(other).astype(float), initial=1))
