"""Tables for the terminal, at most 80 columns wide."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence

from data_pipelines.system.terminal_lines import COLUMNS
from data_pipelines.system.visible_text import visible

#: Most letters of a line of the first column, which holds titles, and of a line of any other column.
_MOST_FIRST, _MOST = 30, 34

#: Letters below which a column of titles is not made narrower for the sake of others.
_LEAST = 20

_GAP = "  "


def terminal_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, columns: int = COLUMNS) -> str:
    """Returns an aligned table that is no wider than a terminal.

    Titles are broken between words, and where it suffices the widest columns are made narrower. Columns that do not
    fit beside the others follow below them, with the first column repeated.

    Args:
        header: Names of the columns.
        rows: Cells of each row, as many as there are columns.
        columns: Number of letters that fit on a line.
    """
    lines = [[visible(cell) for cell in line] for line in (header, *rows)]
    first, *others = zip(*lines, strict=True)
    widths = [_width(first, most=_MOST_FIRST)]
    widths += [_width(column, most=min(_MOST, columns - widths[0] - len(_GAP))) for column in others]
    gaps = len(_GAP) * (len(widths) - 1)
    # A number and its interval stay on one line.
    least = [width if any("[" in cell for cell in column[1:]) else min(width, _LEAST)
             for width, column in zip(widths, (first, *others), strict=True)]  # fmt: skip
    if sum(least) + gaps <= columns:
        while sum(widths) + gaps > columns:
            widths[max(range(len(widths)), key=lambda column: widths[column] - least[column])] -= 1
    return "\n\n".join(_aligned(lines, part, widths) for part in _parts(widths, columns))


def wrapped(text: str, *, columns: int = COLUMNS) -> str:
    """Returns a text on lines that are no longer than a terminal is wide.

    Args:
        text: Text of one paragraph.
        columns: Number of letters that fit on a line.
    """
    return textwrap.fill(visible(text), columns, break_on_hyphens=False)


def _width(column: Sequence[str], *, most: int) -> int:
    """Returns the width of a column: that of its cells, and of the longest word of its title."""
    name, *cells = column
    longest_word = max(map(len, name.split()), default=1)
    return max(1, min(most, max([longest_word, *map(len, cells)])))


def _parts(widths: Sequence[int], columns: int) -> list[list[int]]:
    """Returns the columns of each part of the table; every part begins with the first column."""
    parts = [[0]]
    for column, width in list(enumerate(widths))[1:]:
        used = sum(widths[each] + len(_GAP) for each in parts[-1])
        if len(parts[-1]) > 1 and used + width > columns:
            parts.append([0])
        parts[-1].append(column)
    return parts


def _aligned(lines: Sequence[Sequence[str]], part: Sequence[int], widths: Sequence[int]) -> str:
    head, *body = [_broken([line[column] for column in part], [widths[column] for column in part]) for line in lines]
    rule = _GAP.join("-" * widths[column] for column in part)
    return "\n".join([*head, rule, *itertools.chain.from_iterable(body)])


def _broken(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Returns the lines of a row whose cells are broken to their columns' widths."""
    broken = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    return [
        _GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in itertools.zip_longest(*broken, fillvalue="")
    ]
