"""Parses numbers and texts as files state them: `500`, `[500]`, `"500 Hz"`, `"1000(0)/mV"`."""

from __future__ import annotations

import re

import numpy as np

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d+)?)\s*(?P<unit>[^\d\s.,+-].*)?", flags=re.IGNORECASE | re.ASCII
)

#: Largest number of values that can be one per lead; more are a signal or a spectrum.
MOST_LEADS = 64


def quantity(value: str | tuple[str, ...] | np.ndarray) -> tuple[np.ndarray, str] | None:
    """Returns the numbers that a value states and the unit written with them, or None if it is not numeric.

    Args:
        value: Text such as `500 Hz`, several texts, or an array.

    Returns:
        The numbers, `f64[n]` with n ≥ 1, and their unit as written, or empty.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iuf" or not 0 < value.size <= MOST_LEADS:
            return None
        return value.reshape(-1).astype(np.float64), ""
    numbers, units = [], set()
    # One text more than allowed is looked at, so that too many are noticed without parsing all.
    for text in (value,) if isinstance(value, str) else value[: MOST_LEADS + 1]:
        if (match := _QUANTITY.fullmatch(text.strip())) is None:
            return None
        numbers.append(float(match["number"].replace(",", ".")))
        units.add((match["unit"] or "").strip(" ()[]"))
    return (np.array(numbers), units.pop()) if len(units) == 1 and len(numbers) <= MOST_LEADS else None


def one_number(value: str | tuple[str, ...] | np.ndarray) -> tuple[float, str] | None:
    """Returns the single finite number of a value and its unit, which may be empty; None where there is no such number.

    A list that repeats one number, such as a rate for each lead, counts as that number.
    """
    found = quantity(value)
    if found is None or not np.all(np.isfinite(found[0])) or np.ptp(found[0]) > 0:
        return None
    return float(found[0][0]), found[1]


def shown(value: object) -> str:
    """Returns a value as text for a message, shortened if it is long."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0].item() if value.size == 1 else value.reshape(-1)[:4].tolist()
    elif isinstance(value, tuple):
        value = ", ".join(value)
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
