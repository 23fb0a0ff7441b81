"""Finds, in a traced program, floating-point numbers that are compared for equality after they were computed.

XLA may compute a number a second time, in another fusion and with another last bit. A program that asks which of some
computed numbers equals their maximum then finds none: a gradient vanishes, or a choice is lost. Numbers that were only
moved about (labels, ages) are what they are; so are whole numbers.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

# What moves numbers, chooses among them, or takes their whole part: each has one result, to the last bit.
_EXACT = {
    "abs", "all_gather", "argmax", "argmin", "broadcast_in_dim", "ceil", "clamp", "concatenate", "convert_element_type",
    "copy", "copy_p", "device_put", "dynamic_slice", "dynamic_update_slice", "expand_dims", "floor", "gather", "iota",
    "max", "min", "neg", "optimization_barrier", "pad", "ppermute", "reduce_max", "reduce_min", "reshape", "rev",
    "round", "select_n", "sharding_constraint", "sign", "slice", "sort", "split", "squeeze", "stack", "stop_gradient",
    "transpose",
}  # fmt: skip


class Comparison(NamedTuple):
    """A comparison for equality: the primitive, and the line of the code that asks for it."""

    primitive: str
    source: str


def float_comparisons(function, *args):
    """Returns the comparisons of computed numbers in `function(*args)`, without what its results do not need."""
    return comparisons_in(jax.make_jaxpr(function)(*args))


def comparisons_in(closed):
    """Returns the comparisons of computed numbers in a traced function, without what its results do not need."""
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    found = set()
    _walk(jaxpr, [False] * len(jaxpr.invars), found)
    return sorted(found)


def _walk(jaxpr, computed_in, found):
    """Adds to `found`, and returns which results are computed."""
    computed = dict(zip(jaxpr.invars, computed_in, strict=True))
    extreme = set()  # The greatest or least of computed numbers: one that is at least that is one that equals it.

    def is_computed(atom):
        return not isinstance(atom, core.Literal) and computed.get(atom, False)

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, [is_computed(atom) for atom in equation.invars]
        outputs = _inner(equation, inputs, found)
        if outputs is None:
            outputs = [any(inputs) if name in _EXACT else True] * len(equation.outvars)
        if name in ("eq", "ne") and any(inputs) and _is_float(equation.invars[0]):
            a, b = equation.invars
            # A number is unequal to itself only where it is none, and infinity is no matter of last bits.
            if a is not b and not (_is_infinite(a) or _is_infinite(b)):
                found.add(Comparison(name, str(equation.source_info.traceback)))
        if name in ("ge", "le") and all(inputs) and any(atom in extreme for atom in equation.invars):
            found.add(Comparison(name, str(equation.source_info.traceback)))
        moved = name in _EXACT and any(not isinstance(a, core.Literal) and a in extreme for a in equation.invars)
        if any(inputs) and (name in ("reduce_max", "reduce_min") or moved):
            extreme.update(equation.outvars)
        for variable, is_new in zip(equation.outvars, outputs, strict=True):
            computed[variable] = is_new and _is_float(variable)
    return [is_computed(atom) for atom in jaxpr.outvars]


def _inner(equation, inputs, found):
    """Goes into the programs within an equation; None where there are none."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        fixed, carried = _fixed_and_carried(params)
        while True:  # What a round computes, the next one takes.
            outputs = _walk(params["jaxpr"].jaxpr, inputs, found)
            carry = [a or b for a, b in zip(inputs[fixed : fixed + carried], outputs[:carried], strict=True)]
            if carry == inputs[fixed : fixed + carried]:
                return outputs
            inputs = [*inputs[:fixed], *carry, *inputs[fixed + carried :]]
    if name == "cond":
        branches = [_walk(branch.jaxpr, inputs[1:], found) for branch in params["branches"]]
        return [any(outputs) for outputs in zip(*branches, strict=True)]
    inner = list(core.jaxprs_in_params(params))
    if name.startswith(("reduce", "scatter", "select_and_")) or name == "sort":
        return None  # Their programs compare numbers that they have in hand.
    if not inner:
        return None
    if name == "while":
        for jaxpr in inner:
            _walk(jaxpr, [True] * len(jaxpr.invars), found)
        return [True] * len(equation.outvars)
    (jaxpr,) = itertools.islice(inner, 1)
    assert len(jaxpr.invars) == len(inputs), f"{name}: its program takes {len(jaxpr.invars)} of {len(inputs)} inputs"
    return _walk(jaxpr, inputs, found)


def _fixed_and_carried(params):
    """Numbers of a scan's inputs that are the same in every round, and that a round hands on."""
    if "num_carry" in params:  # before jax 0.11
        return params["num_consts"], params["num_carry"]
    fixed, carried, _ = params["ft_in"].unpack() if hasattr(params["ft_in"], "unpack") else params["ft_in"]
    return len(fixed), len(carried)


def _is_infinite(atom):
    return isinstance(atom, core.Literal) and bool(jnp.isinf(atom.val).all())


def _is_float(atom):
    return jnp.issubdtype(atom.aval.dtype, jnp.floating)
