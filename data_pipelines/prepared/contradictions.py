"""Finds copies of one recording whose labels contradict each other: one is wrong, or they belong to two people.

Compared are age, sex, patient (where data sets number the same patients), and every label that two data sets have under
the same name. A missing value contradicts nothing.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.prepared.copies_of import Links
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.prepared.index import Index
from data_pipelines.records import FEMALE, LABEL_MISSING, SEX_UNKNOWN
from data_pipelines.system.counted import counted
from data_pipelines.system.visible_text import write_table

#: Ages contradict if they differ by more. They differ by one through rounding, or before and after a birthday.
AGE_TOLERANCE_YEARS = 1.0

#: Ages from here on may stand for a group ('89+', or PTB-XL's 300, stored as 90), so they contradict no others like
#: them.
TOP_CODED_YEARS = 89.0

#: Quantities contradict if they differ by more than this share of the larger one, since files round them.
SCALAR_TOLERANCE = 0.01

#: Numbers of contradictions that a card lists, and that a build names at its end; all are counted.
_KEPT = 1000
_SHOWN = 20


#: Nouns for one and for several contradictions, by their kind.
_WORDS = {
    "age": ("pair of different ages", "pairs of different ages"),
    "sex": ("pair of different sex", "pairs of different sex"),
    "patient": ("pair under different patient ids", "pairs under different patient ids"),
    "label": ("label that differs", "labels that differ"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two copies of a recording with different values; the first is the earliest copy that states a value.

    Attributes:
        kind: Kind of the value: `age`, `sex`, `patient` or `label`.
        label: Name of the value, such as `superdiagnostic:MI`.
        first_dataset: Name of the first copy's data set.
        first_record: Id of the first copy.
        first_value: Value of the first copy.
        second_dataset: Name of the second copy's data set.
        second_record: Id of the second copy.
        second_value: Value of the second copy.
    """

    kind: str
    label: str
    first_dataset: str
    first_record: str
    first_value: str
    second_dataset: str
    second_record: str
    second_value: str

    def __str__(self) -> str:
        return (
            f"{self.label}: {self.first_value} of {self.first_dataset} {self.first_record}, {self.second_value} of "
            f"{self.second_dataset} {self.second_record}"
        )


#: Columns of the list of contradictions.
FIELDS = tuple(field.name for field in dataclasses.fields(Contradiction))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Side:
    """The parts of a data set that are compared.

    Attributes:
        name: Name of the data set.
        namespace: Namespace of its patient ids.
        index: Index of the data set.
        labels: Function from a record number to the record's value, NaN where missing, by the label's name with its
            unit.
    """

    name: str
    namespace: str
    index: Index
    labels: Mapping[str, Callable[[int], float]]


def contradictions_of(links: Links, datasets: Sequence[Dataset]) -> list[Contradiction]:
    """Returns the contradictions between copies in linked data sets, in the order of the data sets' records.

    Args:
        links: Links of `datasets`.
        datasets: Data sets in the order in which they were linked.
    """
    sides = [
        _Side(
            name=dataset.card["name"],
            namespace=linked.patient_namespace,
            index=dataset.index,
            labels=_labels(dataset.index, dataset.card["scalars"]),
        )
        for linked, dataset in zip(links.datasets, datasets, strict=True)
    ]
    return _contradictions([linked.copy for linked in links.datasets], sides)


def contradictions_within(index: Index, *, name: str) -> list[Contradiction]:
    """Returns the contradictions between records of one data set with equal signals.

    Args:
        index: Index of the data set.
        name: Name of the data set, which contradictions state.
    """
    first = np.asarray(index.duplicate_of)
    copy = np.where(first < 0, np.arange(index.num_records), first)
    return _contradictions([copy], [_Side(name=name, namespace=name, index=index, labels=_labels(index, {}))])


