"""Max-pooling against `nnx.max_pool`, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax.encoders.operations.pooling import max_pool


@pytest.mark.parametrize(
    ("length", "window", "stride", "padding", "dtype"),
    [
        (20, 3, 2, (1, 1), jnp.float32),
        (19, 3, 2, (1, 1), jnp.bfloat16),
        (18, 4, 4, "VALID", jnp.float32),
        (17, 4, 4, "SAME", jnp.float32),
        (20, 2, 3, (0, 0), jnp.float32),
        (300, 128, 64, "VALID", jnp.float32),
    ],
)
def test_values_and_gradients_are_those_of_nnx(length, window, stride, padding, dtype):
    rng = np.random.default_rng(0)
    # After a ReLU, in coarse steps: most windows have several greatest samples, and many are all zero.
    x = jnp.asarray(np.maximum(np.round(rng.normal(size=(2, length, 3)) * 2), 0), dtype)
    ours = lambda x: max_pool(x, window=window, stride=stride, padding=padding)  # noqa: E731
    known = padding if isinstance(padding, str) else (padding,)
    theirs = lambda x: nnx.max_pool(x, window_shape=(window,), strides=(stride,), padding=known)  # noqa: E731
    shape = jax.eval_shape(theirs, x).shape
    g = jnp.asarray(rng.integers(1, 9, size=shape), dtype)

    def value_and_gradient(function):
        @jax.jit
        def program(x, g):
            y, gradient = jax.vjp(function, x)
            return y, *gradient(g)

        return program(x, g)

    for found, expected in zip(value_and_gradient(ours), value_and_gradient(theirs), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_padding_has_no_gradient():
    x = jnp.full((1, 5, 1), -3.0)
    gradient = jax.grad(lambda x: max_pool(x, window=3, stride=2, padding=(1, 1)).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, 0], [1, 1, 0, 1, 0])


def test_windows_too_long_to_note_are_refused():
    with pytest.raises(ValueError, match="window=129 samples, at most 128 are possible"):
        max_pool(jnp.zeros((1, 200, 1)), window=129, stride=1)
