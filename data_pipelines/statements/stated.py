"""Everything that a file of bare samples says about them, found by name in whatever else the file holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipelines.lead_names import standard_lead
from data_pipelines.statements.names import Kind, StatedName, is_about_something_else, stated_name
from data_pipelines.statements.nested_values import NamedValue, StatedValue

# Groups and structs that describe what the samples were made of.
_FORMER = re.compile(r"orig|source|old|before|previous|unprocessed|target|new|resampl|download", re.IGNORECASE)

# What is said of each lead in a mapping of its own, such as {"I": "mV", "II": "mV"}.
_PER_LEAD = (Kind.UNIT, Kind.GAIN, Kind.STEP, Kind.ZERO)
_VALUE_NAMES = frozenset(("value", "val", "values", "magnitude"))
_UNIT_NAMES = frozenset(("unit", "units", "uom"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """One thing that a file says.

    Attributes:
        where: name of it in the file, for messages.
        value: a text, a tuple of texts, or an array of numbers.
        unit: of the value, as the name has it, in lower case, or empty.
        is_weak: whether the name is also used for other things.
        of_leads: the leads that the entries of `value` are for, where the file says so.
    """

    where: str
    value: StatedValue
    unit: str = ""
    is_weak: bool = False
    of_leads: tuple[str, ...] = ()


class Statements:
    """What a file says, by kind."""

    def __init__(self) -> None:
        """Starts without any."""
        self._by_kind: dict[Kind, list[Statement]] = {}
        #: Rates of something that may be these samples, or what they were made of.
        self.doubtful_rates: list[Statement] = []

    def add(self, kind: Kind, statement: Statement) -> None:
        """Adds one."""
        self._by_kind.setdefault(kind, []).append(statement)

    def of(self, kind: Kind) -> list[Statement]:
        """Returns those of a kind."""
        return self._by_kind.get(kind, [])


def statements(values: Iterable[NamedValue], *, beside: Sequence[str] = ()) -> Statements:
    """Finds what the values of a file say about its samples.

    Args:
        values: all that the file holds beside the samples.
        beside: names of the groups or structs that the samples lie in, from the outermost.

    Returns:
        The statements. What lies in a group of another name counts as well, unless that name is of another signal or of
        a filter; rates under `original`, `target` and their like are doubtful.
    """
    placed = [(_within(value.path, tuple(beside)), value) for value in values]
    units = {path[:-1]: value.value for path, value in placed if len(path) > 1 and path[-1].casefold() in _UNIT_NAMES}
    found = Statements()
    by_lead: dict[tuple[Kind, tuple[str, ...]], dict[str, StatedValue]] = {}
    for path, value in placed:
        if not path or any(map(is_about_something_else, path[:-1])):
            continue
        name, parent = stated_name(path[-1]), stated_name(path[-2]) if len(path) > 1 else StatedName()
        unit = units.get(path, "")
        if parent.kinds and path[-1].casefold() in _UNIT_NAMES and not set(parent.kinds) & set(_PER_LEAD):
            continue  # The unit of a rate or time, which `units` knows.
        if parent.kinds and path[-1].casefold() in _VALUE_NAMES:
            name, unit = parent, units.get(path[:-1], "")
        elif not name.kinds and parent.kinds and standard_lead(path[-1]):
            for kind in set(parent.kinds) & set(_PER_LEAD):
                by_lead.setdefault((kind, path[:-1]), {})[path[-1]] = value.value
            continue
        _add(found, name, value, unit=unit if isinstance(unit, str) else "", is_former=_is_former(path[:-1]))
    for (kind, path), entries in by_lead.items():
        _add_of_leads(found, kind, "/".join(path), entries)
    return found


def _within(path: tuple[str, ...], beside: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a path as seen from the place of the samples: without the outer groups that both lie in."""
    shared = 0
    while shared < min(len(path) - 1, len(beside)) and path[shared] == beside[shared]:
        shared += 1
    return path[shared:]


def _is_former(parents: Sequence[str]) -> bool:
    return any(_FORMER.search(part) for part in parents)


def _add(found: Statements, name: StatedName, value: NamedValue, *, unit: str, is_former: bool) -> None:
    for kind in name.kinds:
        statement = Statement(
            where=value.name, value=value.value, unit=(name.unit or unit).strip(), is_weak=kind in name.weak
        )
        if kind is Kind.RATE and (name.is_qualified or is_former):
            found.doubtful_rates.append(statement)
        elif not is_former:
            found.add(kind, statement)


def _add_of_leads(found: Statements, kind: Kind, where: str, entries: Mapping[str, StatedValue]) -> None:
    texts = tuple(entry for entry in entries.values() if isinstance(entry, str))
    numbers = [entry for entry in entries.values() if isinstance(entry, np.ndarray) and entry.size == 1]
    value: StatedValue
    if len(texts) == len(entries):
        value = texts
    elif len(numbers) == len(entries):
        value = np.array([float(entry.reshape(())) for entry in numbers])
    else:
        return
    found.add(kind, Statement(where=where, value=value, of_leads=tuple(entries)))
