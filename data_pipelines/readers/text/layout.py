"""Determines where the samples of a text table begin, and what the lines above them mean.

The lines are classified by these rules, from the top:

1. A line of samples has as many cells as the lines in the middle of the file, all of them numbers or missing; the
   first two may be times of day, the first a lead's name.
2. Lines that begin with `#`, `%` or `//` are comments. `name: value`, `name = value` or `name,value` in comments and in
   lines above the table are searched for rate, unit, scale and the like, as the variables of other formats are.
3. The line of names is the last line above the samples with as many cells, all of them texts. A line of units may
   follow it. It may lack the first cell, as in row names of R, or be in the last comment, as in headers of NumPy.
4. Column numbers (0, 1, 2, … or 1, 2, 3, … from the first cell, or from the second after an empty or named one) are
   the header of pandas and never a sample. The same holds for names that only count, such as `V1` to `V12` of R or
   `Var1` to `Var12` of MATLAB.
5. Any other line above the samples that mixes names and numbers is refused, for it may be a damaged sample; so is
   any line with a number below the line of names.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import decoded
from data_pipelines.files.refusals import unreadable_header
from data_pipelines.lead_names import standard_lead
from data_pipelines.readers.text.cells import Dialect, best_dialect, cells_or_none
from data_pipelines.statements.names import is_unit
from data_pipelines.statements.nested_values import NamedValue, header_line
from data_pipelines.statements.stated_leads import without_unit

_COMMENT = ("#", "%", "//")
_MOST_LINES_ABOVE = 1000
_LINES_OF_A_SAMPLE = 12

# Matches 'Sampling rate 500 Hz'.
_NAME_AND_NUMBER = re.compile(r"(?P<name>[^\d:=,;\t]*[^\W\d][^\d:=,;\t]*?)\s+(?P<value>[+-]?\d[\d.,]*\s*[^\s\d]*)")
_COUNTED = re.compile(r"(?P<stem>.*?[^\d])?(?P<number>\d+)")
_UNIT_WORDS = ("hh:mm:ss.mmm", "hh:mm:ss", "mm:ss.mmm", "a.u.", "au", "adu", "-", "", "n/a", "count", "counts")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of a table.

    Attributes:
        dialect: Way in which the lines are written.
        num_columns: Number of cells in each line of samples.
        start: Position of the first line of samples, in bytes.
        first_line: Number of the first line of samples, counted from 1.
        names: Names of the columns, with None for a column whose name is only a number in a row of numbers (`V1` to
            `V12`); None as a whole if there is no line of names.
        units: Units of the columns, empty where not stated; None as a whole if there is no line of units.
        remarks: Statements in comments and lines above the table.
    """

    dialect: Dialect
    num_columns: int
    start: int
    first_line: int
    names: tuple[str | None, ...] | None
    units: tuple[str, ...] | None
    remarks: tuple[NamedValue, ...]


@dataclasses.dataclass(frozen=True)
class _Line:
    number: int
    text: str
    cells: tuple[str, ...]


def layout_of(content: bytes, path: Path) -> Layout:
    """Determines where a table begins and what the lines above it mean.

    Args:
        content: Contents of the file; every line ends with a line feed, including the last.
        path: Path of the file, for messages.

    Raises:
        RecordError: The text is not a table of samples (`unreadable_header`).
    """
    lines = _from_the_midst(content)
    if (found := best_dialect(lines)) is None:
        example = f", but such as '{lines[len(lines) // 2][:60]}'" if lines else ""
        what = f"it has no line of numbers{example}"
        remedy = "a line of numbers for every sample, a number a lead, is read; take columns of texts out"
        raise no_table(path, what, remedy)
    dialect, width = found
    above: list[_Line] = []
    comments: list[str] = []
    start, number = 0, 0
    while True:
        if (end := content.find(b"\n", start)) < 0 or number > _MOST_LINES_ABOVE:
            raise no_table(path, "names, but no samples", "export the file again")
        number += 1
        text = decoded(content[start:end]).strip(" \r")
        if text.strip() and text.lstrip().startswith(_COMMENT) and not _begins_a_cell(text, dialect, width):
            comments.append(text.strip().lstrip("#%/ \t"))
        elif text.strip():
            line = _Line(number, text, tuple(_cells(dialect, text, path, number)))
            if len(line.cells) == width and dialect.are_samples(line.cells) and not _numbers_columns(line.cells):
                break
            _check_not_damaged(line, width, dialect, path)
            above.append(line)
        start = end + 1
    unnamed = _unnamed_column([cells_or_none(dialect, text) or [] for text in lines], width)
    names, units, rest = _names(above, comments, width, first=number, unnamed=unnamed, path=path)
    if names is not None:
        _check_nothing_follows_names(above, rest, dialect, path)
    texts = (*comments, *(line.text for line in rest))
    remarks = tuple(remark for text in texts for remark in _remark(text, dialect))
    return Layout(
        dialect=dialect, num_columns=width, start=start, first_line=number, names=names, units=units, remarks=remarks
    )


