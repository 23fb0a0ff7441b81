"""Collective operations of a compiled program, read from its text: who talks, how much, and how often a step."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: Kinds of collective operations.
KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute", "collective-broadcast")

#: Form of an operation that begins here and ends elsewhere.
_START = "-start"

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_NAMED = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r" ?([\w-]+)\(")
_BODY, _CONDITION = re.compile(r"\bbody=%?([\w.-]+)"), re.compile(r"\bcondition=%?([\w.-]+)")
_CALLS = re.compile(r"\b(?:calls|to_apply)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRUE_OR_FALSE = re.compile(r"(?:true|false)_computation=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# Between slices of TPUs, hosts carry the data: a program sends them, and receives the result of the operation.
_BY_HOSTS = re.compile(r'_xla_megascale_target="\{([\d,]+)\}x\{0:(\d+)\}",_xla_megascale_transfer_type="(\w+)"')
_PLACE = re.compile(r'op_name="([^"]*)"')

# XLA for TPUs writes one operation that runs beside others into several fusions: that which begins it, those that it
# runs beside, and that which ends it. The operation is counted where it begins.
_BESIDE = ("async_collective_fusion", "async-collective-done", "async_collective_done")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation.

    Attributes:
        kind: Name of the operation, one of `KINDS`.
        arrays: Type and shape of each result on a device, as `f32[8,4]`.
        groups: Devices that talk with each other, by their places in the mesh.
        times: Number of times that a step runs it, loops counted; None where a loop around it has an unknown length.
        repeated: Whether it stands in the body of a loop.
        conditional: Whether it stands in a branch that not every step takes.
        place: Name that JAX gives the operation.
    """

    kind: str
    arrays: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    times: int | None
    repeated: bool
    conditional: bool
    place: str

    @property
    def types(self) -> set[str]:
        """Types of the results."""
        return {array.partition("[")[0] for array in self.arrays}

    @property
    def bytes_once(self) -> float:
        """Bytes of the whole arrays of one run: those of a gather after it, those of a scatter before it."""
        size = sum(map(_bytes_of, self.arrays))
        return size * len(self.groups[0]) if self.kind == "reduce-scatter" else size

    @property
    def num_elements(self) -> int:
        """Number of elements of the results."""
        return sum(math.prod(_shape(array)) for array in self.arrays)

    def joins(self, slices: Sequence[int]) -> bool:
        """Whether it connects devices of different slices, given the slice of each place of the mesh."""
        return any(len({slices[place] for place in group}) > 1 for group in self.groups)

    def axes(self, shape: Mapping[str, int]) -> tuple[str, ...]:
        """Returns the axes of the mesh that the devices of a group differ along.

        Args:
            shape: Number of devices along each axis of the mesh, in order.
        """
        sizes = tuple(shape.values())
        differing: set[str] = set()
        for group in self.groups:
            places = np.stack(np.unravel_index(np.asarray(group), sizes))
            differing |= {name for name, along in zip(shape, places, strict=True) if len(set(along.tolist())) > 1}
        return tuple(name for name in shape if name in differing)


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str


class _Program(NamedTuple):
    """Computations of a program by name, the name of the first one, and the number of devices."""

    computations: Mapping[str, Mapping[str, _Instruction]]
    entry: str
    num_devices: int


def collectives_in(text: str) -> list[Collective]:
    """Returns the collective operations of a program, in the order of its text, each as often as it is called.

    Args:
        text: Text of a program behind XLA's partitioner, such as that of `jax.stages.Compiled.as_text`.

    Raises:
        ValueError: The text is no program, or writes groups of devices in an unknown way.
    """
    program = _read(text)
    return list(_walk(program, program.entry, times=1, repeated=False, conditional=False))


def _walk(
    program: _Program, computation: str, *, times: int | None, repeated: bool, conditional: bool
) -> Iterator[Collective]:
    instructions = program.computations[computation]
    for each in instructions.values():
        kind = each.opcode.removesuffix(_START)
        if kind in KINDS:
            yield Collective(
                kind,
                _results(each),
                _groups(each.rest, program.num_devices),
                times,
                repeated,
                conditional,
                place[1] if (place := _PLACE.search(each.rest)) else "",
            )
        elif each.opcode == "recv" and (by_hosts := _BY_HOSTS.search(each.rest)):
            yield Collective(
                by_hosts[3].lower().replace("_", "-"),
                _results(each)[:1],
                _across_slices(num_slices=by_hosts[1].count(",") + 1, size=int(by_hosts[2]) + 1),
                times,
                repeated,
                conditional,
                "",
            )
        elif each.opcode == "while":
            rounds = _rounds(each, instructions, program)
            within = None if times is None or rounds is None else times * rounds
            (body,) = _BODY.findall(each.rest)
            yield from _walk(program, body, times=within, repeated=True, conditional=conditional)
        elif each.opcode == "conditional":
            for branch in _branches(each.rest):
                yield from _walk(program, branch, times=times, repeated=repeated, conditional=True)
        elif each.opcode in ("call", "fusion") or each.opcode.endswith(_START):
            for called in _CALLS.findall(each.rest):
                if not each.name.startswith(_BESIDE) and not called.startswith(_BESIDE):
                    yield from _walk(program, called, times=times, repeated=repeated, conditional=conditional)


