"""MIMIC-IV-ECG: 800,000 ECGs of 160,000 patients in Boston, with measurements and reports of the electrocardiographs.

Gow et al., "MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset" (version 1.0), PhysioNet (2023).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_pipelines.builders.base import RecordingReader, Refusal, SourceCard, check_not_refused, ecg_record
from data_pipelines.builders.lazy_items import LazyItems
from data_pipelines.errors import DataError
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.metadata.origins import origin_of
from data_pipelines.readers.lengths import Length, wfdb_length
from data_pipelines.readers.wfdb_files import read_wfdb
from data_pipelines.recording import Recording
from data_pipelines.records import EcgRecord, LabelSchema
from data_pipelines.signals.conversion import StoredSignal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.system.counted import counted
from data_pipelines.system.plain_names import path_below

RECORDS_FILE = "record_list.csv"
MEASUREMENTS_FILE = "machine_measurements.csv"

#: Times within the cart's median beat (and its RR interval), ms, and electrical axes, degrees.
TIMES = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
AXES = ("p_axis", "qrs_axis", "t_axis")
MEASUREMENTS = TIMES + AXES

SCALARS = (*MEASUREMENTS, "time_days")
UNITS = dict.fromkeys(TIMES, "ms") | dict.fromkeys(AXES, "degrees") | {"time_days": "d"}

#: Range of values that a cart can measure in 10 s. 29999 stands for 'not measured', and elsewhere the extremes of
#: integer types do; values outside of the range are stored as missing and counted in the notes.
RANGES = (
    {"rr_interval": (1.0, 10_000.0)} | dict.fromkeys(TIMES[1:], (0.0, 10_000.0)) | dict.fromkeys(AXES, (-360.0, 360.0))
)

_REPORT_LINES = tuple(f"report_{line}" for line in range(18))
_ROWS_PER_READ = 50_000
_SECONDS_PER_DAY = 86_400
_NO_ROW = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MimicItem:
    """One record.

    Attributes:
        record_id: Study id of the record.
        patient_id: Subject id of the record.
        path: Path of the WFDB record without extension.
        report: Report of the cart, its lines joined by line feeds.
        scalars: Values of `SCALARS`, in that order.
        refusal: Reason why the record must not be stored, or None.
    """

    record_id: str
    patient_id: str
    path: Path
    report: str
    scalars: tuple[float, ...]
    refusal: Refusal | None = None


class MimicIvEcgSource:
    """MIMIC-IV-ECG as published: `record_list.csv`, `machine_measurements.csv` and `files/pNNNN/pNNNNNNNN/sNNNNNNNN/`.

    The tables are read in chunks into columns; about 500 bytes per record stay in memory.
    """

    def __init__(self, folder: Path, *, recipe: SignalRecipe):
        """Reads both tables; the reader reads the signals.

        Args:
            folder: Folder of the two tables.
            recipe: Recipe by which the signals are converted.

        Raises:
            DataError: A table is missing or empty, lacks a column, has an invalid value, or lists a study twice.
        """
        records = _read_records(folder / RECORDS_FILE)
        if not len(records["study_id"]):
            raise DataError(f"{folder / RECORDS_FILE}: lists no record; download it again")
        measured = _read_measurements(folder / MEASUREMENTS_FILE)
        self._folder = folder
        self._study, self._subject, self._path = records["study_id"], records["subject_id"], records["path"]
        self._row = pd.Index(measured.study_id).get_indexer(self._study)
        self._measured = measured
        self._time_days = _days_since_first(records["seconds"], self._subject)
        self.items = LazyItems(len(self._study), self._item)
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(scalars=SCALARS, units=UNITS)
        self.card = SourceCard(
            name="mimic_iv_ecg",
            description="MIMIC-IV-ECG: 12-lead ECGs of 10 s from the Beth Israel Deaconess Medical Center, Boston, "
            "2008-2019, with the cart's report and measurements. 'time_days' counts from a patient's first ECG: dates "
            "were shifted for anonymity, by an amount of its own for every patient.",
            simulated=False,
            citation="Gow et al., MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset (version 1.0), PhysioNet "
            "(2023). https://doi.org/10.13026/4nqg-sb35",
            license="ODbL-1.0",
            notes=self._notes(int(np.isnan(self._time_days).sum())),
        )

    def _notes(self, num_timeless: int) -> tuple[str, ...]:
        notes = [
            "the set has no folds: patients are dealt to folds 1 to 10 by a hash of their id",
            "age and sex are not part of MIMIC-IV-ECG and are missing",
        ]
        if removed := ", ".join(f"{name} {count}" for name, count in self._measured.num_removed.items() if count):
            notes.append(
                f"measurements that stand for 'not measured' (29999 …) or cannot be, and are missing: {removed}"
            )
        if num_without := np.count_nonzero(self._row == _NO_ROW):
            notes.append(
                f"{counted(int(num_without), 'record has', 'records have')} no row in {MEASUREMENTS_FILE}: no "
                "measurements and no report"
            )
        if num_unused := len(self._measured.study_id) - len(np.unique(self._row[self._row != _NO_ROW])):
            notes.append(
                f"{counted(int(num_unused), 'row')} of {MEASUREMENTS_FILE} {'is' if num_unused == 1 else 'are'} of "
                f"studies that {RECORDS_FILE} does not list"
            )
        if num_timeless:
            notes.append(
                f"{counted(int(num_timeless), 'record has', 'records have')} no ecg_time that can be read: time_days "
                f"is missing"
            )
        return tuple(notes)

    def reader(self) -> RecordingReader[MimicItem]:
        """Returns a reader of the records, in the order of `record_list.csv`."""
        return RecordingReader(open=_open, record=_record, recipe=self.recipe, length=_length)

    def _item(self, position: int) -> MimicItem:
        study, subject, row = int(self._study[position]), int(self._subject[position]), int(self._row[position])
        path, has_row = self._path[position], row != _NO_ROW
        values = self._measured.values[row] if has_row else np.full(len(MEASUREMENTS), math.nan, np.float32)
        refusal = None
        # A path in the table could lead anywhere on this machine.
        if path_below(self._folder, path) is None or f"/p{subject}/s{study}/" not in f"/{path}":
            refusal = Refusal(
                "header_disagrees",
                f"study {study} of patient {subject}: its path '{path}' is not that of this patient and study; "
                f"restore {RECORDS_FILE}",
            )
        elif has_row and int(self._measured.subject_id[row]) != subject:
            refusal = Refusal(
                "missing_patient",
                f"study {study}: of patient {subject} in {RECORDS_FILE}, of {int(self._measured.subject_id[row])} "
                f"in {MEASUREMENTS_FILE}; use the files of one release",
            )
        return MimicItem(
            record_id=str(study),
            patient_id=str(subject),
            path=self._folder / path,
            report=self._measured.report[row] if has_row else "",
            scalars=(*values.tolist(), float(self._time_days[position])),
            refusal=refusal,
        )


def _open(item: MimicItem) -> Recording:
    check_not_refused(item.refusal)
    return read_wfdb(item.path)


def _length(item: MimicItem) -> Length | None:
    # The path of a refused item may lead out of the folder, so that not even its header is read.
    return None if item.refusal else wfdb_length(item.path)


def _record(item: MimicItem, recording: Recording, stored: StoredSignal) -> EcgRecord:
    return ecg_record(
        stored,
        origin=origin_of(recording, form="wfdb"),
        record_id=item.record_id,
        patient_id=item.patient_id,
        fold=fold_of_patient(item.patient_id),
        report=item.report,
        scalars=dict(zip(SCALARS, item.scalars, strict=True)),
    )


def _read_records(path: Path) -> dict[str, np.ndarray]:
    """Returns columns of all records: `study_id` and `subject_id`, `int64[n]`, `path`, and `seconds`, `f64[n]`.

    Seconds count from 1970, and are NaN where missing.
    """
    types = {"subject_id": np.int64, "study_id": np.int64, "path": str, "ecg_time": str}
    parts: dict[str, list[np.ndarray]] = {"study_id": [], "subject_id": [], "path": [], "seconds": []}
    for table in _pieces(path, types):
        # A time that cannot be read makes `time_days` missing; the notes count such records.
        times = pd.to_datetime(table["ecg_time"], format="%Y-%m-%d %H:%M:%S", errors="coerce")
        table["seconds"] = (times - pd.Timestamp(0)).dt.total_seconds()
        for name, columns in parts.items():
            columns.append(table[name].to_numpy())
    records = {name: np.concatenate(columns) for name, columns in parts.items()}
    _check_unique(records["study_id"], path)
    return records


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measurements:
    """The contents of the table of measurements, one row per study.

    Attributes:
        study_id: Study of each row, `int64[n]`.
        subject_id: Patient of each row, `int64[n]`.
        values: Measurements in the order of `MEASUREMENTS`, `f32[n, 9]`, NaN where missing.
        report: Report of each study.
        num_removed: Number of impossible values of each measurement, which were replaced by NaN.
    """

    study_id: np.ndarray
    subject_id: np.ndarray
    values: np.ndarray
    report: list[str]
    num_removed: dict[str, int]


def _read_measurements(path: Path) -> _Measurements:
    types: dict[str, type] = {"subject_id": np.int64, "study_id": np.int64}
    types |= dict.fromkeys(_REPORT_LINES, str) | dict.fromkeys(MEASUREMENTS, np.float32)
    low, high = np.array([RANGES[name] for name in MEASUREMENTS], np.float32).T
    studies, subjects, values, reports = [], [], [], []
    num_removed = np.zeros(len(MEASUREMENTS), np.int64)
    for table in _pieces(path, types):
        piece = table[list(MEASUREMENTS)].to_numpy(np.float32)
        impossible = (piece < low) | (piece > high)
        num_removed += impossible.sum(axis=0)
        values.append(np.where(impossible, np.float32(math.nan), piece))
        studies.append(table["study_id"].to_numpy())
        subjects.append(table["subject_id"].to_numpy())
        lines = table[list(_REPORT_LINES)].to_numpy().tolist()
        # Many reports consist of the same few lines, so equal reports share one string.
        reports += [sys.intern("\n".join(filter(None, map(str.strip, row)))) for row in lines]
    measured = _Measurements(
        study_id=np.concatenate(studies),
        subject_id=np.concatenate(subjects),
        values=np.concatenate(values),
        report=reports,
        num_removed=dict(zip(MEASUREMENTS, num_removed.tolist(), strict=True)),
    )
    _check_unique(measured.study_id, path)
    return measured


def _pieces(path: Path, types: dict[str, type]) -> Iterator[pd.DataFrame]:
    """Yields a table in chunks of rows; missing texts are empty and missing numbers are NaN.

    Args:
        path: Path of the table.
        types: Type of each column to read, by its name.

    Raises:
        DataError: The file is missing or is no such table.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; --source is the folder of MIMIC-IV-ECG, with {RECORDS_FILE}, "
            f"{MEASUREMENTS_FILE} and files/"
        )
    # By default pandas would also take 'NA' or 'null' in a report for a missing text.
    missing = {name: [""] for name, kind in types.items() if kind is np.float32}
    options: dict[str, Any] = {"dtype": types, "keep_default_na": False, "na_values": missing}
    try:
        with pd.read_csv(path, usecols=list(types), chunksize=_ROWS_PER_READ, **options) as pieces:
            yield from pieces
    except ValueError as error:  # The errors of pandas are ValueErrors.
        raise DataError(f"{path}: not MIMIC-IV-ECG's own table ({error}); download it again") from error


def _check_unique(studies: np.ndarray, path: Path) -> None:
    if len(repeated := studies[pd.Series(studies).duplicated().to_numpy()]):
        which = counted(len(repeated), "row names", "rows name")
        message = f"{path}: {which} a study that came before, first {repeated[0]}; download it again"
        raise DataError(message)


def _days_since_first(seconds: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Returns the days since the subject's first recording, `f64[n]`.

    Args:
        seconds: Time of each recording, `f64[n]`, NaN where missing.
        subject: Subject of each recording, `int64[n]`.
    """
    # The dates of each patient were shifted by another amount, so only differences within a patient mean anything.
    first = pd.Series(seconds).groupby(subject).transform("min").to_numpy()
    return (seconds - first) / _SECONDS_PER_DAY
