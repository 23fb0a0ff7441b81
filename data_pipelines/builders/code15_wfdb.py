"""CODE-15 % as WFDB records, the form of the PhysioNet/CinC Challenge 2025: patient and Chagas label in the header.

Reyna et al., "Detection of Chagas Disease from the ECG: The George B. Moody PhysioNet Challenge 2025".
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from data_pipelines.builders.base import RecordingReader, Source, SourceCard, ecg_record
from data_pipelines.builders.code15 import CITATION, EXAMS_FILE, LICENSE, SAMPLING_RATE_HZ, Code15Source
from data_pipelines.demographics import age_in_years, fold_of_patient, number, sex_code
from data_pipelines.errors import DataError, RecordError
from data_pipelines.readers.left_out import what_is_there
from data_pipelines.readers.lengths import Length, wfdb_length
from data_pipelines.readers.recording import Recording
from data_pipelines.readers.wfdb_files import find_wfdb_records, read_wfdb
from data_pipelines.recipe import SignalRecipe
from data_pipelines.records import EcgRecord, LabelSchema
from data_pipelines.signals import StoredSignal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Code15WfdbItem:
    """One record: its path below the folder, and as a whole, without extension."""

    record_id: str
    path: Path


class Code15WfdbSource:
    """Every `.hea` under a folder, with `Patient ID`, `Age`, `Sex` and `Chagas label` among its comments."""

    def __init__(self, folder: Path, *, recipe: SignalRecipe):
        """Lists the records; they are read by the reader.

        Args:
            folder: searched recursively.
            recipe: what is done to the signals.

        Raises:
            DataError: no record under the folder.
        """
        paths = find_wfdb_records(folder)
        if not paths:
            raise DataError(
                f"{folder}: neither {EXAMS_FILE} nor a WFDB header (.hea) below; {what_is_there(folder)}; is --source "
                "right?"
            )
        self.items = [Code15WfdbItem(record_id=path.relative_to(folder).as_posix(), path=path) for path in paths]
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(scalars=("chagas",))
        self.card = SourceCard(
            name="code15",
            description="CODE-15 %: 12-lead ECGs from the Telehealth Network of Minas Gerais, Brazil, 2010-2016, as "
            "WFDB records of the PhysioNet Challenge 2025, with whether the patient has Chagas disease.",
            simulated=False,
            citation=CITATION,
            license=LICENSE,
            notes=(
                "Chagas labels of CODE-15 % are what patients said of themselves, not serology",
                "the set has no folds: patients are dealt to folds 1 to 10 by a hash of their id",
            ),
        )

    def reader(self) -> RecordingReader[Code15WfdbItem]:
        """Returns what reads records; they stand in the order of their paths."""
        return RecordingReader(open=_open, record=_record, recipe=self.recipe, length=_length)


def code15_source(folder: Path, *, recipe: SignalRecipe) -> Source:
    """Returns the source of CODE-15 % in the layout it lies in: as published where there is an `exams.csv`, else WFDB.

    Args:
        folder: with `exams.csv` and its parts, or with WFDB records.
        recipe: what is done to the signals.

    Raises:
        DataError: the folder has neither.
    """
    source = Code15Source if (folder / EXAMS_FILE).is_file() else Code15WfdbSource
    return source(folder, recipe=recipe)


def _open(item: Code15WfdbItem) -> Recording:
    source = str(item.path)
    recording = read_wfdb(item.path)
    if recording.sampling_rate_hz != SAMPLING_RATE_HZ:
        raise RecordError(
            f"{source}: the header says {recording.sampling_rate_hz:g} Hz, but all of CODE-15 % was published at "
            f"{SAMPLING_RATE_HZ} Hz; restore the header",
            reason="wrong_rate",
        )
    if not recording.field("Patient ID"):
        raise RecordError(f"{source}: no 'Patient ID' in the header", reason="missing_patient")
    return recording


def _length(item: Code15WfdbItem) -> Length | None:
    return wfdb_length(item.path)


def _record(item: Code15WfdbItem, recording: Recording, stored: StoredSignal) -> EcgRecord:
    source, patient_id = str(item.path), recording.field("Patient ID") or ""
    return ecg_record(
        stored,
        record_id=item.record_id,
        patient_id=patient_id,
        age_years=age_in_years(recording.field("Age") or "", source=source),
        sex=sex_code(recording.field("Sex") or "", source=source),
        fold=fold_of_patient(patient_id),
        scalars={"chagas": _chagas(recording.field("Chagas label") or "", source)},
    )


def _chagas(text: str, source: str) -> float:
    try:
        return number(text)
    except ValueError as error:
        raise RecordError(
            f"{source}: 'Chagas label' is '{text}', True, False or nothing expected", reason="bad_label"
        ) from error
