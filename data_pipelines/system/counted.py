"""Numbers and names of things in sentences: 1 record, 2 records; lead V1 is flat, leads V1, V2 are flat."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, one: str, several: str | None = None) -> str:
    """Returns a number with its noun, such as `"1 query"` or `"2,000 queries"`.

    Args:
        number: Number of things.
        one: Noun for one thing.
        several: Noun for any other number; by default `one` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def named(names: Sequence[str], noun: str, one: str = "", several: str = "") -> str:
    """Returns names with their noun and verb, such as `"lead V2 is flat"` or `"leads V2, V4 are flat"`.

    Args:
        names: Names of one or several things.
        noun: Noun for one thing; several have an s.
        one: Words that follow one name.
        several: Words that follow several names.
    """
    listed = f"{noun if len(names) == 1 else f'{noun}s'} {', '.join(names)}"
    return f"{listed} {one if len(names) == 1 else several}".rstrip()
