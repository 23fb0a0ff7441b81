"""Finds the statements of a file about its samples, by name, among the other values of the file."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.refusals import header_disagrees
from data_pipelines.lead_names import standard_lead
from data_pipelines.statements.names import Kind, StatedName, is_about_something_else, stated_name
from data_pipelines.statements.nested_values import NamedValue, StatedValue

# Groups and structs with these names describe what the samples were made from.
_FORMER = re.compile(r"orig|source|old|before|previous|unprocessed|target|new|resampl|download", re.IGNORECASE)

# Kinds that can be stated for each lead in a mapping, such as {"I": "mV", "II": "mV"}.
_PER_LEAD = (Kind.UNIT, Kind.GAIN, Kind.STEP, Kind.ZERO)
_VALUE_NAMES = frozenset(("value", "val", "values", "magnitude"))
_UNIT_NAMES = frozenset(("unit", "units", "uom"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement of a file about its samples.

    Attributes:
        where: Name of the statement in the file, for messages.
        value: A text, a tuple of texts, or an array of numbers.
        unit: Unit of the value according to its name, in lower case, or empty.
        is_weak: Whether the name is also used for other things.
        of_leads: Leads that the entries of `value` belong to, where the file states them.
    """

    where: str
    value: StatedValue
    unit: str = ""
    is_weak: bool = False
    of_leads: tuple[str, ...] = ()


class Statements:
    """The statements of a file about its samples, by their subject (`Kind`)."""

    def __init__(self) -> None:
        """Starts without statements."""
        self._by_kind: dict[Kind, list[Statement]] = {}
        #: Rates that may belong to these samples or to what they were made from.
        self.doubtful_rates: list[Statement] = []

    def add(self, kind: Kind, statement: Statement) -> None:
        """Adds a statement."""
        self._by_kind.setdefault(kind, []).append(statement)

    def of(self, kind: Kind) -> list[Statement]:
        """Returns the statements of a kind."""
        return self._by_kind.get(kind, [])


def disagreement(source: str, where: str, states: str, other: str, remedy: str = "correct one of them") -> RecordError:
    """Returns the error for a statement that another one, or the user's declaration, contradicts.

    Args:
        source: Name of the file.
        where: Name of the statement in the file.
        states: What it states.
        other: What contradicts it, as a clause.
        remedy: What the user can do.
    """
    return header_disagrees(f"{source}: '{where}' states {states}, but {other}; {remedy}")


def statements(values: Iterable[NamedValue], *, beside: Sequence[str] = ()) -> Statements:
    """Finds the statements about a file's samples among its values.

    Args:
        values: All values that the file holds besides the samples.
        beside: Names of the groups or structs that contain the samples, from the outermost.

    Returns:
        The statements. The contents of other groups count too, unless a group is named for another signal or a filter;
        rates in groups such as `original` and `target` are doubtful.
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
            continue  # `units` already holds this unit of a rate or time.
        if parent.kinds and path[-1].casefold() in _VALUE_NAMES:
            name, unit = parent, units.get(path[:-1], "")
        elif not name.kinds and parent.kinds and standard_lead(path[-1]):
            for kind in set(parent.kinds) & set(_PER_LEAD):
                by_lead.setdefault((kind, path[:-1]), {})[path[-1]] = value.value
            continue
        is_former = any(map(_FORMER.search, path[:-1]))
        _add(found, name, value, unit=unit if isinstance(unit, str) else "", is_former=is_former)
    for (kind, path), entries in by_lead.items():
        _add_of_leads(found, kind, "/".join(path), entries)
    return found


def _within(path: tuple[str, ...], beside: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a path relative to the samples, without the outer groups that contain both.

    Args:
        path: Names of the containers of a value, from the outermost, followed by its own.
        beside: Names of the containers of the samples, from the outermost.
    """
    pairs = zip(path[:-1], beside, strict=False)
    return path[len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))) :]


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
