"""The encoders in PyTorch against our own with the same weights; without PyTorch nothing is run."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.benchmarks.device.jax_side import paired_step, triplet_loss
from ecgjax.benchmarks.paired_steps import NUM_CLASSES
from ecgjax.export import flat_tensors, to_torch, torch_layouts

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

ENCODERS = ("resnet18:small", "temporal_net:small", "xresnet1d50:small", "vit_s:small")
BATCH, SAMPLES = 8, 130  # Neither poolings nor patches divide it.


def pair(name):
    """Returns the step, our encoder with scattered weights, and the copy in PyTorch with the same ones."""
    import torch

    from ecgjax.benchmarks.pytorch.torch_side import network_of

    step = paired_step(name, batch=BATCH, num_samples=SAMPLES, precision="float32")
    step = dataclasses.replace(step, settings={**step.settings, "dropout": 0.0})
    ours = encoders.create(name, seed=0, dropout=0.0)
    rng = np.random.default_rng(0)
    # Scales and statistics at 1 and 0 would hide what is left out; variances must stay above 0.
    ours = jax.tree.map(
        lambda leaf: leaf if leaf.ndim > 1 else leaf + 0.1 * np.abs(rng.standard_normal(leaf.shape, np.float32)), ours
    )
    network = network_of(step)
    state = {}
    layouts = torch_layouts(ours)
    for name, array in flat_tensors(ours).items():
        layout = layouts[name]
        path, values = name.split("/")[1:-1], to_torch(np.asarray(array), layout)
        for number, each in enumerate([values] if layout.layers is None else values):
            # The layers of a stack are modules of their own here.
            of_layer = [str(number) if part == "layers" else part for part in path]
            state[".".join([*of_layer, layout.parameter])] = torch.from_numpy(np.array(each))
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(each.endswith("num_batches_tracked") for each in missing)
    return step, ours, network


def recordings(step):
    return np.random.default_rng(1).standard_normal((BATCH, SAMPLES, step.num_leads), np.float32)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_copy_has_as_many_parameters_and_the_same_embeddings(name):
    import torch

    step, ours, network = pair(name)
    assert sum(each.numel() for each in network.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(ours.params))
    ecg = recordings(step)
    for train in (False, True):
        expected = np.asarray(encoders.apply(ours, ecg, train=train)[0])
        with torch.no_grad():
            found = network.train(train)(torch.from_numpy(ecg.swapaxes(1, 2).copy())).numpy()
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_another_weight_makes_other_embeddings():
    import torch

    step, ours, network = pair("resnet18:small")
    with torch.no_grad():
        network.blocks[7].conv2.weight[0, 0, 0] += 1
        found = network.eval()(torch.from_numpy(recordings(step).swapaxes(1, 2).copy())).numpy()
    expected = np.asarray(encoders.apply(ours, recordings(step), train=False)[0])
    assert np.abs(found - expected).max() > 1e-3 * np.abs(expected).max()


def test_both_losses_and_their_gradients_are_the_same():
    import torch

    from ecgjax.benchmarks.pytorch.torch_side import triplet_loss as loss_in_pytorch

    labels = np.arange(BATCH) % NUM_CLASSES
    for shape in ((BATCH, 5), (BATCH, 3, 5)):
        z = np.random.default_rng(2).standard_normal(shape, np.float32)
        expected, gradient = jax.value_and_grad(triplet_loss)(z, labels.astype(np.float32))
        given = torch.from_numpy(z).requires_grad_()
        found = loss_in_pytorch(given, torch.from_numpy(labels))
        found.backward()
        assert expected > 0.1
        np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
        np.testing.assert_allclose(given.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)
