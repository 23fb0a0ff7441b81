"""Decides whether a column of a label table is a label, which has only numbers, and lists what is odd about it.

A column of texts is ignored, and a note names it. A column that is mostly but not wholly numbers is an error: as a
label it would lose values, and ignoring it would lose the label.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data_pipelines.errors import DataError
from data_pipelines.metadata.demographics import number
from data_pipelines.metadata.missing import is_missing
from data_pipelines.system.counted import counted

#: Numbers that often stand for a missing value.
SENTINELS = (-1, -9, -99, -999, -9999, 99, 999, 9999, 99999, 999999, -32768, 32767, 29999, 65535)

# Numbers as people also write them: with a decimal comma, a unit, or a limit.
_NEARLY_A_NUMBER = re.compile(r"[<>≤≥=~]{0,2}\s*[+-]?\d+(?:[.,]\d+)*\s*(%|[^\W\d_][\w/²³%.]{0,9})?")

_EXAMPLES = 4
_FEWEST_OF_AN_ID = 20
_FAR_OUT = 2.0
_LEAST_SHARE_OF_UNIT = 0.4


class Judged(NamedTuple):
    """The judgement of a column.

    Attributes:
        is_label: Whether the column becomes a scalar label.
        told: Remarks on a label, or the most frequent values of a column that is no label, as text.
    """

    is_label: bool
    told: tuple[str, ...]


def judge_column(name: str, values: Iterable[str], *, path: Path) -> Judged:
    """Judges a column that is none of the known columns, such as age and sex.

    Args:
        name: Name of the column.
        values: Values of all rows, as text.
        path: Path of the table, for messages.

    Raises:
        DataError: More than half of the values are numbers, but some are not.
    """
    counts = Counter({text: count for text, count in Counter(values).items() if not is_missing(text)})
    numbers: dict[str, float] = {}
    for text in counts:
        with contextlib.suppress(ValueError):
            numbers[text] = number(text)
    if not (others := Counter({text: count for text, count in counts.items() if text not in numbers})):
        known: Counter[float] = Counter()
        for text, value in numbers.items():
            known[value] += counts[text]
        return Judged(bool(known), _oddities(name, known))
    nearly = _nearly_numbers(others)
    num_numbers = counts.total() - others.total()
    if num_numbers + nearly.total() > counts.total() / 2:
        raise DataError(
            f"{path}: column '{name}' has {num_numbers} numbers and {others.total()} other values ({_named(others)}). "
            "Write numbers alone, with a decimal point, without units or limits; leave the cell empty where there is "
            "none; or take the column out if it is no label"
        )
    return Judged(False, (_named(counts),))


def _nearly_numbers(texts: Counter[str]) -> Counter[str]:
    """Returns the texts that are numbers but for a unit or another spelling; codes such as `12A` and `14B` are not.

    Args:
        texts: Number of rows with each text.
    """
    found = {text: match for text in texts if (match := _NEARLY_A_NUMBER.fullmatch(text.strip()))}
    units: Counter[str] = Counter()
    for text, match in found.items():
        units[match[1] or ""] += texts[text]
    # A single letter behind a number is rather part of a code, unless all numbers have the same.
    common = {
        unit
        for unit, count in units.items()
        if count >= _LEAST_SHARE_OF_UNIT * units.total() and (len(unit) != 1 or unit == "%" or len(units) == 1)
    }
    return Counter({text: texts[text] for text, match in found.items() if (match[1] or "") in common})


def _oddities(name: str, known: Counter[float]) -> tuple[str, ...]:
    told, total = [], known.total()
    if total > 1 and len(known) == 1:
        told.append(f"label '{name}' is {next(iter(known)):g} in all of its {total} rows")
    whole = all(value.is_integer() for value in known)
    if whole and total >= _FEWEST_OF_AN_ID and len(known) == total:
        told.append(f"label '{name}' is another whole number in each of its {total} rows; is it an id?")
    elif whole and known and all(map(_is_date, known)):
        told.append(f"label '{name}' holds dates such as {next(iter(known)):.0f}, stored as numbers; is it a label?")
    told += [
        f"label '{name}' is {sentinel} in {counted(known[sentinel], 'row')}, far from its other values, and stored so; "
        "if that stands for a missing value, leave the cell empty"
        for sentinel in SENTINELS
        if known[sentinel] and _is_far_out(sentinel, known)
    ]
    return tuple(told)


def _is_far_out(sentinel: float, known: Counter[float]) -> bool:
    if not (rest := [value for value in known if value not in SENTINELS]):
        return False
    return min(rest) >= 0 if sentinel < 0 else sentinel > _FAR_OUT * max(max(rest), 1.0)


def _is_date(value: float) -> bool:
    if not math.isfinite(value) or not 19000101 <= value <= 21001231:
        return False
    try:
        datetime.datetime.strptime(f"{value:.0f}", "%Y%m%d")
    except ValueError:
        return False
    return True


def _named(counts: Counter[str]) -> str:
    named = [f"'{text}'" + (f" {count}" if count > 1 else "") for text, count in counts.most_common(_EXAMPLES)]
    others = len(counts) - len(named)
    return ", ".join(named + ([f"… and {others} more"] if others else []))
