"""Finds names that are spelt much like one that does not exist, for messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: Largest difference in likeness, 0 to 1, from the name that is most alike.
_LESS_ALIKE = 0.1


def meant(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Returns the end of a message that asks whether a name was meant to be another.

    Args:
        name: Name that does not exist.
        known: Names that exist.
        prefix: Text before every name in the message.

    Returns:
        `"; did you mean …?"` with at most three names, or an empty text where no name is similar. A name that is much
        less alike than the first is left out.
    """
    by_small, small = {each.lower(): each for each in known}, name.lower()
    close = difflib.get_close_matches(small, sorted(by_small))
    likeness = {each: difflib.SequenceMatcher(None, each, small).ratio() for each in close}
    alike = [by_small[each] for each in close if likeness[each] >= likeness[close[0]] - _LESS_ALIKE]
    return f"; did you mean {', '.join(f'{prefix}{each}' for each in alike)}?" if alike else ""


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Returns names in the order of their likeness to one that does not exist, the nearest first.

    Those come first that have most of its words in them, such as `label_superdiagnostic:NORM` for `label_NORM`.
    Capitals make no difference.

    Args:
        name: Name that does not exist.
        known: Names that exist.
    """
    small = name.lower()
    words = {word for word in re.split(r"[\W_]+", small) if len(word) > 1}

    def likeness(each: str) -> tuple[int, float]:
        other = each.lower()
        return sum(word in other for word in words), difflib.SequenceMatcher(None, other, small).ratio()

    return sorted(known, key=likeness, reverse=True)


def meant_or_else(name: str, known: Iterable[str], then: str) -> str:
    """Returns the end of a message that asks whether a name was meant to be another, and goes on.

    Args:
        name: Name that does not exist.
        known: Names that exist.
        then: Clause that follows, such as `"it has age, sex"`; after the question it is a sentence of its own.
    """
    question = meant(name, known)
    return f"{question} {then[:1].upper()}{then[1:]}" if question else f"; {then}"
