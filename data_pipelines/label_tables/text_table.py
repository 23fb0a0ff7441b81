"""Reads CSV tables as text, and raises an error for any line whose cells do not fit the header."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.errors import DataError
from data_pipelines.system.counted import named


def read_text_table(path: Path) -> pd.DataFrame:
    """Returns a CSV table with a header line as text; ids keep their zeros, and missing values are empty.

    Args:
        path: Path of the table, in UTF-8 with or without a byte order mark. Lines without any cell are skipped.

    Returns:
        The table, with a row per line; columns have the names in the header without white space around them.

    Raises:
        DataError: The table cannot be read, is empty, names a column twice, or has a line with more or fewer cells than
            the header. pandas itself would shift such a line by a column, fill it, or cut it.
    """
    try:
        separator = _separator(path)
        names, num_rows = _check_shape(path, separator)
        # pandas would otherwise take the first column for an index where lines are longer than the header.
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False, "encoding": "utf-8-sig"}
        table = pd.read_csv(path, sep=separator, names=names, header=0, **options)
    except (OSError, ValueError, csv.Error) as error:  # The errors of pandas are ValueErrors.
        raise DataError(f"{path}: not a .csv table that can be read ({error}); write it again") from error
    if len(table) != num_rows:
        raise DataError(f"{path}: not a .csv table that can be read (its quotes are not paired); write it again")
    return table


def read_published_table(path: Path, columns: Sequence[str], *, owner: str) -> pd.DataFrame:
    """Returns a table that a published data set comes with, as text; `read_text_table` reads it.

    Args:
        path: Path of the table.
        columns: Columns that the table must have, among others.
        owner: Name of the data set, for the message.

    Raises:
        DataError: The table cannot be read, or lacks a column.
    """
    table = read_text_table(path)
    if missing := [column for column in columns if column not in table.columns]:
        raise DataError(f"{path}: {named(missing, 'column', 'is', 'are')} missing; is this {owner}'s own file?")
    return table


def _separator(path: Path) -> str:
    """Returns the separator of the columns: the most frequent of comma, semicolon and tab in the header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _check_shape(path: Path, separator: str) -> tuple[list[str], int]:
    """Returns the names of the columns and the number of rows, after checking that all rows have as many cells.

    Raises:
        DataError: A name comes twice, or a row has another number of cells.
        ValueError: The table is empty.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True, delimiter=separator)
        if not (names := [name.strip() for name in next(lines, [])]):
            raise ValueError("it is empty")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"{path}: column '{twice[0]}' comes twice; remove or rename one")
        num_rows = 0
        for cells in lines:
            if cells and len(cells) != len(names):
                raise DataError(
                    f"{path}: line {lines.line_num} has {len(cells)} cells where the header names {len(names)} "
                    f"columns, set apart by '{separator}'; correct it, or put texts that hold one in quotes"
                )
            num_rows += bool(cells)
    return names, num_rows
