"""GELU against SciPy, and what its backward pass keeps."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from ecgjax.encoders.operations.layers import gelu

X = np.linspace(-9, 9, 4001)


def test_gelu_and_its_gradient_are_exact():
    x = X.astype(np.float32)
    y, gradient = jax.vjp(gelu, jnp.asarray(x))
    (slope,) = gradient(jnp.ones_like(y))
    exact = np.asarray(x, np.float64)
    # Last bits of an error function near 1, times the argument.
    rounding = np.finfo(np.float32).eps * (1 + np.abs(exact))
    assert (np.abs(y - exact * norm.cdf(exact)) <= rounding).all()
    assert (np.abs(slope - norm.cdf(exact) - exact * norm.pdf(exact)) <= rounding).all()


def test_gelu_of_bfloat16_is_rounded_once():
    x = jnp.asarray(X, jnp.bfloat16)
    y, gradient = jax.vjp(gelu, x)
    (slope,) = gradient(jnp.ones_like(y))
    assert y.dtype == slope.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    for found, expected in ((y, exact * norm.cdf(exact)), (slope, norm.cdf(exact) + exact * norm.pdf(exact))):
        np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2.0**-8, atol=2e-6)


def test_the_backward_pass_keeps_the_argument_alone():
    def kept(function):
        _, gradient = jax.vjp(function, jnp.zeros((3, 5)))
        return sum(leaf.size == 15 for leaf in jax.tree.leaves(gradient))

    assert kept(gelu) == 1
    assert kept(lambda x: jax.nn.gelu(x, approximate=False)) > 1
