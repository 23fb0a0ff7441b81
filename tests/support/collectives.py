"""Collectives of a program as XLA's partitioner makes them, before any backend has its own way with them.

A CPU adds up bfloat16 in float32 of its own accord, so that its finished program says nothing of other devices. What
the partitioner makes is the same for all of them.
"""

import contextlib
import dataclasses
import re
import tempfile
from pathlib import Path

import jax
import numpy as np
from jax.experimental.compilation_cache.compilation_cache import reset_cache

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute", "collective-broadcast")

_COLLECTIVE = re.compile(rf"\s*(?:ROOT )?%[\w.-]+ = (.*?) ({'|'.join(KINDS)})\((.*)")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective.

    Attributes:
        kind: Name of the operation, one of `KINDS`.
        arrays: Type and shape of each result, as `f32[8,4]`.
        groups: Devices that talk with each other, by their places in the mesh.
        repeated: Whether it stands in the body of a loop.
        place: Name that JAX gives the operation.
    """

    kind: str
    arrays: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    repeated: bool
    place: str

    @property
    def types(self):
        return {array.partition("[")[0] for array in self.arrays}

    def joins(self, slices):
        """Whether it connects devices of different slices, given the slice of each place of the mesh."""
        return any(len({slices[place] for place in group}) > 1 for group in self.groups)


def partitioned(lowered):
    """Returns the text of a lowered program behind XLA's partitioner."""
    with tempfile.TemporaryDirectory() as folder:
        with _nothing_cached():
            lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd"})
        (file,) = Path(folder).glob("*after_spmd-partitioning*")
        return file.read_text()


@contextlib.contextmanager
def _nothing_cached():
    """Lets programs be compiled: one that comes from the cache is not partitioned, and leaves no text."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # JAX asks once whether there is a cache.
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()


def collectives(lowered):
    """Returns the collectives of a lowered program."""
    return collectives_in(partitioned(lowered))


def collectives_in(text):
    """Returns the collectives in the text of a partitioned program."""
    parts = _computations(text)
    repeated = _within(parts, {name for body in parts.values() for name in re.findall(r" body=%([\w.-]+)", body)})
    found = []
    for name, body in parts.items():
        for line in body.splitlines():
            if match := _COLLECTIVE.match(line):
                arrays = tuple(re.findall(r"\w+\[[\d,]*\]", match[1]))
                place = re.search(r'op_name="([^"]*)"', line)
                found.append(
                    Collective(match[2], arrays, _groups(match[3]), name in repeated, place[1] if place else "")
                )
    return found


def _computations(text):
    parts = {}
    for part in re.split(r"\n(?=(?:ENTRY )?%[\w.-]+ \()", text):
        if match := re.match(r"(?:ENTRY )?%([\w.-]+) \(", part):
            parts[match[1]] = part
    return parts


def _within(parts, roots):
    """Names of the computations that roots call, and of the roots."""
    found, left = set(), list(roots)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            called = _CALLED.findall(parts[name])
            called += [each.strip(" %") for listed in _BRANCHES.findall(parts[name]) for each in listed.split(",")]
            left += called
    return found


def _groups(arguments):
    """Groups of an operation's devices, which XLA writes in four ways."""
    if match := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}", arguments):
        return tuple(tuple(map(int, pair.split(","))) for pair in re.findall(r"\{([\d,]+)\}", match[1]))
    if match := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)+)\}", arguments):
        return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", match[1]))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", arguments):
        shape, order = ([int(n) for n in (match[i] or "").split(",") if n] for i in (3, 4))
        places = np.arange(np.prod(shape)).reshape(shape)
        places = places.transpose(order) if order else places
        return tuple(map(tuple, places.reshape(int(match[1]), int(match[2])).tolist()))
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", arguments):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        over = re.findall(r"'(\w+)'", match[2])
        places = np.arange(np.prod([int(size) for size in sizes.values()])).reshape([int(s) for s in sizes.values()])
        last = [list(sizes).index(axis) for axis in over]
        first = [axis for axis in range(len(sizes)) if axis not in last]
        size = int(np.prod([places.shape[axis] for axis in last]))
        return tuple(map(tuple, places.transpose([*first, *last]).reshape(-1, size).tolist()))
    raise AssertionError(f"groups of devices that are written in no known way: {arguments[:300]}")