def counts_by_kind(found: Sequence[Contradiction]) -> dict[str, int]:
    """Returns the number of contradictions of each kind, the most frequent first."""
    return dict(collections.Counter(each.kind for each in found).most_common())


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Returns what contradicts, such as `"1 pair under different patient ids, 2 labels that differ"`.

    Args:
        counts: Number of contradictions of each kind, as `counts_by_kind` returns it.
    """
    return ", ".join(counted(count, *_WORDS[kind]) for kind, count in counts.items())


def write_contradictions(found: Sequence[Contradiction], path: Path) -> None:
    """Writes the contradictions as CSV."""
    write_table(path, FIELDS, map(dataclasses.astuple, found))


def contradiction_lines(section: Mapping[str, Any] | None) -> list[str]:
    """Returns the lines on contradictions between records of equal signals in a build's final report.

    Args:
        section: Section of the card that `contradiction_section` made, or None for data sets that were built before it
            existed.
    """
    if not section or not section.get("counts"):
        return []
    counts = section["counts"]
    total = sum(counts.values())
    what, wrong = counts_in_words(counts), "one of the two" if total == 1 else "one of each two"
    return [
        f"  CONTRADICTIONS      {total:,} between records of equal content ({what}): {wrong} is wrong",
        *(f"    {each}" for each in section["listed"][:_SHOWN]),
        *([f"    … and {total - _SHOWN} more"] if total > _SHOWN else []),
    ]


def contradiction_section(found: Sequence[Contradiction]) -> dict[str, Any]:
    """Returns the section on contradictions for the card of a data set, as values that JSON can hold."""
    return {"counts": counts_by_kind(found), "listed": [str(each) for each in found[:_KEPT]]}


def _contradictions(copies: Sequence[np.ndarray], sides: Sequence[_Side]) -> list[Contradiction]:
    found: list[Contradiction] = []
    for members in _copies(copies):
        for namespace in dict.fromkeys(sides[side].namespace for side, _ in members):
            said = [
                (side, record, str(sides[side].index.patient_id[record]))
                for side, record in members
                if sides[side].namespace == namespace
            ]
            # A patient id that equals the record id means that the source does not state patients.
            said = [each for each in said if each[2] != str(sides[each[0]].index.record_id[each[1]])]
            found += _disagreements("patient", "patient", said, sides)
        for label in dict.fromkeys(label for side, _ in members for label in sides[side].labels):
            kind = {"age_years": "age", "sex": "sex"}.get(label, "label")
            values = [
                (side, record, sides[side].labels[label](record))
                for side, record in members
                if label in sides[side].labels
            ]
            found += _disagreements(kind, label, [each for each in values if not math.isnan(each[2])], sides)
    return found


def _disagreements(
    kind: str, label: str, said: Sequence[tuple[int, int, Any]], sides: Sequence[_Side]
) -> Iterator[Contradiction]:
    """Yields the contradictions of further copies with the first.

    Args:
        kind: Kind of the value, as in `Contradiction`.
        label: Name of the value.
        said: Number of the data set, record number and value of each copy.
        sides: Data sets.
    """
    for side, record, value in said[1:]:
        first_side, first_record, first_value = said[0]
        if _contradict(kind, first_value, value):
            yield Contradiction(
                kind=kind,
                label=label,
                first_dataset=sides[first_side].name,
                first_record=str(sides[first_side].index.record_id[first_record]),
                first_value=_text(kind, first_value),
                second_dataset=sides[side].name,
                second_record=str(sides[side].index.record_id[record]),
                second_value=_text(kind, value),
            )


def _contradict(kind: str, one: Any, other: Any) -> bool:
    if kind == "age":
        both_old = min(one, other) >= TOP_CODED_YEARS
        return not both_old and abs(one - other) > AGE_TOLERANCE_YEARS
    if kind == "label":
        return abs(one - other) > SCALAR_TOLERANCE * max(abs(one), abs(other))
    return one != other


def _text(kind: str, value: Any) -> str:
    if kind == "sex":
        return "female" if value == FEMALE else "male"
    return value if kind == "patient" else f"{value:g}"


def _labels(index: Index, scalars: Mapping[str, Mapping[str, str]]) -> dict[str, Callable[[int], float]]:
    """Returns, by the label's name with its unit, a function from a record number to the record's value.

    Args:
        index: Index of the data set.
        scalars: Entry `scalars` of the data set's card, which has the units.
    """
    columns: dict[str, tuple[np.ndarray, float]] = {"age_years": (index.age_years, math.nan)}
    columns["sex"] = (index.sex, SEX_UNKNOWN)
    for name, values in index.scalars.items():
        # Data sets can have a quantity in different units under one name, whose numbers must not be compared.
        unit = scalars[name]["unit"] if name in scalars else ""
        columns[f"{name} [{unit}]" if unit else name] = (values, math.nan)
    for name, task in index.tasks.items():
        for column, label in enumerate(task.classes):
            columns[f"{name}:{label}"] = (task.values[:, column], LABEL_MISSING)
    entries = columns.items()
    return {label: functools.partial(_value_at, values=values, missing=none) for label, (values, none) in entries}


def _value_at(record: int, *, values: np.ndarray, missing: float) -> float:
    return math.nan if values[record] == missing else float(values[record])


def _copies(copies: Sequence[np.ndarray]) -> Iterator[list[tuple[int, int]]]:
    """Yields, for every recording with several copies, the number of the data set and the record number of each copy.

    Args:
        copies: Number of every record's recording, `int[n]`, for each data set.
    """
    starts = np.cumsum([0, *map(len, copies)])
    copy = np.concatenate(copies)
    order = np.argsort(copy, kind="stable")
    begins = np.flatnonzero(np.diff(copy[order], prepend=-1))
    sizes = np.diff(begins, append=len(order))
    for begin, size in zip(begins[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        numbers = order[begin : begin + size]
        which = np.searchsorted(starts, numbers, side="right") - 1
        yield list(zip(which.tolist(), (numbers - starts[which]).tolist(), strict=True))
