"""Widths of tables as a browser would lay them out, so that none is wider than the page.

The narrowest width of a table follows from what cannot be broken: numbers with their intervals stay on one line, and
texts break between words. Widths of letters are those of DejaVu Sans, the widest font of the style sheet, so that a
table that fits by this estimate fits in the others as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ecgjax.pages.page import Table

#: Width in CSS pixels that a table has on a window of 1280 pixels: what `main` of the style sheet leaves, less a
#: scroll bar.
PAGE_PX = 1150

#: Size of the letters in tables in CSS pixels, and the space to both sides of a cell, as in the style sheet.
_FONT_PX, _PADDING_PX = 14.0, 20.0

#: Narrowest first column of a table's body, as in the style sheet.
_FIRST_PX = 112.0

#: Most characters of a cell that stays on one line.
SHORT = 24

#: Most characters of a cell of numbers alone that stays on one line, such as an estimate with its interval in a unit of
#: two or three digits.
SHORT_NUMBERS = 32

_NUMBERS = re.compile(r"[\d\s.,;:/+\-−–±×%<>≤≥()\[\]]+(e[+-]?\d+)?")
PIECE = re.compile(r"[^/._,=-]{1,16}[/._,=-]*|[/._,=-]+")


def one_line(cell: str) -> bool:
    """Returns whether a cell behind the first column stays on one line."""
    return len(cell) <= SHORT or bool(len(cell) <= SHORT_NUMBERS and only_numbers(cell))


def only_numbers(cell: str) -> bool:
    """Returns whether a cell holds numbers, intervals, counts or shares and nothing else."""
    return bool(_NUMBERS.fullmatch(cell))


def narrowest(table: Table) -> list[float]:
    """Returns the narrowest width of each column in CSS pixels, the space around its cells included."""
    widths = []
    for number, name in enumerate(table.header):
        cells = [row[number] for row in table.rows]
        body = max((_unbreakable(cell, first=number == 0) for cell in cells), default=0.0)
        widths.append(_PADDING_PX + max(_widest_word(name), body))
    widths[0] = max(widths[0], _FIRST_PX)
    return widths


def parts_that_fit(table: Table, *, width: float = PAGE_PX) -> list[Table]:
    """Returns a table as one or several below each other that each fit a width; all have the first column.

    Args:
        table: Table to divide by its columns.
        width: Width in CSS pixels.
    """
    first, *others = narrowest(table)
    parts: list[list[int]] = [[]]
    used = first
    for column, each in enumerate(others, start=1):
        if parts[-1] and used + each > width:
            parts.append([])
            used = first
        parts[-1].append(column)
        used += each
    if len(parts) == 1:
        return [table]
    return [_columns_of(table, part, number) for number, part in enumerate(parts)]


def _columns_of(table: Table, columns: Sequence[int], number: int) -> Table:
    kept = [0, *columns]
    caption = table.caption if number == 0 else f"{table.caption or 'The same models and rows'}, continued"
    return Table(
        header=[table.header[column] for column in kept],
        rows=[[row[column] for column in kept] for row in table.rows],
        caption=caption,
    )


def _unbreakable(cell: str, *, first: bool) -> float:
    return _widest_word(cell) if first or not one_line(cell) else _pixels(cell)


def _widest_word(text: str) -> float:
    """Returns the width of the widest part of a text that a browser does not break."""
    pieces = [PIECE.findall(word) if len(word) > SHORT else [word] for word in text.split()]
    return max((_pixels(piece) for word in pieces for piece in word), default=0.0)


def _pixels(text: str) -> float:
    return _FONT_PX * sum(map(_em, text))


def _em(letter: str) -> float:
    """Returns the width of a letter as a share of the font's size."""
    if letter in " .,:;|!'ijlI":
        return 0.34
    if letter in '[]()/-ft"':
        return 0.42
    if letter in "+−±=<>%mMwW×" or not letter.isascii():
        return 0.96
    return 0.72 if letter.isupper() else 0.64
