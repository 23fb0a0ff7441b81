"""Reads a table of patients and labels: CSV or Parquet, one row per recording."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data_pipelines.errors import DataError
from data_pipelines.label_tables.column_names import is_nameless, is_other_id, known_names
from data_pipelines.label_tables.label_columns import judge_column
from data_pipelines.label_tables.text_table import read_text_table
from data_pipelines.metadata.ages import read_age
from data_pipelines.metadata.missing import is_missing
from data_pipelines.metadata.sexes import SexCoding, column_coding
from data_pipelines.system.counted import counted, named

#: Suffixes that a table may have.
SUFFIXES = (".csv", ".parquet")

# Matches whole numbers with a fraction, as pandas writes them if the column has gaps.
_WITH_FRACTION = re.compile(r"\d+\.0+")
_IN_POWERS = re.compile(r"\d(\.\d+)?[eE]\+?\d+")
_WHOLE_COLUMNS = ("record", "patient_id", "fold")
_LARGEST_EXACT = 2.0**53

# An age of 0 is taken for that of a newborn only if the table has other children.
_FEWEST_OTHER_AGES, _YOUNGEST_OF_ADULTS = 10, 10.0


class LabelTable:
    """A checked label table with values as text; columns with a meaning have the names of `KNOWN_COLUMNS`.

    Attributes:
        path: Path of the table.
        columns: Names of all columns.
        scalars: Names of the columns that are labels.
        ignored: Names of columns that are neither known nor numeric, or have no name (such as the row numbers of
            pandas).
        sex_coding: Meaning of the values of sex; None where the table has no sex.
        zero_is_no_age: Whether an age of 0 means that the age is not known.
        notes: Remarks on the table.
    """

    def __init__(self, path: Path, *, declared_sexes: Mapping[str, int] | None = None):
        """Reads the table.

        Args:
            path: Path of a `.csv` with a header line, or of a `.parquet`; the columns `record` and `patient_id` are
                needed.
            declared_sexes: Meanings that the user declared for values of the column `sex`.

        Raises:
            DataError: The file does not exist or is not such a table, a column is missing, misnamed or ambiguous, or a
                record has two rows.
        """
        table, names, notes = _known_table(path)
        self.path = path
        self.columns = tuple(table.columns)
        self._rows = _rows(table, path, notes)
        self.sex_coding = _sex_coding(table, names, declared_sexes or {}, path)
        self.zero_is_no_age = "age" in table.columns and _is_zero_no_age(table["age"])
        others = [name for name in self.columns if name not in names.values()]
        self.scalars, self.ignored = _labels(table, others, path, notes)
        self.notes = tuple(notes)

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._rows)

    def rows_of(self, record_ids: Iterable[str]) -> dict[str, Mapping[str, str] | None]:
        """Returns the row of each record: the row of its path, or else the row of its bare name.

        Args:
            record_ids: Paths of the records below the folder, without extension.

        Returns:
            The row of every record, None where the table has none, followed by the rows of other records, under their
            own names and in the table's order.

        Raises:
            DataError: A bare name fits several records, or no row fits any record.
        """
        record_ids = list(record_ids)
        ids_of_name = Counter(_bare(record_id) for record_id in record_ids)
        rows: dict[str, Mapping[str, str] | None] = {}
        used = set()
        for record_id in record_ids:
            if (key := record_id if record_id in self._rows else _bare(record_id)) not in self._rows:
                rows[record_id] = None
                continue
            if key != record_id and ids_of_name[key] > 1:
                raise DataError(
                    f"{self.path}: '{key}' could be any of {ids_of_name[key]} records of that name; "
                    "write the path below the folder instead"
                )
            used.add(key)
            rows[record_id] = self._rows[key]
        if not used:
            raise DataError(
                f"{self.path}: not one of its {counted(len(self._rows), 'record')} is in the folder; 'record' is the "
                f"path below it without extension, such as '{record_ids[0]}'"
            )
        return rows | {name: row for name, row in self._rows.items() if name not in used}


def _bare(record_id: str) -> str:
    return record_id.rpartition("/")[2]


def _known_table(path: Path) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Returns the table with known names of columns, the known name by the table's own name, and notes.

    Raises:
        DataError: As `LabelTable` says.
    """
    table = _read(path)
    if "age_years" in table.columns:
        # The label 'age_years', which every data set has, would hide this column.
        raise DataError(f"{path}: rename its column 'age_years' to 'age'")
    names = known_names(table.columns, path=path)
    if missing := [column for column in ("record", "patient_id") if column not in names.values()]:
        separator = next((sign for sign in ";\t|" if len(table.columns) == 1 and sign in table.columns[0]), None)
        remedy = f"; its columns are set apart by {separator!r}: write it with commas" if separator else ""
        raise DataError(
            f"{path}: {named(missing, 'column', 'is', 'are')} missing; it has {', '.join(table.columns)}{remedy}"
        )
    renamed = [f"'{own}' as {known}" for own, known in names.items() if own != known]
    table = table.rename(columns=names)
    for column in _WHOLE_COLUMNS:
        if column in table.columns:
            table[column] = _whole(table[column], path)
    return table, names, [f"columns of the labels read under another name: {', '.join(renamed)}"] if renamed else []


