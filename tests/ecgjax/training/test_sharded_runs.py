"""Runs whose parameters are divided over devices are those of whole parameters, and hold a fraction of the state."""

import functools

import jax
import numpy as np
import pytest

from data_pipelines.physiology.store import measure_dataset
from ecgjax.errors import ConfigError
from tests.support.fixtures import make_simulated_dataset
from tests.support.sharded_steps import config_of, take_steps

STEPS = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


@pytest.fixture(scope="module")
def measured(dataset):
    """The data set with the physiology of its recordings, which PhysioCLR asks for."""
    measure_dataset(dataset, num_workers=1)
    return dataset


@pytest.fixture
def data(request, dataset):
    physiology = "physioclr" in request.node.name
    return request.getfixturevalue("measured") if physiology else dataset


@functools.cache
def whole(name, dataset, steps=STEPS):
    return take_steps(config_of(name, dataset), steps, devices=jax.devices()[:1])


def assert_same_run(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for ours, theirs in zip(*(jax.tree.leaves(run[2].ema.params) for run in (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "resnet", "physioclr"])
def test_fsdp_gives_the_run_of_whole_parameters_in_a_fraction_of_the_memory(name, data):
    """With an average of the weights, rates that fall from layer to layer, and frozen parts."""
    found = take_steps(config_of(name, data, mesh__sharding="fsdp"), STEPS)
    assert whole(name, data)[1] == 1.0
    assert found[1] <= 0.2
    assert_same_run(found, whole(name, data))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "resnet", "physioclr"])
def test_tensor_gives_the_run_of_whole_parameters(name, data):
    found = take_steps(config_of(name, data, mesh__sharding="tensor", mesh__model=2), STEPS)
    assert found[1] < 0.75
    assert_same_run(found, whole(name, data))


@pytest.mark.slow
def test_rules_of_both_axes_give_the_run_of_whole_parameters(dataset):
    rules = ("qkv/kernel=,data,model", "mlp_in/kernel=,,model", "mlp_out/kernel=,model,data")
    found = take_steps(config_of("vit", dataset, mesh__model=2, mesh__rules=rules), STEPS)
    assert_same_run(found, whole("vit", dataset))


def test_a_rule_that_does_not_fit_the_model_ends_the_run_before_it_begins(dataset):
    with pytest.raises(ConfigError, match="'conv9' is found in no parameter; there are: encoder/blocks"):
        take_steps(config_of("one stage", dataset, mesh__rules=("conv9=data",)), 1)


@pytest.mark.slow
def test_a_run_goes_on_with_whole_parameters_on_one_device(dataset, tmp_path):
    """A slow sibling takes it through more layouts, and two processes (tests/launch/test_layouts_of_processes.py)."""
    first, held, _ = take_steps(config_of("one stage", dataset, mesh__sharding="fsdp"), 2, folder=tmp_path)
    assert held <= 0.2
    rest = take_steps(config_of("one stage", dataset), 2, folder=tmp_path, devices=jax.devices()[:1])[0]
    np.testing.assert_allclose(first + rest, whole("one stage", dataset)[0], rtol=1e-6)
