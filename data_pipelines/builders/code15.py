"""CODE-15 %: 345,779 exams of 233,770 patients from Minas Gerais, as `exams.csv` and HDF5 parts.

Ribeiro et al., "Automatic diagnosis of the 12-lead ECG using a deep neural network", Nature Communications 11 (2020)
1760; Lima et al., "Deep neural network-estimated electrocardiographic age as a mortality predictor", Nature
Communications 12 (2021) 5117.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from data_pipelines.builders import base
from data_pipelines.builders.lazy_items import LazyItems
from data_pipelines.errors import DataError, RecordError
from data_pipelines.files.contents import check_unpacked
from data_pipelines.label_tables.text_table import read_published_table
from data_pipelines.metadata.demographics import fold_of_patient, missing_patient, number, read_person, unread_label
from data_pipelines.metadata.missing import is_missing_id
from data_pipelines.metadata.origins import origin_of
from data_pipelines.metadata.sexes import IS_MALE_CODING
from data_pipelines.readers.hdf5_own import own_dataset
from data_pipelines.recording import Recording
from data_pipelines.records import LABEL_MISSING, STANDARD_LEADS, EcgRecord, LabelSchema, Remark
from data_pipelines.signals.conversion import StoredSignal
from data_pipelines.signals.recipe import SignalRecipe

EXAMS_FILE = "exams.csv"

#: Each part holds `f32[exam, sample, lead]` in mV, padded with zeros before and after the recorded samples.
SAMPLING_RATE_HZ = 400
TRACING_SHAPE = (4096, len(STANDARD_LEADS))

DIAGNOSES = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
SCALARS = ("normal_ecg", "death", "timey", "nn_predicted_age")
UNITS = {"timey": "years", "nn_predicted_age": "years"}

CITATION = (
    "Ribeiro et al., CODE-15%: a large scale annotated dataset of 12-lead ECGs, Zenodo (2021). "
    "https://doi.org/10.5281/zenodo.4916206"
)
LICENSE = "CC-BY-4.0"

_COLUMNS = ("exam_id", "patient_id", "age", "is_male", "trace_file", *DIAGNOSES, *SCALARS)
_NO_ROW = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Code15Item:
    """One exam.

    Attributes:
        record_id: Exam id, or part and row where the id is not unique or has no row in `exams.csv`.
        part: HDF5 file of the exam, None for an exam that is in no readable part.
        row: Row of the exam in its part.
        values: Values of the exam in `exams.csv` by column, as text; empty for an exam without a row there.
        refusal: Reason why the exam cannot be read, where that is known before it is opened.
    """

    record_id: str
    part: Path | None
    row: int
    values: dict[str, str]
    refusal: base.Refusal | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """An HDF5 file as far as it is known before its signals are read.

    Attributes:
        path: Path of the file.
        exam_ids: Exam ids in the order of the rows, `int64[n]`; empty for a damaged file.
        has_empty_row: Whether the file ends with a row of padding, which is no exam.
        damage: Reason why the exams cannot be read, or None.
    """

    path: Path
    exam_ids: np.ndarray
    has_empty_row: bool = False
    damage: base.Refusal | None = None


class Code15Source:
    """CODE-15 % as published: `exams.csv` beside `exams_part0.hdf5` to `exams_part17.hdf5`, or some of these."""

    def __init__(self, folder: Path, *, recipe: SignalRecipe):
        """Reads `exams.csv` and each part's list of exams; the reader reads the signals.

        Args:
            folder: Folder of `exams.csv` and the parts.
            recipe: Recipe by which the signals are converted.

        Raises:
            DataError: `exams.csv` is missing or malformed, or the folder has no part at all.
        """
        exams = _read_exams(folder / EXAMS_FILE)
        # The parts are numbered without leading zeros, so that part 10 would come before part 2 by name.
        if not (parts := [_read_part(path) for path in sorted(folder.glob("exams_part*.hdf5"), key=_part_number)]):
            raise DataError(f"{folder}: no exams_partN.hdf5 beside {EXAMS_FILE}; --source is the folder that has both")
        self._join(exams, parts)
        self.items = LazyItems(len(self._exam_of_item), self._item)
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(scalars=SCALARS, tasks={"diagnoses": DIAGNOSES}, units=UNITS)
        self.card = base.SourceCard(
            name="code15",
            description="CODE-15 %: 12-lead ECGs of 7 or 10 s from the Telehealth Network of Minas Gerais, Brazil, "
            "2010-2016, with six diagnoses, follow-up ('death' within 'timey' years) and the age a network estimated. "
            "The zeros that were added before and after what was recorded are taken off.",
            simulated=False,
            citation=CITATION,
            license=LICENSE,
            notes=_notes(exams, parts),
            sex_reading=IS_MALE_CODING.said_by,
        )

    def _join(self, exams: pd.DataFrame, parts: list[_Part]) -> None:
        """Orders the exams: those in the parts, in the parts' order, then those that only `exams.csv` has."""
        self._parts = parts
        self._columns = {name: exams[name].to_numpy() for name in _COLUMNS}
        self._ambiguous = exams["ambiguous"].to_numpy()
        in_parts = np.concatenate([part.exam_ids for part in parts])
        row_of_exam = pd.Index(exams["exam_id"].astype(np.int64))
        exam_rows = row_of_exam.get_indexer(pd.Index(in_parts))
        # An exam that no part has becomes an item all the same, so that a download that is not whole shows.
        unread = np.setdiff1d(np.arange(len(exams)), exam_rows)
        sizes = [len(part.exam_ids) for part in parts]
        no_row, unrepeated = np.full(len(unread), _NO_ROW), np.zeros(len(unread), bool)
        self._exam_of_item = np.concatenate([exam_rows, unread])
        self._part_of_item = np.concatenate([np.repeat(np.arange(len(parts)), sizes), no_row])
        self._row_of_item = np.concatenate([*map(np.arange, sizes), no_row])
        self._id_in_part = np.concatenate([in_parts, no_row])
        self._is_repeated = np.concatenate([pd.Series(in_parts).duplicated().to_numpy(), unrepeated])

    def reader(self) -> base.RecordingReader[Code15Item]:
        """Returns a reader of exams: those of each part in its order, then those of `exams.csv` that no part has."""
        return base.RecordingReader(open=_open, record=_record, recipe=self.recipe)

    def _item(self, position: int) -> Code15Item:
        exam, part_number = int(self._exam_of_item[position]), int(self._part_of_item[position])
        values = {} if exam == _NO_ROW else {name: str(column[exam]) for name, column in self._columns.items()}
        row = int(self._row_of_item[position])
        if part_number < 0:
            refusal: base.Refusal | None = self._why_unread(values)
            return Code15Item(record_id=values["exam_id"], part=None, row=row, values=values, refusal=refusal)
        part, exam_id = self._parts[part_number].path, int(self._id_in_part[position])
        # An id that is not unique, or that no row confirms, would not name the exam: its place does.
        record_id = place = f"{part.name}:{row}"
        refusal = None
        if self._is_repeated[position]:
            text = f"{place}: exam {exam_id} came before; only the first of the two is kept"
            refusal = base.Refusal("duplicate_record", text)
        elif exam == _NO_ROW:
            text = f"{place}: exam {exam_id} has no row in {EXAMS_FILE}, so its patient is not known"
            refusal = base.Refusal("missing_patient", f"{text}; use the files of one release")
        else:
            record_id = str(exam_id)
            if self._ambiguous[exam]:
                text = f"{place}: exam {exam_id} has rows in {EXAMS_FILE} that contradict each other"
                refusal = base.Refusal("duplicate_record", f"{text}; keep the right one")
        return Code15Item(record_id=record_id, part=part, row=row, values=values, refusal=refusal)

    def _why_unread(self, values: dict[str, str]) -> base.Refusal:
        exam_id, trace_file = values["exam_id"], values["trace_file"]
        text = f"exam {exam_id}: {trace_file or 'its part'} is not in the folder; download it or leave the exam out"
        for part in self._parts:
            if part.path.name == trace_file:
                if part.damage:
                    return part.damage
                text = f"exam {exam_id}: {trace_file} does not have it; use the files of one release"
        return base.Refusal("missing_file", text)


