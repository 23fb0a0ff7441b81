"""FLOP and memory traffic of a traced function: what a compiler that fuses well must move, counted without compiling.

The model, which is derived from the trace alone:

- A convolution or matrix product reads its operands and writes its result; so do gathers, sorts, poolings and the like.
- Element-wise operations, broadcasts, slices and reductions are fused. A value between them is not stored: who needs it
  computes it again from the stored values that it comes from. Stored are arguments and results of the function and of
  its loops, results of products and reductions, operands of products, and whatever would take more than `MOST_ARRAYS`
  arrays of its own size to compute again.
- An operation's depth is the number of products and reductions before it. All fused operations of one depth are one
  pass, which reads every stored value that it needs once.
- What is only transposed, reshaped, reversed or sliced is read where it lies.
- The inside of a loop counts in every round, and of branches the one that moves most.

So a convolution with batch norm and ReLU moves 3 inputs and 11 outputs in a training step, as counting by hand gives:
forwards the convolution reads its input and writes its output, the statistics read the output, normalising reads it and
writes the next input; backwards two sums read gradient and output, the gradient before the norm reads both and is
written, and the two gradients of the convolution read it twice, read the input, and write the input's gradient, beside
the gradient that the next layer has written. Caches, padding of channels to the width of a unit, copies between
layouts and fusions that a compiler leaves out are not in the model.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jax.extend import core

from ecgjax.encoders import cost

#: Number of stored arrays of its own size from which a value is still computed again.
MOST_ARRAYS = 4

_PRODUCTS = frozenset((
    "conv_general_dilated", "dot_general", "dot_product_attention_bwd", "dot_product_attention_bwd_wrapper",
    "dot_product_attention_fwd", "dot_product_attention_fwd_wrapper",
))  # fmt: skip
_REDUCTIONS = frozenset((
    "argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum",
    "reduce_xor",
))  # fmt: skip
# Primitives that change the order of values or leave some out.
_VIEWS = frozenset((
    "copy", "copy_p", "expand_dims", "reshape", "rev", "slice", "split", "squeeze", "stop_gradient", "transpose",
    "unstack",
))  # fmt: skip
# Element-wise operations and the like, which a compiler fuses; what is in none of these sets is a pass of its own.
_FUSED = _VIEWS | frozenset((
    "abs", "acos", "add", "add_any", "and", "asin", "atan", "atan2", "bitcast_convert_type", "broadcast_in_dim",
    "cbrt", "ceil", "clamp", "concatenate", "convert_element_type", "cos", "cosh", "div", "dynamic_slice", "eq",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "iota", "is_finite", "le",
    "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pad", "pow",
    "real", "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "stack", "sub", "tan", "tanh", "xor",
))  # fmt: skip
_CALLS = frozenset((
    "call", "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
    "jit", "pjit", "remat", "remat2",
))  # fmt: skip


class Pass(NamedTuple):
    """Work that is done in one go over memory.

    Attributes:
        flops: Floating-point operations of the product in it; 0 for a pass without one.
        bytes: Bytes that are read and written.
        rounds: Number of times that it is done.
    """

    flops: float
    bytes: float
    rounds: int = 1


class Traffic(NamedTuple):
    """What a function does to memory.

    Attributes:
        passes: Passes over memory.
        peak_bytes: Bytes of the stored values that are needed at once, at the fullest depth, arguments included.
    """

    passes: tuple[Pass, ...]
    peak_bytes: float

    @property
    def flops(self) -> float:
        """Floating-point operations of all products."""
        return sum(each.flops * each.rounds for each in self.passes)

    @property
    def bytes(self) -> float:
        """Bytes that all passes read and write."""
        return sum(each.bytes * each.rounds for each in self.passes)


def traffic_of_trace(trace: core.Jaxpr) -> Traffic:
    """Returns FLOP and memory traffic of a trace, by the model of this module.

    Args:
        trace: Trace of a function, such as `jax.make_jaxpr(function)(*args).jaxpr`.

    Raises:
        ValueError: The trace has a loop whose number of rounds is not fixed (`while`).
    """
    return _Count(_flattened(trace)).traffic()


class _Value(NamedTuple):
    """Size of an array."""

    elements: int
    itemsize: int


class _Operation(NamedTuple):
    """An equation of a flat trace, with the numbers of its values."""

    equation: core.JaxprEqn
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.equation.primitive.name


class _Flat(NamedTuple):
    """A trace whose calls are replaced by what they call; `shown` has for each view the value that it is a view of."""

    values: Sequence[_Value]
    operations: Sequence[_Operation]
    arguments: frozenset[int]
    results: frozenset[int]
    shown: Mapping[int, int]


class _Flattening:
    """Numbers the values of a trace and lists its operations, those of calls among them."""

    def __init__(self) -> None:
        self.values: list[_Value] = []
        self.operations: list[_Operation] = []

    def new(self, variable: core.Var) -> int:
        """Returns the number of a new value of a variable's size."""
        array = cost.shaped(variable)
        self.values.append(_Value(math.prod(array.shape), array.dtype.itemsize))
        return len(self.values) - 1

    def add(self, trace: core.Jaxpr, given: Iterable[int | None]) -> list[int | None]:
        """Adds a trace's operations on the given values and returns the numbers of its results; None is a literal."""
        numbers: dict[core.Var, int | None] = dict(zip((*trace.constvars, *trace.invars), given, strict=True))
        for equation in trace.eqns:
            inputs = [None if isinstance(each, core.Literal) else numbers[each] for each in equation.invars]
            inner = _called(equation)
            if inner is None:
                outputs: list[int | None] = [self.new(variable) for variable in equation.outvars]
                known = tuple(each for each in inputs if each is not None)
                self.operations.append(_Operation(equation, known, tuple(each for each in outputs if each is not None)))
            else:
                constants = [self.new(variable) for variable in inner.constvars]
                outputs = self.add(inner, [*constants, *inputs])
            numbers |= dict(zip(equation.outvars, outputs, strict=True))
        return [None if isinstance(each, core.Literal) else numbers[each] for each in trace.outvars]


