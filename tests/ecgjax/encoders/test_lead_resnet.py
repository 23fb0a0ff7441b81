"""LeadResNet: leads that share weights, one embedding of a recording, amplitudes that count, and what it costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.encoders.cost import macs
from ecgjax.encoders.token_pool import Pool
from ecgjax.errors import ConfigError
from tests.ecgjax.encoders.test_all import DIM, LEADS, create, draw


def run(ecg):
    """Tokens, features and embeddings of the tiny form, by one program for all tests."""
    encoder = create("lead_resnet")
    return jax.device_get(_run(encoder.graph, *encoder[1:], ecg))


@functools.partial(jax.jit, static_argnums=0)
def _run(graph, params, stats, ecg):
    module = encoders.merge(encoders.Split(graph, params, stats))
    return [method(ecg, train=False) for method in (module.tokens, module.features, module)]


def test_a_recording_has_one_embedding_whatever_the_order_of_its_leads():
    ecg, order = draw(2)[0], np.random.default_rng(1).permutation(LEADS)
    tokens, features, embeddings = run(ecg)
    other, same, again = run(ecg[:, :, order])
    assert embeddings.shape == (2, DIM)
    by_lead = tokens.reshape(2, LEADS, -1, tokens.shape[2])
    np.testing.assert_allclose(other.reshape(by_lead.shape), by_lead[:, order], rtol=1e-5, atol=1e-6)
    assert np.abs(by_lead[:, order] - by_lead).max() > 1e-2
    np.testing.assert_allclose(same, features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again, embeddings, rtol=1e-4, atol=1e-6)


def test_amplitude_is_not_normalised_away():
    ecg = draw(2)[0]
    _, features, _ = run(ecg)
    _, doubled, _ = run(2 * ecg)
    assert np.abs(doubled - features).max() > 0.2 * np.abs(features).max()


@pytest.mark.parametrize(("name", "blocks"), [("lead_resnet:small", 1), ("lead_resnet", 2)])
def test_cost_and_parameters_are_those_of_its_layers(name, blocks):
    widths = {"lead_resnet:small": (32,), "lead_resnet": (64, 128, 256)}[name]
    places, width_in = 125, widths[0]  # Of ten seconds at 100 Hz, behind strides of 2 and 4.
    weights, norms, products = 9 * width_in, width_in, 500 * 9 * width_in
    for stage, width in enumerate(widths):
        of_stage = 3 * width_in * width + (2 * blocks - 1) * 3 * width * width
        norms += 2 * blocks * width
        if stage > 0:  # The first block halves the time, and its skip is a 1×1 convolution.
            places, of_stage, norms = -(-places // 2), of_stage + width_in * width, norms + width
        weights, products, width_in = weights + of_stage, products + places * of_stage, width
    head = 2 * width_in * 128
    encoder = encoders.abstract(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(encoder.params)) == weights + 2 * norms + head + 128
    assert macs(encoder, (1000, 12)) == 12 * products + head


def test_the_small_form_takes_at_most_15_mmac_at_100_hz():
    assert macs(encoders.abstract("lead_resnet:small"), (1000, 12)) <= 15e6


def test_stages_need_a_number_of_blocks_each():
    with pytest.raises(ConfigError, match=r"widths=\(8, 16\) and .*num_blocks=\(1,\) must have one number"):
        encoders.abstract("lead_resnet", widths=(8, 16), num_blocks=(1,))


def test_the_deviation_of_tokens_has_a_gradient_even_where_a_channel_is_silent():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    tokens[:, :, 1] = 0
    mask = np.array([[True] * 5, [True, True, False, False, False]])

    def total(tokens, mask):
        return jnp.sum(Pool("mean and deviation")(tokens, mask)[:, 3:])

    for counts in (None, mask):
        gradient = np.asarray(jax.jit(jax.grad(total))(tokens, counts))
        kept = np.ones_like(mask) if counts is None else mask
        for row in range(2):
            there = tokens[row][kept[row]].astype(np.float64)
            apart, deviation = there - there.mean(0), np.broadcast_to(there.std(0), there.shape)
            expected = np.divide(apart, len(there) * deviation, out=np.zeros_like(apart), where=deviation > 0)
            np.testing.assert_allclose(gradient[row][kept[row]], expected, rtol=1e-4, atol=1e-6)
            assert (gradient[row][~kept[row]] == 0).all()
