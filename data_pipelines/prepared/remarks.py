"""Remarks on recordings that were stored although a field of them could not be read.

A reader or builder attaches `Remark`s (`records.py`) to a record. They are kept beside the record's shard, listed in
`remarks.csv`, and counted by reason and by value on the card and in the summary.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.records import Remark
from data_pipelines.system.visible_text import visible, write_table

#: Number of the most frequent values of a reason that are counted separately on the card.
_MOST_VALUES = 20

#: Number of values of a reason that the summary names.
_VALUES_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordRemark(Remark):
    """A remark with the id of its record."""

    record_id: str


def remarks_of(record_id: str, remarks: Iterable[Remark]) -> Iterator[RecordRemark]:
    """Yields the remarks on one record, with its id."""
    for remark in remarks:
        yield RecordRemark(record_id=record_id, **dataclasses.asdict(remark))


def packed_remarks(remarks: Iterable[RecordRemark]) -> np.ndarray:
    """Returns remarks as bytes, `uint8[n]`."""
    return np.frombuffer(json.dumps([dataclasses.asdict(remark) for remark in remarks]).encode(), np.uint8)


def unpacked_remarks(packed: np.ndarray) -> list[RecordRemark]:
    """Returns the remarks that `packed_remarks` packed."""
    return [RecordRemark(**entry) for entry in json.loads(packed.tobytes())]


def list_remarks(parts: Iterable[Sequence[RecordRemark]], path: Path) -> dict[str, dict[str, Any]]:
    """Writes the list of all remarks as CSV, shard by shard, and returns their counts.

    Args:
        parts: Remarks of every shard.
        path: Path of the file to write.

    Returns:
        An entry for every reason, the most frequent first: `records`, the number of remarks; `values`, the most
        frequent values with their numbers; `more_values`, the number of other values; `example`, the first message.
    """
    values: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    examples: dict[str, str] = {}

    def rows() -> Iterator[tuple[str, ...]]:
        for remark in itertools.chain.from_iterable(parts):
            values[remark.reason][remark.value] += 1
            examples.setdefault(remark.reason, remark.message)
            yield remark.record_id, remark.reason, remark.value, remark.message

    write_table(path, ["record_id", "reason", "value", "message"], rows())
    return {
        reason: {
            "records": of_reason.total(),
            "values": dict(of_reason.most_common(_MOST_VALUES)),
            "more_values": max(0, len(of_reason) - _MOST_VALUES),
            "example": examples[reason],
        }
        for reason, of_reason in sorted(values.items(), key=lambda item: -item[1].total())
    }


def remark_lines(counted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the lines on remarks in a summary: for each reason, a line of counts and a line with the first message.

    Args:
        counted: Result of `list_remarks`.
    """
    lines = []
    for reason, entry in counted.items():
        named = [f"'{visible(value)}' {count}" for value, count in entry["values"].items() if value]
        others = max(0, len(named) - _VALUES_SHOWN) + entry["more_values"]
        named = named[:_VALUES_SHOWN] + ([f"… and {others} more values"] if others else [])
        values = f"  ({', '.join(named)})" if named else ""
        lines += [f"{reason:<24}{entry['records']}{values}", f"  first: {visible(entry['example'])}"]
    return lines