def _from_the_midst(content: bytes) -> list[str]:
    """Returns some lines from the middle of a file, or all lines of a short one."""
    if content.count(b"\n") <= 3 * _LINES_OF_A_SAMPLE:
        lines = content.split(b"\n")
    else:
        # In the middle of a file surely stand samples, whatever is above and below them.
        at = content.find(b"\n", len(content) // 2) + 1
        lines = content[at : at + 2**20].split(b"\n", _LINES_OF_A_SAMPLE)[:_LINES_OF_A_SAMPLE]
    return [text for text in map(decoded, lines) if text.strip() and not text.lstrip().startswith(_COMMENT)]


def _unnamed_column(rows: list[list[str]], width: int) -> int | None:
    """Returns the column that a line of names may lack: the last if its cells are empty, the first if it counts rows.

    A single line cannot tell, since its end may have been cut off.
    """
    if len(rows := [cells for cells in rows if len(cells) == width]) < 2:
        return None
    if all(cells[-1] == "" for cells in rows):
        return width - 1
    numbers = [number for cells in rows if (number := _number_of(cells[0])) is not None]
    counts = len(numbers) == len(rows) and np.all(np.diff(numbers) == 1)
    return 0 if counts else None


def _begins_a_cell(text: str, dialect: Dialect, width: int) -> bool:
    """Returns whether a comment mark is in fact the name of the first column, as in `#,I,II` and `#N/A,0.1`."""
    first = text.lstrip().split(dialect.separator, 1)[0].strip().casefold()
    return first in ("#", "#n/a", "%") and len(text.split(dialect.separator)) == width > 1


def _cells(dialect: Dialect, text: str, path: Path, number: int) -> list[str]:
    try:
        return dialect.cells(text)
    except csv.Error as error:
        raise no_table(path, f"line {number}: {error}", "export the file again") from error


def _numbers_columns(cells: Sequence[str]) -> bool:
    """Returns whether cells, except for up to two non-numbers at the start, count columns from 0 or 1."""
    for left_out in range(min(3, len(cells))):
        if left_out and _COUNTED.fullmatch(cells[left_out - 1]) and not cells[left_out - 1][:1].isalpha():
            return False
        if len(counted := [_number_of(cell) for cell in cells[left_out:]]) >= 3 and _are_counted(counted):
            return True
    return False


def _are_counted(numbers: list) -> bool:
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def _number_of(cell: str) -> int | None:
    match = re.fullmatch(r"(\d{1,6})(?:\.0+)?", cell)
    return int(match[1]) if match else None


def _check_not_damaged(line: _Line, width: int, dialect: Dialect, path: Path) -> None:
    """Raises if a line above the samples may be a sample."""
    numbers = sum(map(dialect.is_number, line.cells))
    texts = sum(not dialect.is_sample(cell) for cell in line.cells)
    if not numbers or _numbers_columns(line.cells):
        return
    if not texts:
        what = f"line {line.number} has {len(line.cells)} cells where those of the samples have {width}"
        raise no_table(path, what, "every line needs as many cells, an empty one where a sample is invalid")
    if numbers > 2 and numbers + texts > 3:
        wrong = next(cell for cell in line.cells if not dialect.is_sample(cell))
        what = f"line {line.number} has both numbers and '{wrong[:40]}'"
        remedy = "names stand in a line of their own above the samples, and a sample that is missing is an empty cell"
        raise no_table(path, what, remedy)


def _names(
    above: list[_Line], comments: list[str], width: int, *, first: int, unnamed: int | None, path: Path
) -> tuple[tuple[str | None, ...] | None, tuple[str, ...] | None, list[_Line]]:
    """Returns the names of the columns (as `Layout.names`), their units (as `Layout.units`), and the other lines.

    Args:
        above: Lines above the samples that are not comments.
        comments: Comments without their marks.
        width: Number of cells in a line of samples.
        first: Number of the first line of samples, for messages.
        unnamed: Column that the line of names may lack, as `_unnamed_column` returns it.
        path: Path of the file, for messages.

    Raises:
        RecordError: Two lines name leads, or the one that does has another number of cells (`unreadable_header`).
    """
    rest = list(above)
    units = None
    if rest and len(rest[-1].cells) == width > 1 and _are_units(rest[-1].cells) and len(rest) > 1:
        units = tuple(cell.strip("()[] ") for cell in rest.pop().cells)
    header = next((line for line in reversed(rest) if len(line.cells) == width > 1), None)
    if header is None:
        header = next((line for line in reversed(rest) if _lacks_one(line.cells, width, unnamed)), None)
    if header is None and not any(_has_leads(line.cells) for line in rest):
        separators = (None, ",", ";", "\t")
        split = [[cell.strip(" '\"") for cell in text.split(mark)] for text in comments for mark in separators]
        if fitting := [cells for cells in split if len(cells) == width and _has_leads(cells)]:
            return _known(tuple(fitting[-1])), units, rest
    others = [line for line in rest if line is not header]
    wrong = next((line for line in others if _has_leads(line.cells) and header_line(line.text) is None), None)
    if wrong is not None:
        what = f"line {first} has {width} cells where the first has {len(wrong.cells)}"
        if header is not None:
            what = f"lines {wrong.number} and {header.number} both name leads"
        raise no_table(path, what, "one line of names with as many cells as those below is read")
    if header is None:
        return None, units, others
    if len(cells := header.cells) < width:
        cells = (*cells, "") if unnamed else ("", *cells)
    return _known(cells), units, others


def _check_nothing_follows_names(above: list[_Line], rest: list[_Line], dialect: Dialect, path: Path) -> None:
    """Raises if a line with numbers is between the names and the samples, since it may be the rest of a sample."""
    used = [line.number for line in above if line not in rest]
    below = [line for line in rest if used and line.number > min(used)]
    between = next((line for line in below if any(map(dialect.is_number, filter(None, line.cells)))), None)
    if between is not None:
        what = f"line {between.number} ('{between.text[:40]}') stands between the names and the samples"
        remedy = "the samples follow the line of names, or one of units below it; correct the line, or take it out"
        raise no_table(path, what, remedy)


def _lacks_one(cells: Sequence[str], width: int, unnamed: int | None) -> bool:
    return unnamed is not None and len(cells) == width - 1 and (_has_leads(cells) or None in _known(tuple(cells)))


def _known(cells: tuple[str, ...]) -> tuple[str | None, ...]:
    """Returns the names of columns, with None for names that only count, such as `V1` to `V12` or `0`, `1`, `2`."""
    for first in range(min(3, len(cells))):
        matches = [match for cell in cells[first:] if (match := _COUNTED.fullmatch(cell.removesuffix(".0")))]
        numbers = [int(match["number"]) for match in matches]
        stems = {(match["stem"] or "").casefold() for match in matches}
        if len(numbers) < max(3, len(cells) - first) or not _are_counted(numbers) or len(stems) > 1:
            continue
        # V1 to V6 and C1 to C6 are leads, not counted names.
        if len(numbers) > 6 or not standard_lead(cells[first]):
            return (*cells[:first], *(None for _ in numbers))
    return cells


def _has_leads(cells: Sequence[str]) -> bool:
    return sum(standard_lead(without_unit(cell)[0]) is not None for cell in cells[:64]) > 1


def _are_units(cells: Sequence[str]) -> bool:
    plain = [cell.strip("()[] ").casefold() for cell in cells]
    return any(map(is_unit, plain)) and all(is_unit(cell) or cell in _UNIT_WORDS for cell in plain)


def _remark(text: str, dialect: Dialect) -> list[NamedValue]:
    if (pair := header_line(text)) is None:
        cells = [cell for cell in (text.split(dialect.separator) if dialect.separator else [text]) if cell.strip()]
        if len(cells) > 1:
            pair = cells[0].strip(" '\""), " ".join(cell.strip(" '\"") for cell in cells[1:])
        else:
            match = _NAME_AND_NUMBER.fullmatch(text.strip())
            pair = (match["name"], match["value"]) if match else None
    return [NamedValue((pair[0],), pair[1])] if pair and pair[1] else []


def no_table(path: Path, what: str, remedy: str) -> RecordError:
    """Returns the error for a text that is not a table of samples."""
    return unreadable_header(f"{path}: no table ({what}); {remedy}")