def _branches(rest: str) -> list[str]:
    listed = [name.strip(" %") for group in _BRANCHES.findall(rest) for name in group.split(",")]
    return listed or _TRUE_OR_FALSE.findall(rest)


def _results(each: _Instruction) -> tuple[str, ...]:
    """Returns type and shape of every array that an operation makes."""
    arrays = tuple(match[0] for match in _ARRAY.finditer(each.shape))
    if each.opcode in ("all-gather-start", "collective-permute-start"):
        # Their result has the operands first, and for a permutation two numbers of its state last.
        operands = _operands(each.rest)
        return arrays[len(operands) : 2 * len(operands)]
    return arrays


def _across_slices(*, num_slices: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Returns groups of the devices that have the same place in each slice of `size` devices."""
    return tuple(tuple(range(place, num_slices * size, size)) for place in range(size))


def _operands(rest: str) -> list[str]:
    """Returns the names of an instruction's operands, from the text after its opening parenthesis."""
    return re.findall(r"%([\w.-]+)", rest[: _closing("(" + rest) - 1])


def _rounds(loop: _Instruction, instructions: Mapping[str, _Instruction], program: _Program) -> int | None:
    """Returns the number of rounds of a loop that counts upwards by ones to a constant, as scans do; None elsewhere."""
    if trips := _TRIPS.search(loop.rest):
        return int(trips[1])
    (condition,) = _CONDITION.findall(loop.rest)
    inside = program.computations[condition]
    compared = [each for each in inside.values() if each.opcode == "compare" and "direction=LT" in each.rest]
    if len(compared) != 1 or len(inside) != 4:
        return None
    counter, limit = (inside.get(name) for name in _operands(compared[0].rest))
    if counter is None or limit is None or limit.opcode != "constant" or counter.opcode != "get-tuple-element":
        return None
    index, first = int(re.findall(r"index=(\d+)", counter.rest)[0]), None
    (carried,) = _operands(loop.rest)
    if carried in instructions and instructions[carried].opcode == "tuple":
        first = _constant(_operands(instructions[carried].rest)[index], instructions)
    return None if first is None else int(limit.rest.partition(")")[0]) - first


def _constant(name: str, instructions: Mapping[str, _Instruction]) -> int | None:
    """Returns the whole number that an instruction gives, through copies of it; None where it is computed."""
    while (found := instructions.get(name)) is not None and found.opcode in ("copy", "bitcast"):
        (name,) = _operands(found.rest)
    if found is None or found.opcode != "constant" or not re.match(r"-?\d+\)", found.rest):
        return None
    return int(found.rest.partition(")")[0])


def _read(text: str) -> _Program:
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, here = "", None
    for line in text.splitlines():
        if line and not line[0].isspace():
            if match := _COMPUTATION.match(line):
                here = computations.setdefault(match[2], {})
                entry = match[2] if match[1] else entry
        elif here is not None and (named := _NAMED.match(line)):
            rest = line[named.end() :]
            end = _closing(rest) if rest.startswith("(") else rest.index(" ")
            if opcode := _OPCODE.match(rest, end):
                here[named[1]] = _Instruction(named[1], rest[:end], opcode[1], rest[opcode.end() :])
    if not entry:
        raise ValueError(f"this is no text of a program: {text[:100]!r}")
    header = text.partition("\n")[0]
    counts = [int(n) for n in re.findall(r"(?:replica_count|num_partitions)=(\d+)", header)]
    return _Program(computations, entry, math.prod(counts))


def _closing(text: str) -> int:
    """Returns the place behind the parenthesis that closes the one at the text's beginning."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"a parenthesis is not closed: {text[:100]!r}")


def _shape(array: str) -> tuple[int, ...]:
    return tuple(int(size) for size in array.partition("[")[2].rstrip("]").split(",") if size)


def _bytes_of(array: str) -> float:
    kind = array.partition("[")[0]
    bits = re.search(r"\d+", kind)
    each = _BYTES[kind] if kind in _BYTES else int(bits[0]) / 8 if bits else 0
    return math.prod(_shape(array)) * each


def _groups(arguments: str, num_devices: int) -> tuple[tuple[int, ...], ...]:
    """Returns the groups of an operation's devices, which XLA writes in five ways."""
    if match := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}", arguments):
        return tuple(tuple(map(int, pair.split(","))) for pair in re.findall(r"\{([\d,]+)\}", match[1]))
    if match := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)+)\}", arguments):
        return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", match[1]))
    if "replica_groups={}" in arguments:
        return (tuple(range(num_devices)),)
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", arguments):
        shape, order = ([int(n) for n in (match[i] or "").split(",") if n] for i in (3, 4))
        places = np.arange(np.prod(shape)).reshape(shape)
        places = places.transpose(order) if order else places
        return tuple(map(tuple, places.reshape(int(match[1]), int(match[2])).tolist()))
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", arguments):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        over = re.findall(r"'(\w+)'", match[2])
        places = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
        last = [list(sizes).index(axis) for axis in over]
        first = [axis for axis in range(len(sizes)) if axis not in last]
        size = math.prod(places.shape[axis] for axis in last)
        return tuple(map(tuple, places.transpose([*first, *last]).reshape(-1, size).tolist()))
    raise ValueError(f"groups of devices that are written in no known way: {arguments[:300]}")