def _whole(column: pd.Series, path: Path) -> pd.Series:
    """Returns ids without a fraction, if a program wrote all of them as numbers with one (`12.0`).

    Args:
        column: Ids as text.
        path: Path of the table, for messages.

    Raises:
        DataError: An id is written in powers of ten (`1.2E+09`), so that its last digits are lost.
    """
    known = [text for text in column.unique() if not is_missing(text)]
    lost = [text for text in known if _IN_POWERS.fullmatch(text)]
    # A recording may well be called '1e5', but an id in this form has lost digits.
    if lost and column.name != "record":
        raise DataError(
            f"{path}: column '{column.name}' has '{lost[0]}', a whole number as spreadsheets shorten it; its last "
            "digits are lost, and different ones look the same: export the column as text"
        )
    if known and all(map(_WITH_FRACTION.fullmatch, known)):
        return column.map(lambda text: text.partition(".")[0])
    return column


def _rows(table: pd.DataFrame, path: Path, notes: list[str]) -> dict[str, Mapping[str, str]]:
    repeated = table.duplicated()
    nameless = table["record"].map(is_missing)
    kept = table[~repeated & ~nameless]
    if repeated.any():
        notes.append(
            f"{counted(int(repeated.sum()), 'row of the labels repeats', 'rows of the labels repeat')} an "
            f"earlier one in all columns"
        )
    if nameless.any():
        values = ", ".join(f"'{text}' {count}" for text, count in Counter(table.loc[nameless, "record"]).items())
        number = counted(int(nameless.sum()), "row of the labels names", "rows of the labels name")
        notes.append(f"{number} no record ({values}) and {'is' if nameless.sum() == 1 else 'are'} left out")
    if twice := [record for record, count in Counter(kept["record"]).items() if count > 1]:
        raise DataError(
            f"{path}: {counted(len(twice), 'record has', 'records have')} more than one row, first '{twice[0]}'"
        )
    columns: list[str] = kept.columns.tolist()
    rows = (dict(zip(columns, texts, strict=True)) for texts in kept.itertuples(index=False, name=None))
    return {row["record"]: row for row in rows}


def _sex_coding(table: pd.DataFrame, names: Mapping[str, str], said: Mapping[str, int], path: Path) -> SexCoding | None:
    own = next((own for own, known in names.items() if known == "sex"), None)
    return None if own is None else column_coding(table["sex"], column=own, declared=said, where=str(path))


def _is_zero_no_age(column: pd.Series) -> bool:
    ages = np.array([read_age(text, source="").years for text in column.unique()])
    others = ages[ages > 0]
    return bool((ages == 0).any()) and len(others) >= _FEWEST_OTHER_AGES and others.min() >= _YOUNGEST_OF_ADULTS


def _labels(
    table: pd.DataFrame, names: Iterable[str], path: Path, notes: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the columns that are labels, and of those that are ignored; appends remarks to `notes`.

    Args:
        table: Table of labels.
        names: Names of the columns other than the known ones.
        path: Path of the table, for messages.
        notes: List that remarks are appended to.
    """
    scalars, ignored, told = [], [], []
    for name in names:
        if is_nameless(name) or is_other_id(name):
            ignored.append(name)
            told.append(name or "one without a name")
            continue
        judged = judge_column(name, table[name], path=path)
        if judged.is_label:
            scalars.append(name)
            notes += judged.told
        else:
            ignored.append(name)
            told.append(f"{name} ({judged.told[0]})" if judged.told else f"{name} (empty)")
    notes += [f"columns that are not numeric are not stored: {', '.join(told)}"] if told else []
    return tuple(scalars), tuple(ignored)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"--labels={path}: no such file")
    if path.suffix not in SUFFIXES:
        raise DataError(f"--labels={path}: a table ends with {' or '.join(SUFFIXES)}")
    table = read_text_table(path) if path.suffix == ".csv" else _read_parquet(path)
    if table.empty:
        raise DataError(f"{path}: has no row below its header; write one for each recording")
    return table.map(str.strip)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (ValueError, OSError) as error:  # The errors of Arrow are ValueErrors.
        raise DataError(f"{path}: not a {path.suffix} table that can be read ({error}); write it again") from error
    if any(name is not None for name in table.index.names):
        table = table.reset_index()  # The index that pandas wrote is a column like any other.
    table = table.rename(columns=lambda name: str(name).strip())
    for own, known in known_names(table.columns, path=path).items():
        is_float = known in _WHOLE_COLUMNS and pd.api.types.is_float_dtype(table[own])
        if is_float and (table[own].abs() >= _LARGEST_EXACT).any():
            raise DataError(
                f"{path}: column '{own}' holds numbers with a fraction, too large to be exact: different ids can look "
                "the same; write it as text or as whole numbers"
            )
    return pd.DataFrame({name: _as_texts(table[name]) for name in table}, dtype=str)


def _as_texts(column: pd.Series) -> list[str]:
    """Returns the cells of a column of Parquet as the texts that they would be in a CSV; empty where missing."""
    cells = zip(column.astype(object), column.isna(), strict=True)
    return ["" if is_absent else _as_text(value) for value, is_absent in cells]


def _as_text(value: object) -> str:
    """Returns the text of a cell that is not empty; whole numbers are written without a fraction, as ids are."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
