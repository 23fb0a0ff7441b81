"""Rules lay out the parameters that they are found in, and what does not fit is refused by name."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ecgjax.errors import ConfigError
from ecgjax.placement.rules import read_rules, specs_by_rules
from ecgjax.training import device_mesh

PARAMS = {
    "encoder/head/kernel": (4, 8),
    "encoder/head/bias": (8,),
    "encoder/stem/kernel": (3, 4, 6),
    "objective/temperature": (),
}


def specs(rules, model=2):
    shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in PARAMS.items()}
    return specs_by_rules(read_rules(rules), shapes, device_mesh.make_mesh(model=model))


def test_the_first_rule_that_is_found_counts_and_others_are_left_out():
    found = specs(["head/.*kernel=,model", "kernel=,data,model", "bias="])
    assert found == {
        "encoder/head/kernel": PartitionSpec(None, "model"),
        "encoder/stem/kernel": PartitionSpec(None, "data", "model"),
        "encoder/head/bias": PartitionSpec(None),
    }
    assert specs(()) == {}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("kernel", r"config\.mesh\.rules: 'kernel' is no rule; write REGEX=AXIS,AXIS"),
        ("=model", r"config\.mesh\.rules: '=model' is no rule"),
        ("kernel=modle", r"'kernel=modle' names the axis 'modle'; there are: data, model"),
        ("kernel=data,data", r"'kernel=data,data' names an axis twice"),
        ("(kernel=model", r"config\.mesh\.rules: '\(kernel' is no regular expression"),
        ("kernle=model", r"config\.mesh\.rules: 'kernle' is found in no parameter; there are: encoder/head/bias, "),
        ("stem=,,model,data", r"'stem=,,model,data' names 4 axes, and encoder/stem/kernel has the shape \(3, 4, 6\)"),
        ("temper=model", r"'temper=model' names 1 axes, and objective/temperature has the shape \(\)"),
        (
            "stem=,,data",
            r"'stem=,,data' divides dimension 2 of encoder/stem/kernel, which has the shape \(3, 4, 6\), over the axis "
            r"'data' of 4 devices",
        ),
    ],
)
def test_rules_that_cannot_be_followed_are_refused_by_the_parameter(rule, message):
    with pytest.raises(ConfigError, match=message):
        specs([rule])
