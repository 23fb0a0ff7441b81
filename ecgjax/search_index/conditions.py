"""Conditions on the columns of an index, each in one line: `sex=female`, `age_years>60`, `data_set!=ptbxl`."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.errors import DataError
from data_pipelines.system.near_names import meant_or_else
from ecgjax.search_index.index_folder import SearchIndex

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(rf"\s*({'|'.join(_OPERATORS)})\s*(.+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition on a column.

    Attributes:
        text: Condition as a user wrote it.
        column: Name of the column.
        sign: Sign of the comparison, such as `">"`.
        value: Value on its right: text, or a number of the column's type.
    """

    text: str
    column: str
    sign: str
    value: Any

    def holds(self, values: pa.ChunkedArray) -> np.ndarray:
        """Returns for which values it holds, `bool[n]`; it does not for missing ones."""
        missing = np.asarray(pc.is_null(values, nan_is_null=pa.types.is_floating(values.type)))
        if pa.types.is_string(values.type):
            equal = np.asarray(pc.fill_null(pc.equal(values, self.value), False))
            return (equal if self.sign == "=" else ~equal) & ~missing
        with np.errstate(invalid="ignore"):
            numbers = np.asarray(pc.fill_null(values, 0))
            return np.asarray(_OPERATORS[self.sign](numbers, self.value)) & ~missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remaining:
    """Rows for which conditions hold.

    Attributes:
        rows: Row numbers, `int64[…]`, ascending.
        told: Condition, number of rows that meet it by itself, and number that have no value, of each.
    """

    rows: np.ndarray
    told: tuple[tuple[str, int, int], ...]


def parse(text: str, schema: pa.Schema) -> Condition:
    """Reads a condition.

    Args:
        text: Condition as a user wrote it.
        schema: Columns of the index.

    Raises:
        DataError: There is no such column, no sign, or no value that the column can have.
    """
    # A name may hold signs itself, as in `BNP>100=1`, so that the longest column is the one that is meant.
    for name in sorted(schema.names, key=len, reverse=True):
        if text.startswith(name) and (found := _CONDITION.fullmatch(text[len(name) :])):
            kind = schema.field(name).type
            return Condition(
                text=text, column=name, sign=found[1], value=_value(text, found[1], found[2].strip(), kind)
            )
    if text in schema.names:
        raise DataError(f"--where={text}: says no value; write {text}=VALUE, or <, <=, >, >=, !=")
    name = re.split(r"[<>=!]", text, maxsplit=1)[0].strip()
    listed = f"there are: {', '.join(schema.names)}, each with =, !=, <, <=, > or >= and a value"
    raise DataError(f"--where={text}: {name!r} is no column of the index{meant_or_else(name, schema.names, listed)}")


def _value(text: str, sign: str, value: str, kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        if sign not in ("=", "!="):
            raise DataError(f"--where={text}: the column holds texts, which = and != compare, and {sign} does not")
        return value
    try:
        number = float(value)
    except ValueError as error:
        raise DataError(f"--where={text}: the column holds numbers, and {value!r} is none") from error
    if not math.isfinite(number):
        raise DataError(f"--where={text}: {value} is no number that a column can be compared with; give a finite one")
    # In the column's own precision, so that 0.1 is equal to what is stored of 0.1.
    return np.float32(number) if pa.types.is_float32(kind) else number


def remaining(index: SearchIndex, texts: Sequence[str]) -> Remaining:
    """Returns the rows of an index for which all conditions hold.

    Raises:
        DataError: A condition cannot be read, or no row is left.
    """
    conditions = [parse(text, index.schema) for text in texts]
    if not conditions:
        return Remaining(rows=np.arange(index.num_rows), told=())
    columns = list(dict.fromkeys(condition.column for condition in conditions))
    meeting, missing = np.empty((len(conditions), index.num_rows), bool), np.zeros(len(conditions), np.int64)
    for first, table in index.columns(columns):
        for number, condition in enumerate(conditions):
            values = table.column(condition.column)
            meeting[number, first : first + len(table)] = condition.holds(values)
            nan = pa.types.is_floating(values.type)
            missing[number] += pc.sum(pc.is_null(values, nan_is_null=nan)).as_py() or 0
    told = tuple(
        (condition.text, int(met.sum()), int(without))
        for condition, met, without in zip(conditions, meeting, missing, strict=True)
    )
    rows = np.flatnonzero(meeting.all(axis=0))
    if not len(rows):
        counts = "; ".join(f"{text} holds for {met} of {index.num_rows} rows" for text, met, _ in told)
        raise DataError(f"--where: no row of the index meets all conditions ({counts}); leave one out")
    return Remaining(rows=rows, told=told)
