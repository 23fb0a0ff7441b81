"""Batch normalisation against float64, whatever the mean is beside the deviation."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.layers import BatchNorm
from ecgjax.encoders.operations.portability import portable
from ecgjax.training import device_mesh
from tests.support import plain_networks

BATCH, LENGTH, CHANNELS = 16, 250, 4


def activations(offset, *, length=LENGTH):
    """Channels of deviation 1 around an offset, rows a little apart: `f32[batch, time, channel]`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, length, CHANNELS)) + 0.3 * rng.normal(size=(BATCH, 1, CHANNELS))
    return (x + offset * np.array([1, -1, 0.5, 2])).astype(np.float32)


def in_float64(x, valid):
    """Normalised values and the gradient of their sines' sum in `x`, and the variance, by two passes."""
    x = np.asarray(x, np.float64)
    rows = x[valid]
    number, mean = rows.shape[0] * rows.shape[1], rows.mean((0, 1))
    var = ((rows - mean) ** 2).mean((0, 1))
    scale = 1 / np.sqrt(var + 1e-5)
    y = (x - mean) * scale
    g = np.where(valid[:, None, None], np.cos(y), 0)
    gradient = scale * (g - g.sum((0, 1)) / number - y * (g * y).sum((0, 1)) / number)
    return y, np.where(valid[:, None, None], gradient, 0), var


@functools.cache
def program():
    @jax.jit
    def run(x, valid):
        def value(x):
            norm = BatchNorm(CHANNELS, dtype=jnp.dtype("float32"))
            y = norm(x, train=True, valid=valid)
            return jnp.where(valid[:, None, None], jnp.sin(y), 0.0).sum(), (y, norm.var[...])

        (_, (y, var)), gradient = jax.value_and_grad(value, has_aux=True)(x)
        return y, gradient, var

    return run


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("offset", [0, 1, 100, 1_000, 10_000])
def test_no_digits_are_lost_to_a_large_mean(offset, masked):
    x, valid = activations(offset), np.ones(BATCH, bool)
    if masked:
        valid[[0, 3, 4]] = False
        x[0], x[3] = 0.0, 1e6  # Silence, as rows are that could not be read, and anything else.
    y, gradient, var = program()(x, valid)
    expected, expected_gradient, expected_var = in_float64(x, valid)
    # The mean itself is a float32: half a last bit of it is what the output cannot be nearer than.
    last_bit = np.spacing(np.float32(2 * offset + 1))
    np.testing.assert_allclose(y[valid], expected[valid], atol=3e-6 + last_bit, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5 + 2 * last_bit)
    np.testing.assert_allclose(var, 0.9 + 0.1 * expected_var, rtol=2e-5)


@pytest.mark.parametrize("length", [1, 2])
def test_rows_of_one_or_two_samples(length):
    x, valid = activations(1_000, length=length), np.ones(BATCH, bool)
    y, gradient, var = program()(x, valid)
    expected, expected_gradient, expected_var = in_float64(x, valid)
    np.testing.assert_allclose(y, expected, atol=3e-4)
    np.testing.assert_allclose(gradient, expected_gradient, atol=6e-4)
    np.testing.assert_allclose(var, 0.9 + 0.1 * expected_var, rtol=1e-4)


