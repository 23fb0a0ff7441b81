"""Digits and units of clinical quantities as a clinician writes them: 58 %, 4.12 mmol/l, 18.4 mmHg, 412 ms."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ecgjax.data.tasks import BinaryTask, Task

#: Decimals of an error or of a value in a unit, by the unit in small letters.
_DECIMALS: Mapping[str, int] = {
    "mmhg": 1, "%": 1, "ms": 0, "mmol/l": 2, "years": 1, "1/min": 0, "bpm": 0, "mv": 2, "uv": 0, "µv": 0, "g/dl": 1,
    "mg/dl": 1, "pg/ml": 0, "ng/l": 0, "kg": 1, "cm": 0, "kg/m2": 1, "days": 0,
}  # fmt: skip

#: Decimals where the unit is unknown: as many as give three significant digits, and never more than these.
_MOST = 3

_SYMBOLS = {"below": "<", "above": ">"}


def decimals_in(unit: str, *, size: float = 1.0) -> int:
    """Returns the number of decimals of values in a unit.

    Args:
        unit: Unit as the data set's card has it; empty if there is none.
        size: Typical size of the values, such as their standard deviation, which decides where the unit is unknown.
    """
    if (known := _DECIMALS.get(unit.lower())) is not None:
        return known
    if not math.isfinite(size) or size <= 0:
        return _MOST
    return min(_MOST, max(0, 2 - math.floor(math.log10(size))))


def with_unit(value: float, unit: str) -> str:
    """Returns a value of a record with its unit, such as `"18.4 mmHg"`; of one without a unit four digits at most."""
    if not unit:
        return f"{value:.4g}"
    return f"{value:.{decimals_in(unit, size=abs(value))}f} {unit}"


def asked_in_words(task: Task, unit: str) -> str:
    """Returns a question in words, with the unit of what is asked.

    Args:
        task: Question.
        unit: Unit of its label; empty if it has none.
    """
    if isinstance(task, BinaryTask) and task.threshold is not None:
        return f"{task.label} {_SYMBOLS[task.rule]} {task.threshold:g}{f' {unit}' if unit else ''}"
    return f"{task.title} ({unit})" if unit else task.title


def percent(share: float) -> str:
    """Returns a share as it was chosen, such as `"10 %"`."""
    return f"{100 * share:.3g} %"


def share_in_words(fraction: float) -> str:
    """Returns a fraction of the labels in words, such as `"10 % of the training labels"`."""
    return "all training labels" if fraction == 1 else f"{percent(fraction)} of the training labels"
