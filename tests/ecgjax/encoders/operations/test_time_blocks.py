"""Convolutions over blocks of time against XLA's, and where they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.encoders.operations import gradient_sums
from ecgjax.encoders.operations.portability import portable
from ecgjax.encoders.operations.time_blocks import block_of, convolution_over_blocks
from ecgjax.placement import target
from ecgjax.training import device_mesh
from tests.support.plain_networks import away_from_initialisation

#: (time, in, out, kernel, stride, padding, block); None for the block that is chosen.
CASES = [
    (1250, 1, 4, 7, 1, (3, 3), None),
    (2500, 1, 4, 7, 3, (0, 0), None),
    (416, 4, 16, 7, 3, (0, 0), None),
    (312, 8, 16, 3, 1, (1, 1), None),
    (61, 3, 5, 7, 2, (3, 3), 4),
    (61, 3, 5, 4, 1, (1, 2), 4),
    (17, 2, 3, 15, 1, (7, 7), 2),
    (9, 2, 3, 2, 3, (0, 0), 2),
    (9, 2, 3, 3, 1, (1, 1), 16),
]


def plain(x, kernel, stride, padding):
    dimensions = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride,), [padding], dimension_numbers=dimensions)


def arrays(time, width_in, width, length, *, batch=3):
    rng = np.random.default_rng(0)
    return (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((batch, time, width_in), (length, width_in, width))
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_xla(case):
    time, width_in, width, length, stride, padding, block = case
    x, kernel = arrays(time, width_in, width, length)
    block = block or block_of(x, kernel, stride=stride, padding=padding)
    assert block > 1

    def value_and_gradients(function):
        @jax.jit
        def program(x, kernel):
            y, gradient = jax.vjp(function, x, kernel)
            return y, *gradient(jnp.cos(y * 3))

        return program(x, kernel)

    ours = value_and_gradients(
        lambda x, kernel: convolution_over_blocks(x, kernel, stride=stride, padding=padding, block=block)
    )
    for found, expected in zip(
        ours, value_and_gradients(lambda x, kernel: plain(x, kernel, stride, padding)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "kernel", "dtype", "expected"),
    [
        ((2, 320, 1), (7, 1, 4), "float32", 8),
        ((2, 1250, 1), (7, 1, 4), "float32", 10),
        ((2, 320, 8), (3, 8, 8), "float32", 4),
        ((2, 320, 8), (3, 8, 8), "bfloat16", None),
        ((2, 320, 8), (1, 8, 8), "float32", None),
        ((2, 320, 12), (7, 12, 16), "float32", None),
        ((2, 320, 8), (7, 8, 32), "float32", None),
        ((2, 3, 1), (3, 1, 4), "float32", None),
    ],
)
def test_blocks_are_for_narrow_convolutions_in_float32(shape, kernel, dtype, expected):
    x, kernel = jnp.zeros(shape, dtype), jnp.zeros(kernel, dtype)
    padding = (len(kernel) // 2,) * 2
    assert block_of(x, kernel, stride=1, padding=padding) == expected
    with portable():
        assert block_of(x, kernel, stride=1, padding=padding) is None


def test_programs_for_other_devices_take_none(monkeypatch):
    x, kernel = jnp.zeros((2, 320, 1)), jnp.zeros((7, 1, 4))
    with target.traced_for(device_mesh.make_mesh()):
        assert block_of(x, kernel, stride=1, padding=(3, 3)) == 8
    monkeypatch.setattr(target.jax, "local_devices", lambda: [type("Device", (), {"platform": "tpu"})])
    assert block_of(x, kernel, stride=1, padding=(3, 3)) is None


@pytest.mark.parametrize("name", ["clocs_cnn:small", "temporal_net:small"])
def test_an_encoder_gives_the_same_embeddings_either_way(name, monkeypatch):
    encoder = away_from_initialisation(encoders.abstract(name, num_leads=8))
    ecg = jnp.asarray(np.random.default_rng(0).normal(size=(2, 500, 8)), jnp.float32)
    taken = []

    def embed():
        return np.asarray(jax.jit(lambda ecg: encoders.apply(encoder, ecg, train=True)[0])(ecg))

    over_blocks = embed()
    monkeypatch.setattr(gradient_sums, "block_of", lambda x, kernel, **_: taken.append(kernel.shape))
    np.testing.assert_allclose(over_blocks, embed(), atol=1e-5 * np.abs(over_blocks).max())
    assert len(taken) > 2
