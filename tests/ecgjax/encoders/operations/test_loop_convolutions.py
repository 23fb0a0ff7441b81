"""Convolutions within loops: equal to XLA's in value and gradients, and of the form that its CPU kernels take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from ecgjax import encoders
from ecgjax.encoders.operations.loop_convolutions import convolution_in_loop, takes_loop_form, within_loop
from ecgjax.encoders.operations.portability import portable
from ecgjax.training import device_mesh
from ecgjax.training.micro_batches import map_parts

DIMENSIONS = ("NWC", "WIO", "NWC")
RNG = np.random.default_rng(0)


def plain(x, kernel, *, stride, padding):
    return jax.lax.conv_general_dilated(x, kernel, (stride,), [padding], dimension_numbers=DIMENSIONS)


@pytest.mark.parametrize("time", [37, 40])
@pytest.mark.parametrize(
    ("length", "stride", "padding"),
    [(3, 1, (1, 1)), (3, 2, (1, 1)), (1, 2, (0, 0)), (9, 2, (4, 3)), (7, 3, (0, 5)), (4, 4, (0, 0)), (5, 1, (4, 0))],
)
def test_value_and_gradients_are_those_of_the_convolution(length, stride, padding, time):
    x, kernel = RNG.normal(size=(4, time, 3)), RNG.normal(size=(length, 3, 5))
    weights = RNG.normal(size=plain(x, kernel, stride=stride, padding=padding).shape)

    def total(convolution):
        def of(x, kernel):
            return jnp.sum(convolution(x, kernel, stride=stride, padding=padding) * weights)

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1)))

    with jax.enable_x64(True):
        expected, found = total(plain)(x, kernel), total(convolution_in_loop)(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), expected, found)


def test_the_form_is_for_loops_on_cpus_in_float32_alone():
    assert not takes_loop_form(jnp.float32)
    with within_loop():
        assert takes_loop_form(jnp.float32)
        assert not takes_loop_form(jnp.bfloat16)
        with portable():
            assert not takes_loop_form(jnp.float32)
    assert not takes_loop_form(jnp.float32)


def convolutions(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params["dimension_numbers"]
        for inner in core.jaxprs_in_params(equation.params):
            yield from convolutions(inner)


@pytest.mark.parametrize("name", ["lead_resnet:small", "resnet18:small", "physio_transformer:small"])
def test_every_convolution_of_an_encoded_part_and_of_its_gradient_has_the_fast_form(name):
    encoder = encoders.create(name, seed=0)
    mesh = device_mesh.make_mesh(devices=jax.devices()[:1])

    def loss(params, ecg):
        def part(carry, rows):
            with jax.numpy_rank_promotion("allow"):
                model = nnx.merge(encoder.graph, params, encoder.stats)
                return carry + jnp.sum(model(rows, train=False) ** 2), None

        return map_parts(part, jnp.float32(0), ecg, parts=2, mesh=mesh)[0]

    program = jax.make_jaxpr(jax.grad(loss))(encoder.params, jnp.zeros((4, 250, 12)))
    forms = list(convolutions(program.jaxpr))
    fast = jax.lax.conv_dimension_numbers((1, 9, 3), (3, 3, 5), DIMENSIONS)
    assert len(forms) > 5
    assert {*forms} == {fast}
