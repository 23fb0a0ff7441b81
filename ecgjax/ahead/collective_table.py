"""Collective operations of a step in groups: kind, axis, types, how often, and how much."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jax.sharding import Mesh

from ecgjax.ahead.collectives import Collective
from ecgjax.placement.slices import slice_of

#: Elements up to which an operation is small: its time is latency.
SMALL = 4096


class Kind(NamedTuple):
    """What operations of a group have in common.

    Attributes:
        name: Name of the operation.
        axis: Axes of the mesh that its devices differ along, and whether they are of several slices.
        types: Types of the arrays.
        small: Whether it has at most `SMALL` elements.
        conditional: Whether it stands in a branch, such as that of the metrics of logged steps.
    """

    name: str
    axis: str
    types: str
    small: bool
    conditional: bool


class Row(NamedTuple):
    """A group of operations.

    Attributes:
        kind: What they have in common.
        operations: Number of them in the program.
        times: Number of runs in a step, loops counted; None where a loop has an unknown length.
        bytes_a_step: Bytes of the whole arrays of all runs; None likewise.
    """

    kind: Kind
    operations: int
    times: int | None
    bytes_a_step: float | None


def rows_of(found: Iterable[Collective], mesh: Mesh) -> list[Row]:
    """Returns the operations of a program in groups, those with most bytes first; some that join nobody are left out.

    Args:
        found: Operations of the program.
        mesh: Mesh that it runs on.
    """
    of_place = [slice_of(device) for device in mesh.devices.flat]
    groups: dict[Kind, list[Collective]] = collections.defaultdict(list)
    for each in found:
        if axis := _axis(each, mesh, of_place):
            types = ", ".join(sorted(each.types))
            groups[Kind(each.kind, axis, types, each.num_elements <= SMALL, each.conditional)].append(each)
    rows = [_row(kind, members) for kind, members in groups.items()]
    return sorted(rows, key=lambda row: (row.kind.conditional, -(row.bytes_a_step or 0), row.kind))


def _axis(each: Collective, mesh: Mesh, of_place: Sequence[int]) -> str:
    axes = " × ".join(each.axes(mesh.shape))
    return f"{axes}, between slices" if axes and each.joins(of_place) else axes


def _row(kind: Kind, members: Sequence[Collective]) -> Row:
    known = [each for each in members if each.times is not None]
    if len(known) < len(members):
        return Row(kind, len(members), None, None)
    times = [each.times or 0 for each in known]
    amount = sum(each.bytes_once * count for each, count in zip(known, times, strict=True))
    return Row(kind, len(members), sum(times), amount)
