"""PTB-XL in its published layout, with the tasks, folds and handling of age of its benchmark.

Wagner et al., "PTB-XL, a large publicly available electrocardiography dataset", Scientific Data 7 (2020) 154;
tasks and folds as in Strodthoff et al., "Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL",
IEEE JBHI 25 (2021) 1519.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data_pipelines.builders.base import RecordingReader, SourceCard, ecg_record, person_fields
from data_pipelines.errors import DataError, RecordError
from data_pipelines.label_tables.text_table import read_published_table
from data_pipelines.metadata.demographics import missing_patient, read_person, unread_label
from data_pipelines.metadata.missing import is_missing_id
from data_pipelines.metadata.origins import origin_of
from data_pipelines.metadata.sexes import PTBXL_CODING
from data_pipelines.readers.lengths import length_of_item
from data_pipelines.readers.wfdb_files import read_wfdb
from data_pipelines.recording import Recording
from data_pipelines.records import LABEL_MISSING, EcgRecord, LabelSchema, Remark
from data_pipelines.signals.conversion import StoredSignal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.system.plain_names import path_below

_FILENAME_COLUMN = {100: "filename_lr", 500: "filename_hr"}
_DATABASE_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold")
_STATEMENT_COLUMNS = ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PtbxlItem:
    """A row of `ptbxl_database.csv`; values are text, named as there. `path` is None if it leads out of the folder."""

    record_id: str
    patient_id: str
    path: Path | None
    age: str
    sex: str
    report: str
    scp_codes: str
    strat_fold: str


class ScpTasks:
    """The benchmark's six multi-label tasks, derived from the SCP statements of a record.

    A code counts at any likelihood, 0 ("unknown") included, as in the benchmark. A record without any label of a task
    has `LABEL_MISSING` for all of its classes, as the benchmark leaves it out.
    """

    def __init__(self, statements: pd.DataFrame):
        """Derives the tasks from the table `scp_statements.csv`.

        Args:
            statements: Table as text; its first, unnamed column holds the codes.
        """
        codes = statements.iloc[:, 0]

        def marked(column: str) -> pd.Series:
            """Returns the codes that `column` marks with 1."""
            return codes[pd.to_numeric(statements[column]) == 1]

        def classes_of(column: str) -> dict[str, str]:
            """Returns the class of each diagnostic code, without codes that have no class."""
            diagnostic = marked("diagnostic")
            classes = statements.loc[diagnostic.index, column]
            return {code: name for code, name in zip(diagnostic, classes, strict=True) if name}

        # In these tasks every code is a class of its own.
        of_codes = {"all": codes} | {column: marked(column) for column in ("diagnostic", "form", "rhythm")}
        own = {task: dict(zip(names, names, strict=True)) for task, names in of_codes.items()}
        self._class_of_code: dict[str, Mapping[str, str]] = {
            "all": own["all"],
            "diagnostic": own["diagnostic"],
            "subdiagnostic": classes_of("diagnostic_subclass"),
            "superdiagnostic": classes_of("diagnostic_class"),
            "form": own["form"],
            "rhythm": own["rhythm"],
        }
        #: Class names of each task, in alphabetical order.
        self.classes = {task: tuple(sorted(set(names.values()))) for task, names in self._class_of_code.items()}

    def labels(self, codes: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Returns the labels of a record, `int8[classes]`, by task.

        Args:
            codes: Likelihood of each SCP code of the record, in percent.
        """
        labels = {}
        for task, class_of_code in self._class_of_code.items():
            present = {class_of_code[code] for code in codes if code in class_of_code}
            row = [name in present for name in self.classes[task]]
            labels[task] = np.array(row, np.int8) if present else np.full(len(row), LABEL_MISSING, np.int8)
        return labels

    def unknown(self, codes: Mapping[str, float]) -> list[str]:
        """Returns the codes that `scp_statements.csv` does not list, sorted."""
        return sorted(set(codes) - set(self._class_of_code["all"]))