def _source(item: Code15Item) -> str:
    return f"{item.part}: exam {item.record_id} (row {item.row})"


def _part_of(item: Code15Item) -> Path:
    if item.part is None:
        raise RecordError(f"exam {item.record_id}: is in no part", reason="missing_file")
    return item.part


def _open(item: Code15Item) -> Recording:
    base.check_not_refused(item.refusal)
    patient_id = item.values["patient_id"]
    if is_missing_id(patient_id):
        raise missing_patient(patient_id, where=f"patient_id in {EXAMS_FILE}", source=_source(item))
    return _recording(_part_of(item), item.row, _source(item))


def _record(item: Code15Item, recording: Recording, stored: StoredSignal) -> EcgRecord:
    source, patient_id = recording.source, item.values["patient_id"]
    person = read_person(age=item.values["age"], sex=item.values["is_male"], coding=IS_MALE_CODING, source=source)
    remarks: list[Remark] = []
    return base.ecg_record(
        stored,
        origin=origin_of(recording, place=_part_of(item).name, form="hdf5"),
        record_id=item.record_id,
        patient_id=patient_id,
        fold=fold_of_patient(patient_id),
        scalars={name: _number(item.values[name], name, source, remarks) for name in SCALARS},
        tasks={"diagnoses": _diagnoses(item.values, source, remarks)},
        # It comes last, since the labels before it add their remarks.
        **base.person_fields(recording, person, remarks),
    )


