"""CODE-15 % as WFDB records, as in the PhysioNet/CinC Challenge 2025: patient and Chagas label are in the header.

Reyna et al., "Detection of Chagas Disease from the ECG: The George B. Moody PhysioNet Challenge 2025".
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from data_pipelines.builders.base import RecordingReader, Source, SourceCard, ecg_record, person_fields, person_of
from data_pipelines.builders.code15 import CITATION, EXAMS_FILE, LICENSE, SAMPLING_RATE_HZ, Code15Source
from data_pipelines.errors import DataError, RecordError
from data_pipelines.metadata.demographics import fold_of_patient, missing_patient, number, unread_label
from data_pipelines.metadata.missing import is_missing_in_file
from data_pipelines.metadata.origins import folder_of, origin_of
from data_pipelines.metadata.sexes import WORDS
from data_pipelines.readers.left_out import what_is_there
from data_pipelines.readers.lengths import length_of_item
from data_pipelines.readers.wfdb_files import find_wfdb_records, read_wfdb
from data_pipelines.recording import Recording
from data_pipelines.records import EcgRecord, LabelSchema, Remark
from data_pipelines.signals.conversion import StoredSignal
from data_pipelines.signals.recipe import SignalRecipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Code15WfdbItem:
    """One record: its id is its path below the folder, and `path` is the whole path, both without extension."""

    record_id: str
    path: Path


class Code15WfdbSource:
    """The `.hea` files under a folder, with `Patient ID`, `Age`, `Sex` and `Chagas label` among their comments."""

    def __init__(self, folder: Path, *, recipe: SignalRecipe):
        """Lists the records; the reader reads them.

        Args:
            folder: Folder that is searched recursively.
            recipe: Recipe by which the signals are converted.

        Raises:
            DataError: There is no record under the folder.
        """
        if not (paths := find_wfdb_records(folder)):
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
            sex_reading=WORDS.said_by,
        )

    def reader(self) -> RecordingReader[Code15WfdbItem]:
        """Returns a reader of the records, which are ordered by path."""
        return RecordingReader(open=_open, record=_record, recipe=self.recipe, length=length_of_item)


def code15_source(folder: Path, *, recipe: SignalRecipe) -> Source:
    """Returns the source for the folder's layout of CODE-15 %: as published where it has `exams.csv`, else as WFDB.

    Args:
        folder: Folder with `exams.csv` and its parts, or with WFDB records.
        recipe: Recipe by which the signals are converted.

    Raises:
        DataError: The folder has neither.
    """
    source = Code15Source if (folder / EXAMS_FILE).is_file() else Code15WfdbSource
    return source(folder, recipe=recipe)


def _open(item: Code15WfdbItem) -> Recording:
    recording = read_wfdb(item.path)
    if recording.sampling_rate_hz != SAMPLING_RATE_HZ:
        raise RecordError(
            f"{item.path}: the header says {recording.sampling_rate_hz:g} Hz, but all of CODE-15 % was published at "
            f"{SAMPLING_RATE_HZ} Hz; restore the header",
            reason="wrong_rate",
        )
    patient_id = _patient_id(recording)
    if is_missing_in_file(patient_id):
        raise missing_patient(patient_id, where="'Patient ID' in the header", source=str(item.path))
    return recording


def _patient_id(recording: Recording) -> str:
    return (recording.field("Patient ID") or "").strip()


def _record(item: Code15WfdbItem, recording: Recording, stored: StoredSignal) -> EcgRecord:
    source, patient_id = str(item.path), _patient_id(recording)
    chagas, of_chagas = _chagas(recording.field("Chagas label") or "", source)
    return ecg_record(
        stored,
        origin=origin_of(recording, place=folder_of(item.record_id), form="wfdb"),
        record_id=item.record_id,
        patient_id=patient_id,
        fold=fold_of_patient(patient_id),
        scalars={"chagas": chagas},
        **person_fields(recording, person_of(recording, source=source), of_chagas),
    )


def _chagas(text: str, source: str) -> tuple[float, tuple[Remark, ...]]:
    """Returns the label, 1 for true and 0 for false, NaN where it is missing, and a remark where it cannot be read.

    Args:
        text: Text of the header's field.
        source: Name of the recording, for the remark.
    """
    try:
        return number(text), ()
    except ValueError:
        return math.nan, (unread_label("Chagas label", text, expected="True, False or nothing", source=source),)
