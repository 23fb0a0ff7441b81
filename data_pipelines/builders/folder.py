"""Any tree of WFDB records, with an optional CSV of patients and labels."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from data_pipelines.builders.base import Quarantined, SourceCard, read_items
from data_pipelines.demographics import age_in_years, fold_of_patient, number, sex_code
from data_pipelines.errors import DataError, RecordError
from data_pipelines.readers.wfdb_files import find_wfdb_records, read_wfdb
from data_pipelines.recipe import SignalRecipe
from data_pipelines.records import NO_FOLD, EcgRecord, LabelSchema
from data_pipelines.signals import stored_signal

#: Columns of the CSV with a meaning of their own; every other numeric column becomes a scalar label.
KNOWN_COLUMNS = ("record", "patient_id", "age", "sex", "fold", "report")


# TFDS makes file names and identifiers of it.
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderItem:
    """One record of the tree, with its row of the CSV.

    Attributes:
        record_id: path below the folder, without extension.
        path: the WFDB record; None where the CSV names one that is not there.
        row: the CSV's values by column as text, empty where missing; None for a record without a row. Without a
            CSV, at most the patient id.
    """

    record_id: str
    path: Path | None
    row: Mapping[str, str] | None


class FolderSource:
    """Every `.hea` under a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        labels: Path | None,
        patient_field: str | None,
        name: str,
        recipe: SignalRecipe,
        num_workers: int,
    ):
        """Lists the folder and reads the CSV; signals are read by `records()`.

        Args:
            folder: searched recursively.
            labels: CSV with the columns `record` (path below the folder without extension, or the record's name) and
                `patient_id`, and optionally `age` in years, `sex` (male/female, m/f or 0/1), `fold` (whole number),
                `report` and any numeric columns, which become scalar labels. A record without a row is quarantined.
            patient_field: header comment (`# FIELD: value`) that holds the patient id; not with `labels`.
            name: name of the data set.
            recipe: what is done to the signals.
            num_workers: processes that read.

        Raises:
            DataError: no record under the folder, or a CSV that does not fit it.
        """
        if labels and patient_field:
            raise DataError("--labels and --patient_field both say who the patient is; give one of them")
        if not _NAME.fullmatch(name):
            raise DataError(f"--name={name}: lower case letters, digits and _ only, a letter first")
        records = find_wfdb_records(folder)
        if not records:
            raise DataError(f"{folder}: no WFDB header (.hea) in it or below; is --source right?")
        self._table = _LabelTable(labels) if labels else None
        self._patient_field = patient_field
        self._num_workers = num_workers
        by_id = {path.relative_to(folder).as_posix(): path for path in records}
        if self._table:
            self._items = self._table.join(by_id)
        else:
            self._items = [
                FolderItem(record_id=record_id, path=path, row={} if patient_field else {"patient_id": record_id})
                for record_id, path in by_id.items()
            ]
        self.num_items = len(self._items)
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(scalars=self._table.scalars if self._table else ())
        self.card = SourceCard(
            name=name,
            description=f"12-lead ECGs read from a folder of {len(records)} WFDB records.",
            simulated=False,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._table is None and self._patient_field is None:
            notes.append("no patient ids were given: each record is taken for a patient of its own (--labels)")
        if self._table and self._table.ignored:
            notes.append(f"columns that are not numeric are not stored: {', '.join(self._table.ignored)}")
        if self._table is None or "fold" not in self._table.columns:
            notes.append("no folds were given: patients are dealt to folds 1 to 10 by a hash of their id")
        return tuple(notes)

    def records(self) -> Iterator[EcgRecord | Quarantined]:
        """Yields the records in the order of their paths; those that only the CSV names come last."""
        read = functools.partial(
            _read,
            patient_field=self._patient_field,
            scalars=self.label_schema.scalars,
            recipe=self.recipe,
        )
        return read_items(read, self._items, num_workers=self._num_workers)


class _LabelTable:
    """The CSV, checked, its values as text."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise DataError(f"--labels={path}: no such file")
        table = pd.read_csv(path, dtype=str, keep_default_na=False).map(str.strip)
        missing = [column for column in ("record", "patient_id") if column not in table.columns]
        if missing:
            raise DataError(f"{path}: column {', '.join(missing)} is missing; it has {', '.join(table.columns)}")
        twice = [record for record, count in Counter(table["record"]).items() if count > 1]
        if twice:
            raise DataError(f"{path}: {len(twice)} records have more than one row, first '{twice[0]}'")
        others = [column for column in table.columns if column not in KNOWN_COLUMNS]
        self.path = path
        self.columns = tuple(table.columns)
        self.scalars = tuple(column for column in others if _is_numeric(table[column]))
        self.ignored = tuple(column for column in others if column not in self.scalars)
        self._rows = {row["record"]: row for row in table.to_dict("records")}

    def join(self, by_id: Mapping[str, Path]) -> list[FolderItem]:
        """Gives each record its row, by path or else by name, and each row without a record an item of its own."""
        ids_of_name = Counter(path.name for path in by_id.values())
        items, used = [], set()
        for record_id, path in by_id.items():
            key = record_id if record_id in self._rows else path.name
            if key not in self._rows:
                items.append(FolderItem(record_id=record_id, path=path, row=None))
                continue
            if key != record_id and ids_of_name[path.name] > 1:
                raise DataError(
                    f"{self.path}: '{key}' could be any of {ids_of_name[path.name]} records of that name; "
                    "write the path below the folder instead"
                )
            used.add(key)
            items.append(FolderItem(record_id=record_id, path=path, row=self._rows[key]))
        if not used:
            raise DataError(
                f"{self.path}: not one of its {len(self._rows)} records is in the folder; 'record' is the path below "
                f"it without extension, such as '{next(iter(by_id))}'"
            )
        absent = [name for name in self._rows if name not in used]
        return items + [FolderItem(record_id=name, path=None, row=self._rows[name]) for name in absent]


def _read(
    item: FolderItem,
    *,
    patient_field: str | None,
    scalars: tuple[str, ...],
    recipe: SignalRecipe,
) -> EcgRecord:
    if item.path is None:
        raise RecordError(f"{item.record_id}: has a row of labels but no .hea in the folder", reason="missing_file")
    if item.row is None:
        raise RecordError(
            f"{item.path}: has no row in the CSV of labels, so its patient is not known; add one",
            reason="missing_patient",
        )
    source = str(item.path)
    recording = read_wfdb(item.path)
    patient_id = (recording.field(patient_field) if patient_field else item.row["patient_id"]) or ""
    if not patient_id:
        where = f"header comment '{patient_field}'" if patient_field else "patient_id in the CSV of labels"
        raise RecordError(f"{source}: no {where}, so its patient is not known", reason="missing_patient")
    stored = stored_signal(recording, recipe=recipe)
    return EcgRecord(
        record_id=item.record_id,
        patient_id=patient_id,
        signal=stored.signal,
        valid_start=stored.valid_start,
        valid_samples=stored.valid_samples,
        age_years=age_in_years(item.row.get("age") or recording.field("Age") or "", source=source),
        sex=sex_code(item.row.get("sex") or recording.field("Sex") or "", source=source),
        fold=_fold(item.row["fold"], source) if "fold" in item.row else fold_of_patient(patient_id),
        report=item.row.get("report", ""),
        scalars={name: number(item.row[name]) for name in scalars},
    )


def _fold(text: str, source: str) -> int:
    if not text:
        return NO_FOLD
    if not text.isdecimal() or int(text) > 1000:
        raise RecordError(f"{source}: fold is '{text}', a whole number from 0 to 1000 expected", reason="bad_label")
    return int(text)


def _is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers (or truth values), at least one, and nothing else but gaps."""
    try:
        values = [number(text) for text in column]
    except ValueError:
        return False
    return not all(map(math.isnan, values))
