"""A folder tree of recordings in one or several formats, with an optional table of patients and labels."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from data_pipelines.builders.base import RecordingReader, SourceCard, ecg_record, person_fields
from data_pipelines.builders.cinc_headers import (
    doubtful_gain_notes,
    extension_notes,
    scan_headers,
    with_gain_of_any_origin,
)
from data_pipelines.builders.folder_folds import check_dealing, with_stratified_folds
from data_pipelines.builders.folder_people import FolderPeople
from data_pipelines.errors import DataError, RecordError
from data_pipelines.label_tables.label_table import LabelTable
from data_pipelines.metadata.demographics import fold_of_patient, number
from data_pipelines.metadata.missing import folded, is_missing
from data_pipelines.metadata.origins import folder_of, origin_of
from data_pipelines.metadata.sexes import declared_sexes, files_coding
from data_pipelines.metadata.source_names import name_of_source
from data_pipelines.prepared.stratified_folds import dealt_note
from data_pipelines.readers import formats as file_formats
from data_pipelines.readers import left_out
from data_pipelines.readers.lengths import Length, wfdb_length
from data_pipelines.recording import Recording
from data_pipelines.records import NO_FOLD, EcgRecord, LabelSchema
from data_pipelines.signals.conversion import StoredSignal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.statements.declared import Declared
from data_pipelines.system.counted import counted

# TFDS uses the name in file names and identifiers.
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderItem:
    """One recording of the tree, with its row of the table.

    Attributes:
        record_id: Path below the folder, without suffix.
        found: File of the recording; None where the table names one that does not exist.
        row: Values of the table by column as text, empty where missing; None for a recording without a row. Without a
            table it holds the patient id at most.
        factor: Number that the signal is multiplied by; other than 1 where a copy proved the scale that its file states
            wrong.
    """

    record_id: str
    found: file_formats.FoundRecording | None
    row: Mapping[str, str] | None
    factor: float = 1.0


class FolderSource:
    """All recordings under a folder.

    Attributes:
        header_notes: Those of the card's notes that tell how faulty headers of WFDB records are read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        labels: Path | None,
        patient_field: str | None,
        name: str,
        recipe: SignalRecipe,
        formats: Collection[str] = file_formats.FORMATS,
        declared: Declared | None = None,
        sex_coding: Sequence[str] = (),
        missing_ids: Sequence[str] = (),
        folds: str | None = None,
        only: Path | None = None,
        num_workers: int = 1,
    ):
        """Lists the folder and reads the table; the reader reads the signals.

        Args:
            folder: Folder that is searched recursively.
            labels: Table, `.csv` or `.parquet`, with the columns `record` (path below the folder without suffix, or the
                recording's name) and `patient_id`, and optionally `age` in years, `sex` in words, `fold` (whole
                number), `report` and any numeric columns, which become scalar labels. A recording without a row is
                quarantined.
            patient_field: Name of the field of a file's own metadata that holds the patient id, such as a header
                comment `# FIELD: value` or, in DICOM and XML files, `Patient ID`; not to be combined
                with `labels`.
            name: Name of the data set.
            recipe: Recipe by which the signals are converted.
            formats: Formats of the files to take, out of `readers.formats.FORMATS`.
            declared: Rate, unit and leads of files of bare samples, which do not state them.
            sex_coding: Meanings of values of sex that are not words, such as `["1=male", "2=female"]`.
            folds: Way of assigning patients to folds, one of `stratified_folds.DEALINGS`: `hash` (of the patient id) or
                `stratified`; None is the same as `hash` where the table has no column `fold`.
            missing_ids: Values of the patient id that mean "unknown", in addition to those that always do.
            only: File in the folder that is taken alone; None for all files below it.
            num_workers: Number of processes that scan the headers of WFDB records.

        Raises:
            DataError: There is no recording under the folder, two recordings have one id, the table does not fit the
                folder, or a declaration cannot be true.
        """
        if labels and patient_field:
            raise DataError("--labels and --patient_field both say who the patient is; give one of them")
        if not _NAME.fullmatch(name):
            raise DataError(f"--name={name}: lower case letters, digits and _ only, a letter first")
        declared_codes = declared_sexes(sex_coding)
        self._table = LabelTable(labels, declared_sexes=declared_codes) if labels else None
        self._missing_ids = frozenset(map(folded, missing_ids))
        check_dealing(folds, self._table)
        self._people = FolderPeople(
            patient_field=patient_field,
            given=self._table is not None or patient_field is not None,
            missing_ids=self._missing_ids,
            sex_of_table=self._table.sex_coding if self._table is not None else None,
            sex_of_files=files_coding(declared_codes),
            zero_is_no_age=self._table is not None and self._table.zero_is_no_age,
        )
        # The table may lie in the folder itself, where it would be taken for a recording in a text file.
        listed = (
            file_formats.find_recordings(folder, formats=formats, leave_out=[labels] if labels else [])
            if only is None
            else file_formats.find_recording(only, formats=formats)
        )
        if not listed.recordings:
            raise DataError(left_out.nothing_found(listed, folder, formats=tuple(formats)))
        self._left_out = left_out.notes(listed, folder, has_labels=labels is not None)
        self._counts = Counter(found.format for found in listed.recordings)
        wfdb_records = [found.path.with_suffix("") for found in listed.recordings if found.format == "wfdb"]
        headers = scan_headers(wfdb_records, num_workers=num_workers)
        self.header_notes = (*extension_notes(headers), *doubtful_gain_notes(headers))
        self._patient_field = patient_field
        self._declared = declared or Declared()
        self._declared.check()
        self._folds = folds
        self.items = self._join(listed.recordings)
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(scalars=self._table.scalars if self._table else ())
        kinds = ", ".join(f"{count} {kind}" for kind, count in self._counts.most_common())
        self.card = SourceCard(
            name=name,
            description=f"12-lead ECGs read from a folder of {counted(len(listed.recordings), 'recording')} ({kinds}).",
            simulated=False,
            notes=self._notes(name, folder),
            sex_reading=(self._people.sex_of_table or self._people.sex_of_files).said_by,
        )

    def _join(self, recordings: Collection[file_formats.FoundRecording]) -> list[FolderItem]:
        by_id = {found.record_id: found for found in recordings}
        rows: dict[str, Mapping[str, str] | None]
        if self._table is None:
            rows = {record_id: {} if self._patient_field else {"patient_id": record_id} for record_id in by_id}
        else:
            rows = self._table.rows_of(by_id)
        if self._table is not None and self._folds == "stratified":
            rows = with_stratified_folds(rows, self._table, is_stored=by_id.__contains__, missing_ids=self._missing_ids)
        return [FolderItem(record_id=record_id, found=by_id.get(record_id), row=row) for record_id, row in rows.items()]

    def _notes(self, name: str, folder: Path) -> tuple[str, ...]:
        notes = []
        if name == name_of_source(folder):
            notes.append(
                f"no --name was given: the set is named {name} after its folder and where that lies; give --name=NAME "
                "so that its patients are known again wherever it lies, and in whatever else is built of them"
            )
        if self._table is None and self._patient_field is None:
            notes.append(
                "no patient ids were given: each record is taken for a patient of its own (--labels or --patient_field)"
            )
        if self._table is not None:
            notes += self._table.notes
        if self._folds == "stratified" and self._table is not None:
            notes.append(dealt_note(self._table.scalars))
        elif self._table is None or "fold" not in self._table.columns:
            notes.append("no folds were given: patients are dealt to folds 1 to 10 by a hash of their id")
        describing = [kind for kind in self._counts if kind not in file_formats.FORMATS_OF_BARE_SAMPLES]
        if self._declared != Declared() and describing:
            counts = ", ".join(f"{self._counts[kind]} {kind}" for kind in describing)
            notes.append(f"what was declared (--declared_…) is not for files that describe themselves: {counts}")
        return (*notes, *self.header_notes, *self._left_out)

    def reader(self) -> RecordingReader[FolderItem]:
        """Returns a reader of the recordings, ordered by path, followed by those that only the table names."""
        return RecordingReader(
            open=functools.partial(_open, people=self._people, declared=self._declared),
            record=functools.partial(_record, people=self._people, scalars=self.label_schema.scalars),
            recipe=self.recipe,
            length=_length,
        )


