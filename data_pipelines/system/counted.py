"""Numbers of things in sentences: 1 record, 2 records."""

from __future__ import annotations


def counted(number: int, one: str, several: str | None = None) -> str:
    """Returns a number with its noun, such as `"1 query"` or `"2 queries"`.

    Args:
        number: Number of things.
        one: Noun for one thing.
        several: Noun for any other number; by default `one` with an s.
    """
    return f"{number} {one if number == 1 else several or f'{one}s'}"