class PtbxlSource:
    """PTB-XL as unpacked: `ptbxl_database.csv`, `scp_statements.csv`, `records100/` and `records500/`."""

    def __init__(self, folder: Path, *, source_rate_hz: int, recipe: SignalRecipe):
        """Reads the two tables; the reader reads the signals.

        Args:
            folder: Folder that PTB-XL was unpacked into.
            source_rate_hz: Rate of the published copy to read, 100 or 500.
            recipe: Recipe by which the signals are converted.

        Raises:
            DataError: A table is missing or lacks a column.
        """
        if source_rate_hz not in _FILENAME_COLUMN:
            raise DataError(f"--source_rate_hz={source_rate_hz}: PTB-XL is published at 100 and 500 Hz")
        statements = _read_table(folder / "scp_statements.csv", _STATEMENT_COLUMNS)
        filename = _FILENAME_COLUMN[source_rate_hz]
        database = _read_table(folder / "ptbxl_database.csv", (*_DATABASE_COLUMNS, filename))
        self.card = SourceCard(
            name="ptbxl",
            description="PTB-XL: 12-lead ECGs of 10 s from clinics in Germany, 1989-1996, with SCP-ECG statements. "
            f"Read from its {source_rate_hz} Hz records. Ages above 89, published as 300, are stored as 90.",
            simulated=False,
            citation="Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, "
            "Scientific Data 7, 154 (2020). https://doi.org/10.1038/s41597-020-0495-6",
            license="CC-BY-4.0",
            sex_reading=PTBXL_CODING.said_by,
        )
        self._tasks = ScpTasks(statements)
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(tasks=self._tasks.classes)
        self.items = [
            PtbxlItem(
                record_id=row["ecg_id"],
                # PTB-XL writes patient ids as floats ('15709.0'); the id is the whole number.
                patient_id=row["patient_id"].removesuffix(".0"),
                path=path_below(folder, row[filename]),
                **{name: row[name] for name in ("age", "sex", "report", "scp_codes", "strat_fold")},
            )
            for row in database.to_dict("records")
        ]

    def reader(self) -> RecordingReader[PtbxlItem]:
        """Returns a reader of rows of `ptbxl_database.csv`."""
        record = functools.partial(_record, tasks=self._tasks)
        return RecordingReader(open=_open, record=record, recipe=self.recipe, length=length_of_item)


def _open(item: PtbxlItem) -> Recording:
    if is_missing_id(item.patient_id):
        source = f"ecg_id {item.record_id}"
        raise missing_patient(item.patient_id, where="patient_id in ptbxl_database.csv", source=source)
    if item.path is None:
        raise RecordError(
            f"ecg_id {item.record_id}: its filename in ptbxl_database.csv is not that of a file below the folder of "
            "the table; restore the table",
            reason="missing_file",
        )
    return read_wfdb(item.path)


def _record(item: PtbxlItem, recording: Recording, stored: StoredSignal, *, tasks: ScpTasks) -> EcgRecord:
    source = f"ecg_id {item.record_id}"
    person = read_person(age=item.age, sex=item.sex, coding=PTBXL_CODING, source=source)
    codes, of_codes = _scp_codes(item.scp_codes, tasks, source)
    return ecg_record(
        stored,
        origin=origin_of(recording, form="wfdb"),
        record_id=item.record_id,
        patient_id=item.patient_id,
        fold=_fold(item.strat_fold, source),
        report=item.report,
        tasks=tasks.labels(codes),
        **person_fields(recording, person, of_codes),
    )


def _scp_codes(text: str, tasks: ScpTasks, source: str) -> tuple[dict[str, float], tuple[Remark, ...]]:
    """Returns SCP codes and their likelihoods; if one cannot be read or is unknown, there is a remark and no code.

    With the other codes alone, the record would count as negative for the unknown code.

    Args:
        text: Dictionary of codes in Python's notation, as in the table.
        tasks: Tasks, which list the known codes.
        source: Name of the recording, for remarks.
    """
    try:
        # The table has dictionaries as Python writes them, in single quotes, which JSON does not allow.
        codes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        codes = None
    if not isinstance(codes, dict):
        expected = "a dictionary like {'NORM': 100.0}"
        return {}, (unread_label("scp_codes", text, expected=expected, source=source),)
    # Files of two releases would give a record only a part of its labels.
    if unknown := tasks.unknown(codes):
        expected = "codes of scp_statements.csv (use the two files of one PTB-XL release)"
        return {}, (unread_label("scp_codes", ", ".join(unknown), expected=expected, source=source),)
    return codes, ()


def _fold(text: str, source: str) -> int:
    if not text.isdecimal():
        raise RecordError(f"{source}: strat_fold is '{text}', a whole number expected", reason="bad_label")
    return int(text)


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; --source is the folder PTB-XL was unpacked into, with ptbxl_database.csv, "
            "scp_statements.csv, records100/ and records500/"
        )
    return read_published_table(path, columns, owner="PTB-XL")
