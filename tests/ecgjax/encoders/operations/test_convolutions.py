"""Convolutions written as ordinary ones against those of flax and XLA."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ecgjax.encoders.operations.convolutions import DoublingConv, grouped_conv


def test_transposed_values_gradients_and_initialisation_are_those_of_flax():
    init = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
    common = {"kernel_init": init, "dtype": jnp.float32}
    ours = DoublingConv(3, 5, rngs=nnx.Rngs(0), **common)
    theirs = nnx.ConvTranspose(
        3, 5, kernel_size=(4,), strides=(2,), padding="SAME", use_bias=False, rngs=nnx.Rngs(0), **common
    )
    np.testing.assert_array_equal(ours.kernel[...], theirs.kernel[...])
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 3)), jnp.float32)
    given = jnp.asarray(rng.normal(size=(2, 14, 5)), jnp.float32)

    def value_and_gradients(layer):
        graph, params = nnx.split(layer)

        @jax.jit
        def program(params, x):
            y, gradient = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
            return y, *gradient(given)

        y, of_params, of_x = program(params, x)
        return y, of_params["kernel"][...], of_x

    for mine, expected in zip(value_and_gradients(ours), value_and_gradients(theirs), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


def test_groups_apart_are_one_grouped_convolution():
    rng = np.random.default_rng(0)
    x, kernel, given = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 9, 6), (4, 2, 9), (2, 9, 9)))

    def value_and_gradients(apart):
        conv = lambda x, kernel: grouped_conv(x, kernel, groups=3, padding=(2, 1), apart=apart)  # noqa: E731

        @jax.jit
        def program(x, kernel):
            y, gradient = jax.vjp(conv, x, kernel)
            return y, *gradient(given)

        return program(x, kernel)

    for mine, expected in zip(value_and_gradients(True), value_and_gradients(False), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)
