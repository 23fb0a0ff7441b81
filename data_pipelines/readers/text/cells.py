"""Lines of a text table and their cells: how they are separated, and what a cell can be."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

from data_pipelines.lead_names import standard_lead
from data_pipelines.statements.time_axis import is_moment

#: What stands for a sample that is missing, in lower case.
MISSING = frozenset(("", "nan", "na", "n/a", "null", "none", "#n/a", "-", "?"))

# Further cells say nothing new about how a line is made.
_MOST_CELLS = 200

_NUMBERS = {
    ".": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", flags=re.ASCII),
    ",": re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?", flags=re.ASCII),
}


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How the lines of a table are written.

    Attributes:
        separator: of the cells; None for white space of any length.
        decimal: point or comma.
    """

    separator: str | None
    decimal: str

    def cells(self, line: str) -> list[str]:
        """Returns the cells of a line without white space and quotes around them.

        Raises:
            csv.Error: quotes that are not paired.
        """
        if self.separator is None:
            cells = line.split()
        elif '"' in line:
            cells = next(csv.reader([line], delimiter=self.separator, strict=True), [])
        else:
            cells = line.split(self.separator)
        return [cell.strip(" \t'\"") for cell in cells]

    def is_number(self, cell: str) -> bool:
        """Tells whether a cell is a number; Python's own `float` also takes `1_0` and the digits of other scripts."""
        return _NUMBERS[self.decimal].fullmatch(cell) is not None

    def is_sample(self, cell: str) -> bool:
        """Tells whether a cell is a number or a missing sample."""
        return self.is_number(cell) or cell.casefold() in MISSING

    def number(self, cell: str) -> float:
        """Returns the number in a cell, NaN where a sample is missing."""
        return float("nan") if cell.casefold() in MISSING else float(cell.replace(",", "."))

    def are_samples(self, cells: Sequence[str]) -> bool:
        """Tells whether a line's cells are samples, of which the first two may be times and the first a lead's name."""
        if not any(map(self.is_number, cells[:_MOST_CELLS])):
            return all(cell.casefold() in MISSING for cell in cells) and len(cells) > 1
        for column, cell in enumerate(cells[:_MOST_CELLS]):
            if self.is_sample(cell) or (column < 2 and is_moment(cell)) or (column == 0 and standard_lead(cell)):
                continue
            return False
        return True


#: In the order of preference where two fit as well.
DIALECTS = (
    Dialect(",", "."),
    Dialect(";", "."),
    Dialect("\t", "."),
    Dialect(";", ","),
    Dialect("\t", ","),
    Dialect("|", "."),
    Dialect(None, "."),
    Dialect(None, ","),
)


def best_dialect(lines: Sequence[str]) -> tuple[Dialect, int] | None:
    """Returns the dialect in which most lines are samples of the same number of cells, and that number.

    Args:
        lines: from the midst of the table.

    Returns:
        None where no line is a line of samples in any.
    """
    best, best_score = None, (0, 0)
    for dialect in DIALECTS:
        counts = Counter(len(cells) for cells in (cells_or_none(dialect, line) for line in lines) if cells)
        if not counts:
            continue
        width, number = counts.most_common(1)[0]
        score = (number, width)
        if (width > 1) > (best is not None and best[1] > 1) or (
            (width > 1) == (best is not None and best[1] > 1) and score > best_score
        ):
            best, best_score = (dialect, width), score
    return best


def cells_or_none(dialect: Dialect, line: str) -> list[str] | None:
    """Returns the cells of a line of samples; None of another line."""
    try:
        cells = dialect.cells(line)
    except csv.Error:
        return None
    return cells if dialect.are_samples(cells) else None
