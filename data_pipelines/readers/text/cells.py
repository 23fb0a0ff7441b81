"""Splits lines of a text table into cells, and determines the separator and what a cell can hold."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

from data_pipelines.lead_names import standard_lead
from data_pipelines.statements.time_axis import is_moment

#: Texts that stand for a missing sample, in lower case.
MISSING = frozenset(("", "nan", "na", "n/a", "null", "none", "#n/a", "-", "?"))

# More cells give no further evidence on how a line is written.
_MOST_CELLS = 200

_NUMBERS = {
    ".": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", flags=re.ASCII),
    ",": re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?", flags=re.ASCII),
}


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The way in which the lines of a table are written.

    Attributes:
        separator: Separator of the cells; None for white space of any length.
        decimal: Decimal sign, a point or a comma.
    """

    separator: str | None
    decimal: str

    def cells(self, line: str) -> list[str]:
        """Returns the cells of a line without the white space and quotes around them.

        Raises:
            csv.Error: Quotes are not paired.
        """
        if self.separator is None:
            cells = line.split()
        elif '"' in line:
            cells = next(csv.reader([line], delimiter=self.separator, strict=True), [])
        else:
            cells = line.split(self.separator)
        return [cell.strip(" \t'\"") for cell in cells]

    def is_number(self, cell: str) -> bool:
        """Returns whether a cell is a number, more strictly than `float`, which takes `1_0` and digits of other
        scripts.
        """
        return _NUMBERS[self.decimal].fullmatch(cell) is not None

    def is_sample(self, cell: str) -> bool:
        """Returns whether a cell is a number or a missing sample."""
        return self.is_number(cell) or cell.casefold() in MISSING

    def number(self, cell: str) -> float:
        """Returns the number in a cell, NaN where a sample is missing."""
        return float("nan") if cell.casefold() in MISSING else float(cell.replace(",", "."))

    def are_samples(self, cells: Sequence[str]) -> bool:
        """Returns whether the cells of a line are samples.

        The first two cells may also be times of day, and the first a lead's name. A line of missing samples alone
        counts if it has more than one cell.
        """
        if not any(map(self.is_number, cells[:_MOST_CELLS])):
            return all(cell.casefold() in MISSING for cell in cells) and len(cells) > 1
        return all(
            self.is_sample(cell) or (column < 2 and is_moment(cell)) or (column == 0 and bool(standard_lead(cell)))
            for column, cell in enumerate(cells[:_MOST_CELLS])
        )


#: Dialects in order of preference, for lines that fit several equally well.
DIALECTS = (
    *(Dialect(separator, decimal) for separator, decimal in (",.", ";.", "\t.", ";,", "\t,", "|.")),
    Dialect(None, "."),
    Dialect(None, ","),
)


def best_dialect(lines: Sequence[str]) -> tuple[Dialect, int] | None:
    """Returns the dialect in which most lines are samples with equally many cells, and that number of cells.

    Args:
        lines: Lines from the middle of the table.

    Returns:
        The dialect and the number, or None where no line is one of samples in any dialect.
    """
    scores = {}
    for dialect in DIALECTS:
        counts = Counter(len(cells) for cells in (cells_or_none(dialect, line) for line in lines) if cells)
        for width, number in counts.most_common(1):
            scores[dialect, width] = (width > 1, number, width)
    # Of equal scores `max` takes the first, so the order of the dialects decides.
    return max(scores, key=scores.__getitem__, default=None)


def cells_or_none(dialect: Dialect, line: str) -> list[str] | None:
    """Returns the cells of a line of samples, or None for any other line."""
    try:
        cells = dialect.cells(line)
    except csv.Error:
        return None
    return cells if dialect.are_samples(cells) else None
