"""Reads the numbers of a text table in blocks, so that a long table takes little more memory than its numbers.

NumPy's parser reads blocks that consist of digits, signs, exponents and separators. Any other block is read cell by
cell, which handles all that is allowed and names in the error what is not.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines.files.refusals import unreadable_header
from data_pipelines.lead_names import standard_lead
from data_pipelines.readers.text.cells import MISSING, Dialect
from data_pipelines.readers.text.layout import no_table
from data_pipelines.statements.time_axis import is_moment, seconds_of

_BLOCK_BYTES = 2**21
_BLANK_LINE = re.compile(rb"(?:\A|\n)[ \t]*\n")
_OF_NUMBERS = b"0123456789+-eE \n"


class TableNumbers:
    """Reads the lines of a table from the beginning of its samples."""

    def __init__(
        self, dialect: Dialect, num_columns: int, *, names: tuple[str, ...] | None, first_line: int, path: Path
    ):
        """Prepares to read a table.

        Args:
            dialect: Way in which the lines are written.
            num_columns: Number of cells in each line.
            names: Names of the columns, for messages.
            first_line: Number of the first line of samples, counted from 1.
            path: Path of the file, for messages.
        """
        self._dialect, self._num_columns, self._path = dialect, num_columns, path
        self._names, self._first_line, self._num_rows = names, first_line, 0
        self._allowed = _OF_NUMBERS + (dialect.separator or "\t").encode() + dialect.decimal.encode()
        #: Texts of the columns with times of day, by column.
        self.moments: dict[int, list[str]] = {}
        #: Texts of the first column, if they are names of leads.
        self.row_names: list[str] = []

    def read(self, content: bytes, start: int) -> np.ndarray:
        """Returns the numbers, `f64[row, column]`; times of day become seconds, and names of leads NaN.

        Args:
            content: Lines that end with a line feed, including the last one.
            start: Position of the first line of samples, in bytes.

        Raises:
            RecordError: A line has more or fewer cells than the first, or a cell is not a number (`unreadable_header`).
        """
        num_rows = content.count(b"\n", start)
        if len(content) - start <= _BLOCK_BYTES:
            numbers = self._block(content[start:])
        else:
            numbers = np.empty((num_rows, self._num_columns))
            for block in _blocks(content, start):
                at = self._num_rows
                rows = self._block(block)
                numbers[at : at + len(rows)] = rows
        for column, texts in self.moments.items():
            seconds = seconds_of(texts)
            if len(texts) != num_rows or seconds is None:
                raise unreadable_header(
                    f"{self._path}: column {self._name(column)} holds times of day and other values; one or the other "
                    "is read"
                )
            numbers[:, column] = seconds
        if self.row_names and len(self.row_names) != num_rows:
            raise unreadable_header(
                f"{self._path}: some lines begin with the name of a lead and some do not; give every line one, or none"
            )
        return numbers

    def _block(self, block: bytes) -> np.ndarray:
        if blank := _BLANK_LINE.search(block):
            at = self._first_line + self._num_rows + block[: blank.end() - 1].count(b"\n")
            raise no_table(self._path, f"line {at} is empty", "take it out, or give it a sample a column")
        if (rows := self._quickly(block)) is None:
            rows = self._by_cells(block.decode("latin-1"))
        self._num_rows += len(rows)
        return rows

    def _quickly(self, block: bytes) -> np.ndarray | None:
        """Returns a block's numbers, `f64[row, column]`, by NumPy's parser; None if it is malformed or has texts."""
        if block.translate(None, self._allowed) or block.isspace():
            return None
        if self._dialect.decimal == ",":
            block = block.replace(b",", b".")
        try:
            text = io.StringIO(block.decode("ascii"))
            rows = np.loadtxt(text, delimiter=self._dialect.separator, comments=None, ndmin=2)
        except ValueError:
            return None
        return rows if rows.shape == (block.count(b"\n"), self._num_columns) else None

    def _by_cells(self, text: str) -> np.ndarray:
        lines = text.split("\n")[:-1]
        rows = np.empty((len(lines), self._num_columns))
        for number, line in enumerate(lines):
            at = self._num_rows + number
            try:
                cells = self._dialect.cells(line)
            except csv.Error as error:
                raise no_table(self._path, f"line {self._first_line + at}: {error}", "export the file again") from error
            if len(cells) != self._num_columns:
                what = f"line {self._first_line + at} has {len(cells)} cells where the first has {self._num_columns}"
                remedy = "every line needs as many cells as the first, an empty one where a sample is invalid"
                raise no_table(self._path, what, remedy)
            for column, cell in enumerate(cells):
                rows[number, column] = self._cell(cell, column, at)
        return rows

    def _cell(self, cell: str, column: int, at: int) -> float:
        dialect = self._dialect
        if dialect.is_number(cell) or cell.casefold() in MISSING:
            return dialect.number(cell)
        if column < 2 and is_moment(cell) and len(self.moments.get(column, ())) == at:
            self.moments.setdefault(column, []).append(cell)
            return np.nan
        if column == 0 and standard_lead(cell) and len(self.row_names) == at:
            self.row_names.append(cell)
            return np.nan
        raise unreadable_header(
            f"{self._path}: '{cell[:40]}' in column {self._name(column)}, line {at + 1} of the samples, is no number; "
            "correct it, or leave the cell empty where the sample is invalid"
        )

    def _name(self, column: int) -> str:
        return f"'{self._names[column]}'" if self._names else str(column + 1)


def _blocks(content: bytes, start: int) -> Iterator[bytes]:
    while start < len(content):
        if not (end := content.rfind(b"\n", start, start + _BLOCK_BYTES) + 1):
            end = content.find(b"\n", start) + 1
        yield content[start:end]
        start = end