def _recording(part: Path, row: int, source: str) -> Recording:
    try:
        tracing = _tracings(part, part.stat().st_mtime_ns)[row].astype(np.float64)
    except (OSError, KeyError) as error:
        # The part could be read when its exams were listed, so it has changed since, or the disk fails.
        message = f"{source}: cannot be read any more ({error}); check the disk, or download the part again"
        raise RecordError(message, reason="truncated_file") from error
    # A sample is padding where all leads are zero; one lead alone may well be.
    if not len(recorded := np.flatnonzero((tracing != 0).any(axis=1))):
        raise RecordError(f"{source}: all samples are zero: nothing was recorded", reason="too_short")
    return Recording(
        source=source,
        signal=tracing[recorded[0] : recorded[-1] + 1],
        sampling_rate_hz=float(SAMPLING_RATE_HZ),
        channels=STANDARD_LEADS,
        units=("mV",) * len(STANDARD_LEADS),
    )


@functools.lru_cache(maxsize=2)
def _tracings(part: Path, modified_ns: int) -> h5py.Dataset:
    """Opens a part once per process, since exams come part by part; a part that was replaced is opened again."""
    del modified_ns
    return own_dataset(h5py.File(part, "r"), "tracings", part)


def _number(text: str, name: str, source: str, remarks: list[Remark]) -> float:
    """Returns the number that a text states; NaN if the text is missing or cannot be read.

    Args:
        text: Text of the value.
        name: Name of the label.
        source: Name of the exam, for remarks.
        remarks: List to which a remark is appended if the text cannot be read.
    """
    try:
        return number(text)
    except ValueError:
        remarks.append(unread_label(name, text, expected="a number or truth value", source=source))
        return math.nan


