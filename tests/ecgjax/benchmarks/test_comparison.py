"""The comparison of two frameworks by sides whose times are known, and the products of our own step."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.benchmarks.device import comparison
from ecgjax.benchmarks.device.against_torch import BATCHES, chosen_encoders
from ecgjax.benchmarks.device.jax_side import ENCODERS, JaxSide, paired_step, product_program, products_of
from ecgjax.benchmarks.device.sides import SideError
from ecgjax.benchmarks.paired_steps import PairedStep, Product, Spent
from ecgjax.encoders import cost
from ecgjax.errors import ConfigError

STEP = PairedStep(
    encoder="e",
    architecture="E",
    settings={},
    lead_wise=False,
    num_leads=8,
    num_samples=10,
    batch=4,
    precision="float32",
)
#: Two products of which the first needs no gradient of its input, and one of a thousandth of the FLOP.
PRODUCTS = (
    Product(name="first", rows=10, length=8, width_in=3, width=5, kernel=3, padding=(1, 1), first=True),
    Product(name="second", rows=10, length=1, width_in=20, width=30, times=2),
    Product(name="small", rows=1, length=1, width_in=2, width=2),
)


class KnownSide:
    """Seconds that are told beforehand; `turns` is the order of the calls of all sides."""

    def __init__(self, name, seconds, turns):
        self.name, self.seconds, self.turns = name, iter(seconds), turns

    def prepare(self, step):
        if self.name == "broken":
            raise SideError("broken: no kernel")
        listed = {"products": [dataclasses.asdict(each) for each in PRODUCTS], "flops_per_step": 6e9}
        return {"framework": self.name, **(listed if self.name == "jax" else {})}

    def steps(self, number):
        self.turns.append(self.name)
        seconds = next(self.seconds)
        return Spent(number * seconds, number * seconds / 10)

    def product(self, product, role, runs):
        return Spent(runs * (0.5 if self.name == "jax" else 0.25), runs * 0.1)

    def memory(self):
        return {"host_peak_bytes": 1.0}


@pytest.fixture
def told(monkeypatch):
    turns = []
    # The first number of each is that of the step which warms it up.
    sides = {
        "jax": KnownSide("jax", [9, 2, 2, 3, 4], turns),
        "torch": KnownSide("torch", [9, 1, 4, 3, 2], turns),
        "broken": KnownSide("broken", [], turns),
    }
    monkeypatch.setattr(comparison, "side_in_a_process", lambda name, environment: contextlib.nullcontext(sides[name]))
    found = comparison.compare(STEP, sides=tuple(sides), rounds=4, steps=2, by_product=True)
    return found, turns


def test_sides_take_turns_and_the_ratio_is_that_of_pairs(told):
    found, turns = told
    assert turns == ["jax", "torch"] + ["jax", "torch", "torch", "jax"] * 2
    assert found["step_ms"] == {"jax": 2500.0, "torch": 2500.0}
    # Of the pairs 2, 0.5, 1 and 2.
    assert found["ratio_to_torch"] == found["processor_ratio_to_torch"] == 1.5
    assert found["ratio_to_torch_quartiles"] == [0.875, 2.0]
    assert found["flops_per_sec"] == {"jax": 2.4e9, "torch": 2.4e9}


def test_a_side_that_fails_is_told_and_left_out(told):
    found, _ = told
    assert found["sides"]["broken"] == {"error": "broken: no kernel"}
    assert "ratio_to_broken" not in found


def test_products_are_summed_over_the_step(told):
    found, _ = told
    assert {(line["product"], line["part"]) for line in found["products"]} == {
        ("first", "forward"),
        ("first", "kernel gradient"),
        *(("second", part) for part in ("forward", "input gradient", "kernel gradient")),
    }
    # Two parts of the first, and three of the second, twice.
    assert found["products_ms"] == {"jax": 8 * 500.0, "torch": 8 * 250.0}
    assert found["of_product_rate"] == {"jax": 4.0 / 2.5, "torch": 2.0 / 2.5}
    assert found["processor_of_product_rate"] == {"jax": pytest.approx(0.8 / 0.25), "torch": pytest.approx(0.8 / 0.25)}
    assert found["beside_products_ms"] == {"jax": -1500.0, "torch": 500.0}
    assert found["products_left_out_of_flops"] == pytest.approx(24 / (2 * 7200 + 6 * 12000 + 24))


def test_flops_of_a_product_by_hand():
    conv = Product(name="c", rows=2, length=100, width_in=3, width=4, kernel=7, stride=2, padding=(3, 3))
    assert conv.flops == 2 * 2 * 50 * 7 * 3 * 4
    assert Product(name="g", rows=5, length=1, width_in=6, width=7, groups=3).flops == 2 * 3 * 5 * 6 * 7


@pytest.mark.parametrize("name", ["resnet18:small", "temporal_net:small", "xresnet1d50:small", "vit_s:small"])
def test_products_of_an_encoder_are_all_that_its_trace_counts(name):
    step = paired_step(name, batch=3, num_samples=500, precision="float32")
    encoder = encoders.abstract(name)
    products = [product for product, _ in products_of(encoder, step).values()]
    counted = cost.macs(encoder, (500, step.num_leads))
    assert sum(product.flops * product.times for product in products) == 2 * 3 * counted
    assert [product.first for product in products] == [True] + [False] * (len(products) - 1)


@pytest.mark.parametrize("name", ["resnet18:small", "vit_s:small"])
def test_each_part_alone_is_one_product_and_nothing_else(name):
    step = paired_step(name, batch=2, num_samples=500, precision="float32")
    for product, equation in list(products_of(encoders.abstract(name), step).values())[:4]:
        shapes = [cost.shaped(each).shape for each in (*equation.invars, *equation.outvars)]
        outputs = {"forward": shapes[2], "input gradient": shapes[0], "kernel gradient": shapes[1]}
        for role in product.roles:
            program, inputs = product_program(equation, role)
            assert program(*inputs).shape == outputs[role]
            lowered = program.lower(*inputs).compile().cost_analysis()["flops"]
            # The compiler counts no products with padding, and some additions.
            assert 0.8 * product.flops < lowered < 1.05 * product.flops


def test_our_side_learns():
    side = JaxSide()
    step = paired_step("vit_s:small", batch=4, num_samples=50, precision="float32")
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power.
        told = side.prepare(dataclasses.replace(step, batch=8))
    assert told["flops_per_step"] > 0
    before = jax.tree.map(np.array, side.state.params)
    spent = side.steps(2)
    assert spent.wall > 0
    assert int(side.state.step) == 3
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, side.state.params)
    assert max(jax.tree.leaves(moved)) > 0


def test_encoders_that_are_compared_exist_and_are_chosen_once():
    assert set(BATCHES) <= set(ENCODERS)
    assert chosen_encoders([]) == ["resnet18"]
    for names, said in ((["clocs_cnn"], "resnet18"), (["vit_s", "vit_s"], "twice")):
        with pytest.raises(ConfigError, match=said):
            chosen_encoders(names)