def _file_and_row(item: FolderItem) -> tuple[file_formats.FoundRecording, Mapping[str, str]]:
    """Returns the file of an item and its row in the table.

    Raises:
        RecordError: The item lacks its file (`missing_file`) or its row (`missing_patient`).
    """
    if item.found is None:
        raise RecordError(f"{item.record_id}: has a row of labels but no file in the folder", reason="missing_file")
    if item.row is None:
        message = f"{item.found.path}: has no row in the table of labels, so its patient is not known; add one"
        raise RecordError(message, reason="missing_patient")
    return item.found, item.row


def _open(item: FolderItem, *, people: FolderPeople, declared: Declared) -> Recording:
    found, row = _file_and_row(item)
    recording = file_formats.read_recording(found, declared)
    if found.format == "wfdb":
        recording = with_gain_of_any_origin(recording, found.path.with_suffix(""))
    recording = recording.rescaled(item.factor)
    people.check_patient(row, recording)
    return recording


def _length(item: FolderItem) -> Length | None:
    if item.found is None or item.found.format != "wfdb":
        return None
    return wfdb_length(item.found.path.with_suffix(""))


def _record(
    item: FolderItem, recording: Recording, stored: StoredSignal, *, people: FolderPeople, scalars: tuple[str, ...]
) -> EcgRecord:
    found, row = _file_and_row(item)
    patient_id, report = people.patient_of(row, recording), row.get("report", "")
    return ecg_record(
        stored,
        origin=origin_of(recording, place=folder_of(item.record_id), form=found.format),
        record_id=item.record_id,
        patient_id=patient_id,
        fold=_fold(row["fold"], str(found.path)) if "fold" in row else fold_of_patient(patient_id),
        report="" if is_missing(report) else report,
        scalars={name: number(row[name]) for name in scalars},
        **person_fields(recording, people.person(row, recording)),
    )


def _fold(text: str, source: str) -> int:
    if is_missing(text):
        return NO_FOLD
    if not text.isdecimal() or int(text) > 1000:
        raise RecordError(f"{source}: fold is '{text}', a whole number from 0 to 1000 expected", reason="bad_label")
    return int(text)
