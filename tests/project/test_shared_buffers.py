"""No compiled program writes a result over an array that it is still reading, as far as its text shows."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ecgjax import encoders
from ecgjax.training import assembly
from tests.project.test_configs import CASES, load, model_and_batch, shapes_alone
from tests.support.float_comparisons import comparisons_in
from tests.support.plain_networks import simulated_ecg, training_gradient
from tests.support.shared_buffers import control, shared_buffers, shared_in

SMALL = sorted(name for name in encoders.ENCODERS if name.endswith(":small"))


@pytest.mark.parametrize("reshaped", [True, False])
def test_an_array_that_is_read_in_two_shapes_is_found(reshaped):
    shapes = [(2, 64, 256), (3, 256, 256), (2, 16, 256)]
    program = jax.jit(functools.partial(control, reshaped=reshaped))
    found = shared_buffers(program, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    assert len(found) == reshaped


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, "pclr_resnet"])
def test_gradients_of_encoders_have_none(name):
    num_leads = 8 if name.startswith("temporal_net") else 12
    encoder, gradient = training_gradient(name, num_leads=num_leads)
    assert not shared_buffers(gradient, encoder.params, simulated_ecg(8, num_leads))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_steps_of_every_config_have_none_and_compare_no_computed_numbers(monkeypatch, name, variant):
    """The latter is a property of the trace (`tests/support/float_comparisons.py`), which is made for both here."""
    monkeypatch.setattr(assembly, "create_split", shapes_alone)
    model, batch = model_and_batch(load(name, variant, "small"))
    step = jax.jit(jax.value_and_grad(functools.partial(model.loss, train=True), has_aux=True))
    traced = step.trace(model.params, model.stats, batch, jax.ShapeDtypeStruct((), jnp.int32))
    compared, shared = comparisons_in(traced.jaxpr), shared_in(traced.lower())
    assert not compared
    assert not shared
