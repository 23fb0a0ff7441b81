"""Layouts by name divide what they say, for parameters, moments and averages alike, and tell what a device holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from ecgjax.errors import ConfigError
from ecgjax.placement.layout_table import describe_layout
from ecgjax.placement.parameter_layout import lay_out
from ecgjax.placement.settings import MeshSettings
from ecgjax.training import device_mesh
from ecgjax.training.steps import init_state
from tests.support.random_arrays import random_encoder

VIT = {"encoder": random_encoder("vit_s", dim=32, depth=8, num_heads=2, patch=20, embedding_dim=8).params}
RESNET = {"encoder": random_encoder("resnet18", widths=(8, 16), embedding_dim=8).params}
NONE = PartitionSpec()


def layout(params, model=1, **settings):
    return lay_out(params, device_mesh.make_mesh(model=model), MeshSettings(model=model, **settings))


def test_fsdp_divides_the_largest_dimension_of_large_parameters():
    params = {
        "encoder": {"large": np.zeros((3, 16, 8)), "indivisible": np.zeros((3, 9, 30)), "equal": np.zeros((16, 16))},
        "head": {"small": np.zeros((8, 8)), "scalar": np.zeros(())},
    }
    assert layout(params, sharding="fsdp", fsdp_min_mb=0.001).specs == {
        "encoder/large": PartitionSpec(None, "data", None),
        "encoder/indivisible": NONE,
        "encoder/equal": PartitionSpec(None, "data"),
        "head/small": NONE,
        "head/scalar": NONE,
    }
    assert layout(params, sharding="fsdp").divided == {}, "less than a megabyte"
    assert layout(params).divided == {}


def test_fsdp_leaves_the_axis_of_stacked_layers_whole():
    specs = layout(VIT, sharding="fsdp", fsdp_min_mb=0.0).specs
    assert specs["encoder/blocks/layers/mlp_norm/scale"] == PartitionSpec(None, "data"), "of 8 layers of 32 channels"
    assert specs["encoder/blocks/layers/mlp_in/kernel"] == PartitionSpec(None, None, "data")


def test_tensor_divides_products_by_output_then_by_input_and_convolutions_by_output():
    of_vit, of_resnet = (layout(params, 2, sharding="tensor").divided for params in (VIT, RESNET))
    blocks = "encoder/blocks/layers/"
    assert of_vit == {
        f"{blocks}attention/qkv/kernel": PartitionSpec(None, None, "model"),
        f"{blocks}attention/out/kernel": PartitionSpec(None, "model", None),
        f"{blocks}mlp_in/kernel": PartitionSpec(None, None, "model"),
        f"{blocks}mlp_out/kernel": PartitionSpec(None, "model", None),
    }
    assert set(of_resnet.values()) == {PartitionSpec(None, None, "model")}
    assert {name for name in of_resnet if "conv" not in name} == set()
    assert len(of_resnet) == sum(leaf.ndim == 3 for leaf in jax.tree.leaves(RESNET))


def test_rules_are_exceptions_from_a_layout():
    kept = layout(RESNET, sharding="fsdp", fsdp_min_mb=0.0, rules=("stem=", "head/kernel=data"))
    assert not any("stem" in name for name in kept.divided)
    assert kept.specs["encoder/head/kernel"] == PartitionSpec("data")
    assert any("blocks" in name for name in kept.divided)


def test_moments_and_averages_lie_as_their_parameters_and_nothing_else_does():
    params = {"encoder": {"kernel": jnp.zeros((16, 4)), "inner": {"kernel": jnp.zeros((16, 4))}}}
    stats = {"encoder": {"kernel": jnp.zeros(3)}}
    state = init_state(params, stats, optax.adam(0.1), ema=True)
    found = layout(params, rules=("encoder/kernel=data",)).shardings(state)
    cut = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, sharding in jax.tree.leaves_with_path(found)
        if sharding.spec != NONE
    }
    ends = {"params/encoder/kernel", "ema/params/encoder/kernel", "mu/encoder/kernel", "nu/encoder/kernel"}
    assert len(cut) == 4
    assert all(any(name.endswith(end) for end in ends) for name in cut)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ConfigError, match=r"config\.mesh\.sharding='everywhere' is unknown; there are: replicated"):
        layout(RESNET, sharding="everywhere")


def lines(params, model=1, **settings):
    found = layout(params, model, **settings)
    state = init_state(params, {}, optax.adam(0.1), ema=True)
    described = describe_layout(found, jax.device_put(state, found.shardings(state)))
    assert all(len(line) <= 80 for line in described), described
    return described


def test_the_table_has_the_largest_parameters_and_what_a_device_holds():
    table = lines(VIT, sharding="fsdp", fsdp_min_mb=0.001)
    assert table[0].startswith("layout 'fsdp' on data 8 × model 1: ")
    assert table[2].split() == ["…coder/blocks/layers/mlp_in/kernel", "8×32×128", ",,data", "0.13", "0.02"]
    assert len(table) <= 12
    numbers = [float(word) for word in table[-1].split() if word[0].isdigit()]
    whole = 4 * sum(leaf.nbytes for leaf in jax.tree.leaves(VIT)) / 1e6
    assert numbers[0] == pytest.approx(whole, abs=0.01)
    assert numbers[1] < 0.2 * numbers[0]


def test_totals_and_warnings_where_nothing_is_divided():
    size = 4 * sum(leaf.nbytes for leaf in jax.tree.leaves(RESNET)) / 1e6
    assert lines(RESNET) == [f"state of parameters and optimiser: {size:.2f} MB, whole on every device"]
    cases = {
        "config.mesh.model=2, and no parameter is divided over the model axis": {"model": 2},
        "config.mesh.sharding=fsdp divides no parameter here: none has config.mesh.fsdp_min_mb=1 MB": {
            "sharding": "fsdp"
        },
        "config.mesh.sharding=tensor divides no parameter here: the axis model has one device": {"sharding": "tensor"},
    }
    for words, settings in cases.items():
        told = " ".join(lines(RESNET, **settings)[1:])
        assert told.startswith("warning: ")
        assert words in told
    assert not any("warning" in line for line in lines(RESNET, model=2, sharding="tensor"))
