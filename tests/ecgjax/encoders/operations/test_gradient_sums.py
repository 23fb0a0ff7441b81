"""Products whose kernels get float32 gradients: the same values forwards, and the sums of float64 backwards."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax.encoders import cost
from ecgjax.encoders.operations.convolutions import DoublingConv, grouped_conv
from ecgjax.encoders.operations.gradient_sums import Linear, convolution, gradients_summed_in, spread
from ecgjax.encoders.operations.layers import PARAM_DTYPE, conv
from ecgjax.encoders.operations.portability import portable
from ecgjax.errors import ConfigError

RNG = np.random.default_rng(0)
BF16 = jnp.bfloat16


def array(*shape):
    """Numbers that bfloat16 has, so that casts round nothing."""
    return jnp.asarray(RNG.normal(size=shape), BF16).astype(jnp.float32)


def linear(x, *, dtype=BF16):
    layer = Linear(x.shape[-1], 5, dtype=dtype, param_dtype=PARAM_DTYPE, rngs=nnx.Rngs(0))
    return layer, lambda layer, x: layer(x)


def convolved_by_one_sample(x, *, dtype):
    return conv(x.shape[-1], 5, kernel=1, dtype=dtype, rngs=nnx.Rngs(0)), lambda layer, x: layer(x)


def convolved(stride, padding):
    def make(x):
        layer = conv(x.shape[-1], 5, kernel=3, stride=stride, padding=padding, dtype=BF16, rngs=nnx.Rngs(0))
        return layer, lambda layer, x: layer(x)

    return make


def doubled(x):
    init = nnx.initializers.normal(1.0)
    return DoublingConv(x.shape[-1], 5, kernel_init=init, dtype=BF16, rngs=nnx.Rngs(0)), lambda layer, x: layer(x)


LAYERS = {
    "linear": linear,
    **{
        f"convolution, stride {stride}, {padding or 'both sides'}": convolved(stride, padding)
        for stride, padding in itertools.product((1, 2, 3), (None, "SAME", "VALID"))
    },
    "doubling": doubled,
}


def exactly(graph, apply, params, x, weight):
    """Gradients in float64 arithmetic, of a layer that computes in it."""
    with jax.enable_x64(True):

        def wide(leaf):
            return jnp.asarray(np.asarray(leaf, np.float64))

        layer = nnx.merge(graph, jax.tree.map(wide, params))
        layer.dtype = jnp.float64
        graph, params = nnx.split(layer)

        def loss(params, x):
            return (apply(nnx.merge(graph, params), x) * wide(weight)).sum()

        return jax.device_get(jax.grad(loss, argnums=(0, 1))(params, wide(x)))


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_get_the_gradient_of_exact_sums_and_values_stay(name):
    x = array(6, 31, 4)
    layer, apply = LAYERS[name](x)
    graph, params = nnx.split(layer)
    params = jax.tree.map(lambda leaf: leaf.astype(BF16).astype(jnp.float32), params)
    narrow = apply(layer, x)
    weight = array(*narrow.shape)

    def loss(params, x, reduce):
        with gradients_summed_in(reduce):
            y = apply(nnx.merge(graph, params), x)
        return (y.astype(jnp.float32) * weight).sum(), y

    (found, of_x), y = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x, "float32")
    (before, of_x_before), y_before = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x, "bfloat16")
    assert y.dtype == BF16
    np.testing.assert_array_equal(y.astype(jnp.float32), y_before.astype(jnp.float32))
    np.testing.assert_array_equal(of_x, of_x_before)
    expected, _ = exactly(graph, apply, params, x, weight)
    for ours, theirs, exact in zip(*map(jax.tree.leaves, (found, before, expected)), strict=True):
        scale = np.abs(exact).max()
        # Roundings of float32 in a sum of two hundred; a number of bfloat16 is rounded at the ninth bit.
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-6 * scale)
        assert np.abs(theirs - exact).max() > 1e-4 * scale


@pytest.mark.parametrize("apart", [True, False])
def test_groups_get_the_gradient_of_their_channels(apart):
    x, kernel, weight = array(5, 17, 6).astype(BF16), array(4, 2, 9), array(5, 17, 9)

    def loss(kernel, reduce):
        with gradients_summed_in(reduce):
            y = grouped_conv(x, kernel, groups=3, padding=(2, 1), apart=apart)
        return (y.astype(jnp.float32) * weight).sum()

    found = jax.grad(loss)(kernel, "float32")
    wide = jax.grad(
        lambda k: (grouped_conv(x.astype(jnp.float32), k, groups=3, padding=(2, 1), apart=apart) * weight).sum()
    )(kernel)
    np.testing.assert_allclose(found, wide, rtol=0, atol=1e-6 * np.abs(wide).max())
    assert np.abs(jax.grad(loss)(kernel, "bfloat16") - wide).max() > 1e-4 * np.abs(wide).max()


def test_what_is_added_to_all_rows_gets_a_float32_sum():
    weight = array(300, 3)

    def loss(bias, reduce):
        with gradients_summed_in(reduce):
            added = spread(bias, shape=weight.shape, dtype=BF16)
        return ((jnp.zeros(weight.shape, BF16) + added).astype(jnp.float32) * weight).sum()

    exact = np.asarray(weight, np.float64).sum(0)
    bias = jnp.zeros((1, 3))
    np.testing.assert_allclose(jax.grad(loss)(bias, "float32")[0], exact, rtol=1e-5)
    assert np.abs(jax.grad(loss)(bias, "bfloat16")[0] / exact - 1).max() > 1e-4


def test_float32_layers_are_those_of_flax_in_either_case():
    x = array(2, 9, 4)
    layer = conv(4, 5, kernel=3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    traces = []
    for reduce in ("float32", "bfloat16"):
        with gradients_summed_in(reduce):
            traces.append(str(jax.make_jaxpr(lambda x: layer(x))(x)))
    assert traces[0] == traces[1]
    assert "custom_vjp" not in traces[0]


@pytest.mark.parametrize("make", [convolved_by_one_sample, linear], ids=["convolution", "linear"])
def test_float32_kernels_of_one_sample_get_a_product_of_matrices_on_cpus(make):
    x = array(6, 31, 4)
    layer, apply = make(x, dtype=jnp.float32)
    graph, params = nnx.split(layer)
    weight = array(6, 31, 5)

    def gradient(params, x):
        return jax.grad(lambda params, x: (apply(nnx.merge(graph, params), x) * weight).sum(), argnums=(0, 1))(
            params, x
        )

    expected = exactly(graph, apply, params, x, weight)
    for ours, exact in zip(*map(jax.tree.leaves, (gradient(params, x), expected)), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-6 * np.abs(exact).max())
    # A product that sums over rows and time at once has its activations copied into the other order.
    program = jax.jit(gradient).lower(params, x).compile().as_text()
    assert "lhs_contracting_dims={0}, rhs_contracting_dims={0}" in program
    with portable():
        assert "custom_vjp" not in str(jax.make_jaxpr(lambda params: apply(nnx.merge(graph, params), x))(params))


def test_no_gradient_is_computed_that_nobody_wants():
    """Neither of a frozen kernel nor of the input of a first layer, as without the products of here."""
    x, kernel = array(3, 8, 4), array(3, 4, 5)

    def loss(x, kernel):
        return convolution(x.astype(BF16), kernel, padding=(1, 1)).astype(jnp.float32).sum()

    for wanted in ((0,), (1,), (0, 1)):
        counts = []
        for reduce in ("float32", "bfloat16"):
            with gradients_summed_in(reduce):
                counts.append(cost.macs_of(jax.grad(loss, argnums=wanted), x, kernel))
        assert counts[0] == counts[1]


def test_a_type_that_is_none_is_refused():
    with (
        pytest.raises(ConfigError, match=r"config\.mesh\.reduce='float16' is unknown"),
        gradients_summed_in("float16"),
    ):
        pass
