"""Bounds of numeric settings, which a setting names beside its default."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple


class Bound(NamedTuple):
    """Condition on a number.

    Attributes:
        holds: Function that returns whether a number is possible.
        words: Description of the possible numbers that can follow "must be".
        fewest: Least number of elements of a tuple.
    """

    holds: Callable[[float], bool]
    words: str
    fewest: int = 0


FINITE = Bound(math.isfinite, "a finite number")
ONE_OR_MORE = Bound(lambda value: 1 <= value < math.inf, "at least 1")
ZERO_OR_MORE = Bound(lambda value: 0 <= value < math.inf, "0 or more")
POSITIVE = Bound(lambda value: 0 < value < math.inf, "above 0")
PROBABILITY = Bound(lambda value: 0 <= value <= 1, "0 to 1")
BELOW_ONE = Bound(lambda value: 0 <= value < 1, "0 or more and below 1")
INSIDE_ONE = Bound(lambda value: 0 < value < 1, "above 0 and below 1: a share, not a percentage")
SHARE = Bound(lambda value: 0 < value <= 1, "above 0 and at most 1")
#: Seeds are hashed as signed integers of eight bytes.
SEED = Bound(lambda value: -(2**63) <= value < 2**63, "a whole number of at most 63 bits")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}".removeprefix("0") or "0"


def between(low: float, high: float, why: str = "") -> Bound:
    """Returns the bound of a closed interval.

    Args:
        low: Least number that is possible.
        high: Greatest number that is possible.
        why: Consequence of a number outside the interval, added to the words.
    """
    words = f"{_number(low)} to {_number(high)}" + (f": {why}" if why else "")
    return Bound(lambda value: low <= value <= high, words)


#: Types of arguments that are settings, with their bounds.
Count = Annotated[int, ONE_OR_MORE]
Counts = Annotated[Sequence[int], ONE_OR_MORE._replace(fewest=1)]
AtLeastOne = Annotated[float, ONE_OR_MORE]
Positive = Annotated[float, POSITIVE]
ZeroOrMore = Annotated[float, ZERO_OR_MORE]
Probability = Annotated[float, PROBABILITY]
BelowOne = Annotated[float, BELOW_ONE]
Share = Annotated[float, SHARE]
