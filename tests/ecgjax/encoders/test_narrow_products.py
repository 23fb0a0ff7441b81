"""Training steps of bfloat16 encoders multiply bfloat16 numbers, forwards and backwards.

What is looked at is the trace: a CPU would multiply in float32 of its own accord, which other devices do not.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from ecgjax import encoders
from ecgjax.encoders.operations import attention, gradient_sums
from ecgjax.encoders.operations.gradient_sums import gradients_summed_in
from ecgjax.encoders.operations.portability import portable
from ecgjax.keys import row_keys

BATCH, SAMPLES = 3, 1000
#: Names of the layers that `linear_head` makes.
HEADS = ("head", "hidden")
SMALL = sorted(name for name in encoders.ENCODERS if name.endswith(":small"))
#: Made of the same pieces as others, and more of them.
ALIKE = ("temporal_net_dual:small", "vit_b:small", "xresnet1d101:small")


@functools.cache
def abstract(name, **settings):
    """The encoder in bfloat16, with as many leads as it is made for."""
    leads = 8 if name.startswith("temporal_net") else 12
    return encoders.abstract(name, precision="bfloat16", num_leads=leads, **settings)


def wide_products(name, *, summed_in="float32"):
    """Products of a training step that have a float32 operand: number of each, by shapes and types of the operands.

    Returns the number of all products too, and the rows of what the head takes.
    """
    leads, decodes = (8 if name.startswith("temporal_net") else 12), name.startswith("physio_transformer")
    encoder = abstract(name, **({"decoder": True} if decodes else {}))

    def loss(params, stats, ecg, row):
        run = encoders.reconstruct if decodes else encoders.apply
        keys = row_keys(0, 0, row, stream="dropout")
        out, _ = run(encoder._replace(params=params, stats=stats), ecg, train=True, keys=keys)
        return sum(jnp.square(each.astype(jnp.float32)).mean() for each in jax.tree.leaves(out))

    shapes = jax.ShapeDtypeStruct((BATCH, SAMPLES, leads), jnp.float32), jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    with gradients_summed_in(summed_in), portable(), jax.numpy_dtype_promotion("standard"):
        trace = jax.make_jaxpr(jax.grad(loss))(encoder.params, encoder.stats, *shapes).jaxpr
    found, number = collections.Counter(), 0
    for equation in equations(trace):
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            number += 1
            operands = [variable.aval for variable in equation.invars]
            if any(operand.dtype != jnp.bfloat16 for operand in operands):
                found[equation.primitive.name, *(f"{each.dtype}{each.shape}" for each in operands)] += 1
    return found, number, leads


def equations(trace):
    for equation in trace.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def of_heads(name):
    """Shapes of the matrices of a head, which computes in float32: losses need the digits.

    A head costs little: what is left of a recording, or of each of its leads, is a few numbers.
    """
    heads = jax.tree_util.tree_flatten_with_path(abstract(name).params)[0]
    return {
        leaf.shape
        for path, leaf in heads
        if any(name in jax.tree_util.keystr(path) for name in HEADS) and len(leaf.shape) == 2
    }


def accidents(name, **settings):
    """Products with a float32 operand that no head asks for."""
    found, number, leads = wide_products(name, **settings)
    matrices = of_heads(name)
    rows = {(count, width) for count in (BATCH, BATCH * leads) for shape in matrices for width in shape}
    allowed = {f"float32{shape}" for shape in matrices | rows}
    assert number > 10
    assert len(matrices) > 0
    # A head has three products a matrix: its own, and two gradients.
    assert sum(times for each, times in found.items() if set(each[1:]) <= allowed) >= 3
    return {each: times for each, times in found.items() if not set(each[1:]) <= allowed}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in SMALL]
)
def test_no_product_of_a_bfloat16_encoder_is_computed_in_float32_but_those_of_its_head(name):
    assert accidents(name) == {}


def test_nor_is_one_where_gradients_are_summed_in_bfloat16():
    assert accidents("vit_s:small", summed_in="bfloat16") == {}


def test_a_convolution_that_forgets_to_cast_is_found(monkeypatch):
    def forgets(self, inputs):
        (pads,), (stride,) = self.padding, self.strides
        return plain(inputs.astype(jnp.float32), self.kernel[...], padding=pads, stride=stride).astype(self.dtype)

    plain = gradient_sums.convolution
    monkeypatch.setattr(gradient_sums.Conv, "__call__", forgets)
    found = accidents("xresnet1d50:small")
    assert {each[0] for each in found} == {"conv_general_dilated"}
    assert sum(found.values()) > 30


def test_jax_s_own_attention_is_found(monkeypatch):
    monkeypatch.setattr(attention, "attend", jax.nn.dot_product_attention)
    found = accidents("vit_s:small")
    assert sum(found.values()) == 2  # The gradients of queries and keys, in the body of a loop.
    assert all({"float32", "bfloat16"} == {operand.partition("(")[0] for operand in each[1:]} for each in found)