def test_a_constant_channel_has_no_variance_and_a_finite_gradient():
    x = np.full((BATCH, LENGTH, CHANNELS), 12_345.678, np.float32)
    y, gradient, var = program()(x, np.ones(BATCH, bool))
    np.testing.assert_allclose(y, 0, atol=1)  # √ε divides half a last bit of the mean.
    np.testing.assert_allclose(var, 0.9, atol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("devices", [2, 8])
def test_devices_join_their_rows(devices):
    x, valid = activations(10_000), np.ones(BATCH, bool)
    valid[5] = False
    sharding = device_mesh.batch_sharding(device_mesh.make_mesh(devices=jax.devices()[:devices]))
    found = program()(*(jax.device_put(array, sharding) for array in (x, valid)))
    for ours, one in zip(found, program()(x, valid), strict=True):
        np.testing.assert_allclose(ours, one, atol=4e-3, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("which", ["all", "some", "none"])
def test_the_gradient_is_that_of_the_textbook_for_either_type_and_any_rows(which, dtype):
    rng = np.random.default_rng(1)
    x, upstream = (jnp.asarray(rng.normal(size=(BATCH, LENGTH, CHANNELS)) + 0.5, dtype) for _ in range(2))
    scale, bias, mean, var = (jnp.asarray(np.abs(rng.normal(size=CHANNELS)) + 0.1, jnp.float32) for _ in range(4))
    weight = jnp.asarray(
        {"all": np.ones, "none": np.zeros}.get(which, lambda n: np.arange(n) % 3 > 0)(BATCH), jnp.float32
    )
    if which == "none":
        upstream = jnp.zeros_like(upstream)  # Nothing is asked of rows that are not there.

    def gradients(normalise):
        def loss(x, scale, bias):
            y, *_ = normalise(x, weight, scale, bias, mean, var, 1e-5)
            return jnp.sum(upstream.astype(jnp.float32) * y)

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, scale, bias)

    for ours, theirs in zip(gradients(layers._normalise), gradients(plain_networks._normalise), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = (np.asarray(g, np.float32) for g in (ours, theirs))
        last_bit = 2.0**-7 if dtype == "bfloat16" and ours.ndim == 3 else 2e-6
        np.testing.assert_allclose(ours, theirs, atol=last_bit * max(np.abs(theirs).max(), 1e-30), rtol=last_bit)


def rectified_in_float64(x, skip, valid, scale, bias, upstream):
    """Activations after skip and ReLU, and the gradients in `x`, skip, scale and bias, by the textbook's formulas."""
    x, skip, upstream = (np.asarray(each, np.float64) for each in (x, skip, upstream))
    rows = x[valid]
    mean, var = rows.mean((0, 1)), rows.var((0, 1))
    rate = 1 / np.sqrt(var + 1e-5)
    normal = (x - mean) * rate
    y = np.maximum(normal * scale + bias + skip, 0)
    g = np.where(y > 0, upstream, 0)
    total, along = g.sum((0, 1)), (g * normal).sum((0, 1))
    shares = valid[:, None, None] / (rows.shape[0] * rows.shape[1])
    return y, scale * rate * (g - shares * (total + normal * along)), g, along, total


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("skips", [False, True])
def test_a_relu_behind_the_norm_and_all_gradients_are_those_of_the_textbook(skips, masked):
    rng, valid = np.random.default_rng(2), np.ones(BATCH, bool)
    valid[[0, 3, 4]] = not masked
    x, skip, upstream = activations(1), *(rng.normal(size=(2, BATCH, LENGTH, CHANNELS)).astype(np.float32))
    scale, bias = (rng.normal(size=CHANNELS).astype(np.float32) for _ in range(2))

    @jax.jit
    def run(x, skip, scale, bias):
        def apply(x, skip, scale, bias):
            norm = BatchNorm(CHANNELS, dtype=jnp.dtype("float32"))
            norm.scale[...], norm.bias[...] = scale, bias
            return norm.rectified(x, train=True, valid=valid, skip=skip if skips else None), norm.var[...]

        y, pull, var = jax.vjp(apply, x, skip, scale, bias, has_aux=True)
        return y, *pull(jnp.asarray(upstream)), var

    *found, var = run(x, skip, scale, bias)
    expected = rectified_in_float64(x, skip if skips else 0 * skip, valid, scale, bias, upstream)
    if not skips:
        assert not found.pop(2).any()
        expected = (*expected[:2], *expected[3:])
    # A value that is rounded to the other side of zero has another gradient: none of these lies so near.
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(np.abs(theirs).max(), 1))
    np.testing.assert_allclose(var, 0.9 + 0.1 * x[valid].astype(np.float64).var((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_relu_behind_running_statistics_is_that_of_jax(frozen):
    norm = BatchNorm(CHANNELS, dtype=jnp.dtype("float32"))
    norm.mean[...], norm.frozen = jnp.full(CHANNELS, 0.25), frozen
    x = jnp.asarray(activations(1)).at[0, 0].set(jnp.nan)
    skip = jnp.flip(x, 1)

    def values_and_gradients(function):
        y, pull = jax.vjp(function, x, skip)
        return y, *pull(jnp.cos(x))

    ours = values_and_gradients(lambda x, skip: norm.rectified(x, train=frozen, skip=skip))
    plainly = values_and_gradients(lambda x, skip: jax.nn.relu(skip + norm(x, train=frozen)))
    for found, expected in zip(ours, plainly, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_xla_computes_no_block_of_a_chain_again():
    norm = BatchNorm(CHANNELS, dtype=jnp.dtype("float32"))
    x = jnp.asarray(activations(1))

    def chain(x):
        for _ in range(3):
            x = norm.rectified(jnp.sin(x), train=False, skip=x)
        return x

    with portable():
        assert "inlineable" not in jax.jit(lambda x: chain(x)).lower(x).as_text()
    calls = [line for line in jax.jit(chain).lower(x).compile().as_text().splitlines() if " call(" in line]
    assert len(calls) == 3


def test_frozen_statistics_are_taken_for_constants():
    norm = BatchNorm(CHANNELS, dtype=jnp.dtype("float32"))
    norm.mean[...], norm.var[...] = jnp.full(CHANNELS, 0.25), jnp.full(CHANNELS, 4.0 - 1e-5)
    norm.frozen = True
    x = jnp.asarray(activations(1))
    gradient = jax.grad(lambda x: norm(x, train=True).sum())(x)
    np.testing.assert_allclose(norm(x, train=True), (np.asarray(x) - 0.25) / 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, 0.5, rtol=1e-6)
    np.testing.assert_array_equal(norm.mean[...], 0.25)


def test_statistics_take_one_pass_over_the_activations_where_the_textbook_takes_two():
    def two_passes(x, weight):
        share = weight[:, None, None] / (weight.sum() * x.shape[1])
        mean = (share * x).sum((0, 1))
        return mean, (share * (x - mean[None, None]) ** 2).sum((0, 1))

    assert passes(layers._moments) == 1
    assert passes(two_passes) == 2


def passes(moments):
    """The greatest number of sums over activations on a way through a trace."""
    shape = (16, 50, 8)
    trace = jax.make_jaxpr(moments)(np.zeros(shape, np.float32), np.ones(shape[0], np.float32)).jaxpr
    return max(depths(trace, [0] * len(trace.invars), size=int(np.prod(shape))))


def depths(trace, of_arguments, *, size):
    """Of each result, the greatest number of sums over arrays of a size on the ways to it."""
    depth = collections.defaultdict(int, dict(zip(trace.invars, of_arguments, strict=True)))

    def of(variable):
        return 0 if isinstance(variable, core.Literal) else depth[variable]

    for equation in trace.eqns:
        given = [of(variable) for variable in equation.invars]
        inner = list(core.jaxprs_in_params(equation.params))
        if inner:
            found = depths(inner[0], given, size=size)
        else:
            sums = equation.primitive.name == "reduce_sum" and equation.invars[0].aval.size == size
            found = [max(given, default=0) + sums] * len(equation.outvars)
        depth.update(zip(equation.outvars, found, strict=True))
    return [of(variable) for variable in trace.outvars]


def test_a_training_step_of_the_layer_reads_the_activations_twice_for_sums():
    norm = BatchNorm(CHANNELS, dtype=jnp.dtype("float32"))
    x = np.zeros((BATCH, LENGTH, CHANNELS), np.float32)

    def gradient(x, upstream):
        _, pull = jax.vjp(lambda x: layers._normalise(x, *arguments)[0], x)
        return pull(upstream)

    arguments = (jnp.ones(BATCH), norm.scale[...], norm.bias[...], norm.mean[...], norm.var[...], 1e-5)
    trace = jax.make_jaxpr(gradient)(x, x).jaxpr
    # One pass gives the statistics, and one the sums of the gradient and of its product with the activations.
    assert max(depths(trace, [0, 0], size=x.size)) == 2
