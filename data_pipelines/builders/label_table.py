"""A table of who was recorded and what is known: CSV or Parquet, one row a recording."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from data_pipelines.builders.text_table import read_text_table
from data_pipelines.demographics import number
from data_pipelines.errors import DataError

#: Columns with a meaning of their own; every other numeric column becomes a scalar label.
KNOWN_COLUMNS = ("record", "patient_id", "age", "sex", "fold", "report")

#: What a table may be called.
SUFFIXES = (".csv", ".parquet")


class LabelTable:
    """A label table, checked, its values as text, empty where missing.

    Attributes:
        path: its file.
        columns: names of all its columns.
        scalars: columns that are labels.
        ignored: columns that are neither known nor numeric, or have no name (such as the numbers pandas writes).
    """

    def __init__(self, path: Path):
        """Reads the table.

        Args:
            path: `.csv` with a header line, or `.parquet`; the columns `record` and `patient_id` are needed.

        Raises:
            DataError: no such file, not such a table, a column missing or misnamed, or two rows for one record.
        """
        table = _read(path)
        missing = [column for column in ("record", "patient_id") if column not in table.columns]
        if missing:
            raise DataError(f"{path}: column {', '.join(missing)} is missing; it has {', '.join(table.columns)}")
        if "age_years" in table.columns:
            # It would be hidden by the label of that name which every data set has.
            raise DataError(f"{path}: call its column 'age_years' 'age'")
        twice = [record for record, count in Counter(table["record"]).items() if count > 1]
        if twice:
            raise DataError(f"{path}: {len(twice)} records have more than one row, first '{twice[0]}'")
        others = [column for column in table.columns if column not in KNOWN_COLUMNS]
        self.path = path
        self.columns = tuple(table.columns)
        self.scalars = tuple(column for column in others if column and _is_numeric(table[column]))
        self.ignored = tuple(column for column in others if column not in self.scalars)
        self._rows = {row["record"]: row for row in table.to_dict("records")}

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._rows)

    def rows_of(self, record_ids: Iterable[str]) -> dict[str, Mapping[str, str] | None]:
        """Gives each record its row: the one of its path, or else the one of its bare name.

        Args:
            record_ids: paths below the folder, without extension.

        Returns:
            The row of every record, None where the table has none; then, under their own names, the rows whose record
            is not among them, in the table's order.

        Raises:
            DataError: a bare name that several records have, or not one row that fits.
        """
        record_ids = list(record_ids)
        ids_of_name = Counter(_bare(record_id) for record_id in record_ids)
        rows: dict[str, Mapping[str, str] | None] = {}
        used = set()
        for record_id in record_ids:
            key = record_id if record_id in self._rows else _bare(record_id)
            if key not in self._rows:
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
                f"{self.path}: not one of its {len(self._rows)} records is in the folder; 'record' is the path below "
                f"it without extension, such as '{record_ids[0]}'"
            )
        return rows | {name: row for name, row in self._rows.items() if name not in used}


def _bare(record_id: str) -> str:
    return record_id.rpartition("/")[2]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"--labels={path}: no such file")
    if path.suffix not in SUFFIXES:
        raise DataError(f"--labels={path}: a table ends with {' or '.join(SUFFIXES)}")
    if path.suffix == ".csv":
        return read_text_table(path).map(str.strip)
    try:
        table = pd.read_parquet(path).map(_as_text)
    except (ValueError, OSError) as error:  # Arrow's own errors are ValueErrors.
        raise DataError(f"{path}: not a {path.suffix} table that can be read ({error}); write it again") from error
    return table.map(str.strip).rename(columns=str)


def _as_text(value: object) -> str:
    """Returns a Parquet cell as a CSV would have it; whole numbers without a fraction, so that ids stay ids."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers (or truth values), at least one, and nothing else but gaps."""
    try:
        values = [number(text) for text in column]
    except ValueError:
        return False
    return not all(map(math.isnan, values))