def _diagnoses(values: dict[str, str], source: str, remarks: list[Remark]) -> np.ndarray:
    row = []
    for name in DIAGNOSES:
        value = _number(values[name], name, source, remarks)
        # A number such as 2 can be read, but is no truth value.
        if value not in (0, 1) and not math.isnan(value):
            remarks.append(unread_label(name, values[name], expected="True or False", source=source))
            value = math.nan
        row.append(value)
    # Zeros mean that a diagnosis is absent, so a row with one unknown value does not say 'this one and no other'.
    return np.full(len(row), LABEL_MISSING, np.int8) if np.isnan(row).any() else np.array(row, np.int8)


def _read_exams(path: Path) -> pd.DataFrame:
    """Returns `exams.csv` as text with one row per exam; the column `ambiguous` marks exams with contradicting rows."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; --source is the folder with it and the exams_partN.hdf5")
    table = read_published_table(path, _COLUMNS, owner="CODE-15 %")[list(_COLUMNS)].drop_duplicates()
    if len(wrong := table.loc[~table["exam_id"].str.fullmatch(r"\d{1,18}"), "exam_id"]):
        raise DataError(f"{path}: exam_id is '{wrong.iloc[0]}' in line {wrong.index[0] + 2}, a whole number expected")
    # Leading zeros go, so that the ids are written as those of the parts are.
    table["exam_id"] = table["exam_id"].astype(np.int64).astype(str)
    table["ambiguous"] = table["exam_id"].duplicated(keep=False)
    return table.drop_duplicates("exam_id").reset_index(drop=True)


def _read_part(path: Path) -> _Part:
    try:
        with h5py.File(path, "r") as file:
            ids, tracings = (own_dataset(file, name, path) for name in ("exam_id", "tracings"))
            # A small file can claim chunks that unpack to more than the memory holds.
            for dataset in (ids, tracings):
                chunk_bytes = 8 * math.prod(dataset.chunks or ())
                check_unpacked(path, chunk_bytes, file_bytes=path.stat().st_size, part=f"a chunk of '{dataset.name}'")
            if tracings.shape[:1] != ids.shape:
                raise ValueError(f"{ids.shape} exam ids and {tracings.shape} tracings")
            exam_ids = ids[:].astype(np.int64)
            if tracings.shape != (expected := (len(exam_ids), *TRACING_SHAPE)):
                message = f"{path}: tracings are {tracings.shape}, {expected} expected; download it again"
                raise RecordError(message, reason="header_disagrees")
            # The published parts end with a row of padding that is no exam: id 0 and no signal.
            has_empty_row = len(exam_ids) > 0 and exam_ids[-1] == 0 and not np.any(tracings[-1])
    except RecordError as error:
        damage = base.Refusal(error.reason, str(error))
    # h5py has no error of its own: what a damaged file raises depends on where it is damaged.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        message = f"{path}: not a part of CODE-15 % that can be read ({error}); download it again"
        damage = base.Refusal("unreadable_header", message)
    else:
        ids_of_exams = exam_ids[:-1] if has_empty_row else exam_ids
        return _Part(path=path, exam_ids=ids_of_exams, has_empty_row=bool(has_empty_row))
    return _Part(path=path, exam_ids=np.zeros(0, np.int64), damage=damage)


def _part_number(path: Path) -> tuple[int, str]:
    digits = re.search(r"\d+", path.stem)
    return (int(digits[0]) if digits else -1, path.name)


def _notes(exams: pd.DataFrame, parts: list[_Part]) -> tuple[str, ...]:
    notes = ["the set has no folds: patients are dealt to folds 1 to 10 by a hash of their id"]
    present = {part.path.name for part in parts}
    if len(absent := exams.loc[~exams["trace_file"].isin(present), "trace_file"]):
        names = sorted(set(absent), key=lambda name: _part_number(Path(name)))
        notes.append(f"{len(absent)} exams are in parts that are not in the folder: {', '.join(names)}")
    if num_empty := sum(part.has_empty_row for part in parts):
        notes.append(f"{num_empty} parts end with an empty row of exam id 0, which is no exam and is not counted")
    notes += [part.damage.message for part in parts if part.damage]
    return tuple(notes)