def _called(equation: core.JaxprEqn) -> core.Jaxpr | None:
    """Returns the trace that an equation calls once with its own arguments; None where it does something else."""
    if equation.primitive.name not in _CALLS:
        return None
    inner = list(core.jaxprs_in_params(equation.params))
    return inner[0]


def _flattened(trace: core.Jaxpr) -> _Flat:
    flattening = _Flattening()
    arguments = [flattening.new(variable) for variable in (*trace.constvars, *trace.invars)]
    results = flattening.add(trace, arguments)
    # A view is no value of its own: what stands for it is the value that it shows.
    shown: dict[int, int] = {}
    for operation in flattening.operations:
        if operation.name in _VIEWS and operation.inputs:
            source = operation.inputs[0]
            shown |= dict.fromkeys(operation.outputs, shown.get(source, source))
    return _Flat(
        flattening.values,
        flattening.operations,
        frozenset(arguments),
        frozenset(shown.get(each, each) for each in results if each is not None),
        shown,
    )


#: Stored value → number of its elements that are read.
_Reads = Mapping[int, int]


class _Count:
    """Counts the passes of a flat trace.

    `depth` is the number of products and reductions before a value, `stored` tells which values lie in memory, and
    `reads` from which of them a value is computed. `fused_reads` are the stored values that the pass of a depth reads,
    `written` the bytes that it writes, `writer` the pass that wrote a value. `last` is the depth of the last pass that
    reads a stored value, and `inside` the bytes that the inside of a loop needs at a depth.
    """

    def __init__(self, flat: _Flat):
        self._flat = flat
        self._depth = dict.fromkeys(flat.arguments, 0)
        self._reads: dict[int, _Reads] = {each: {each: flat.values[each].elements} for each in flat.arguments}
        self._stored = set(flat.arguments)
        self._needed, self._users = _needed_values(flat)
        self._fused_reads: dict[int, collections.Counter[int]] = collections.defaultdict(collections.Counter)
        self._written: dict[int, float] = collections.defaultdict(float)
        self._writer: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._inside: dict[int, float] = collections.defaultdict(float)
        self._passes: list[Pass] = []

    def traffic(self) -> Traffic:
        """Returns the traffic of the whole trace."""
        for operation in self._flat.operations:
            if operation.name in _FUSED:
                self._fuse(operation)
            elif operation.name in _REDUCTIONS:
                self._reduce(operation)
            else:
                self._do(operation)
        for depth in sorted(self._fused_reads.keys() | self._written.keys()):
            moved = self._bytes(self._fused_reads[depth]) + self._written[depth]
            self._passes.append(Pass(0.0, moved))
        return Traffic(tuple(self._passes), self._peak())

    def _fuse(self, operation: _Operation) -> None:
        depth, reads = self._before(operation)
        for out in operation.outputs:
            elements = self._flat.values[out].elements
            # A slice reads no more of a value than it gives.
            limited = operation.name in ("slice", "split", "unstack", "dynamic_slice")
            self._depth[out] = depth
            self._reads[out] = {each: min(count, elements) for each, count in reads.items()} if limited else reads
            far = sum(reads.values()) > MOST_ARRAYS * max(elements, 1) and self._users[out] > 1
            if out in self._needed or (far and out not in self._flat.shown):
                self._store(out, depth)

    def _store(self, out: int, depth: int) -> None:
        """Stores a value at the end of the fused pass of its depth."""
        self._read(self._reads[out], depth)
        self._written[depth] += self._size(out)
        self._writer[out] = depth
        self._keep(out, depth)

    def _reduce(self, operation: _Operation) -> None:
        depth, reads = self._before(operation)
        self._read(reads, depth)
        for out in operation.outputs:
            self._written[depth] += self._size(out)
            self._keep(out, depth + 1)

    def _do(self, operation: _Operation) -> None:
        """Counts an operation that is a pass, or several, of its own."""
        depth, reads = self._before(operation)
        if operation.name == "gather":
            reads = {
                each: min(count, self._flat.values[operation.outputs[0]].elements) for each, count in reads.items()
            }
        for each in reads:
            self._last[each] = max(self._last.get(each, 0), depth)
        if operation.name == "while":
            raise ValueError("a while loop: how often it runs cannot be told from the trace")
        inner = [traffic_of_trace(trace) for trace in core.jaxprs_in_params(operation.equation.params)]
        if inner and operation.name not in _PRODUCTS and not operation.name.startswith("scatter"):
            chosen = [max(inner, key=lambda each: each.bytes)] if operation.name == "cond" else inner
            rounds = cost.rounds(operation.equation)
            for traffic in chosen:
                self._passes += [each._replace(rounds=each.rounds * rounds) for each in traffic.passes]
                self._inside[depth] = max(self._inside[depth], traffic.peak_bytes)
        else:
            flops = 2.0 * cost.macs_of_equation(operation.equation) if operation.name in _PRODUCTS else 0.0
            self._passes.append(Pass(flops, self._bytes(reads) + sum(map(self._size, operation.outputs))))
        for out in operation.outputs:
            self._keep(out, depth + 1)

    def _before(self, operation: _Operation) -> tuple[int, _Reads]:
        """Returns the depth of an operation, and the stored values that it reads."""
        reads: dict[int, int] = {}
        for each in operation.inputs:
            for value, elements in self._reads[each].items():
                reads[value] = max(reads.get(value, 0), elements)
        return max((self._depth[each] for each in operation.inputs), default=0), reads

    def _keep(self, out: int, depth: int) -> None:
        self._depth[out] = depth
        self._reads[out] = {out: self._flat.values[out].elements}
        self._stored.add(out)

    def _read(self, reads: _Reads, depth: int) -> None:
        seen = self._fused_reads[depth]
        for each, count in reads.items():
            self._last[each] = max(self._last.get(each, 0), depth)
            if self._writer.get(each) != depth:  # What the same pass writes it need not read.
                seen[each] = max(seen[each], count)

    def _bytes(self, reads: _Reads) -> float:
        return float(sum(count * self._flat.values[each].itemsize for each, count in reads.items()))

    def _size(self, value: int) -> float:
        elements, itemsize = self._flat.values[value]
        return float(elements * itemsize)

    def _peak(self) -> float:
        """Returns the bytes of the stored values at the fullest depth; arguments and results stay to the end."""
        end = max(self._depth.values(), default=0)
        change: dict[int, float] = collections.defaultdict(float)
        for each in self._stored:
            stays = each in self._flat.arguments or each in self._flat.results
            change[self._depth[each]] += self._size(each)
            change[1 + (end if stays else self._last.get(each, self._depth[each]))] -= self._size(each)
        alive = itertools.accumulate(change[depth] for depth in range(end + 1))
        return max((bytes_ + self._inside[depth] for depth, bytes_ in enumerate(alive)), default=0.0)


def _needed_values(flat: _Flat) -> tuple[frozenset[int], collections.Counter[int]]:
    """Returns the values that must be stored wherever they come from, and the number of operations that use each."""
    needed, users = set(flat.results), collections.Counter[int]()
    for operation in flat.operations:
        users.update(set(operation.inputs))
        if operation.name not in _FUSED | _REDUCTIONS:
            needed.update(flat.shown.get(each, each) for each in operation.inputs)
    return frozenset(needed), users
