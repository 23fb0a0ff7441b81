"""Finds names that are spelt much like one that does not exist, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Returns the end of a message that asks whether a name was meant to be another.

    Args:
        name: Name that does not exist.
        known: Names that exist.
        prefix: Text before every name in the message.

    Returns:
        `"; did you mean …?"` with at most three names, or an empty text where no name is similar.
    """
    by_small = {each.lower(): each for each in known}
    alike = [by_small[each] for each in difflib.get_close_matches(name.lower(), sorted(by_small))]
    return f"; did you mean {', '.join(f'{prefix}{each}' for each in alike)}?" if alike else ""
