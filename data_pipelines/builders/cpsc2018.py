"""CPSC 2018 in its original form: MATLAB structs without a header, labels in `REFERENCE.csv`.

Liu et al., "An Open Access Database for Evaluating the Algorithms of Electrocardiogram Rhythm and Morphology
Abnormality Detection", Journal of Medical Imaging and Health Informatics 8 (2018) 1368.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from data_pipelines.builders.base import RecordingReader, SourceCard, ecg_record, person_fields, person_of
from data_pipelines.builders.repeated_names import check_first_of_name, named_paths
from data_pipelines.errors import DataError, RecordError
from data_pipelines.files.tree import files_under
from data_pipelines.label_tables.text_table import read_published_table
from data_pipelines.metadata.demographics import fold_of_patient, unread_label
from data_pipelines.metadata.missing import is_missing
from data_pipelines.metadata.origins import origin_of
from data_pipelines.metadata.sexes import WORDS
from data_pipelines.readers.left_out import what_is_there
from data_pipelines.readers.matlab_files import read_matlab
from data_pipelines.recording import Recording
from data_pipelines.records import LABEL_MISSING, EcgRecord, LabelSchema, Remark
from data_pipelines.signals.conversion import StoredSignal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.statements.declared import Declared
from data_pipelines.system.counted import counted

REFERENCE_FILE = "REFERENCE.csv"

#: Names of the classes 1 to 9 of the reference, in that order.
CLASSES = ("Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")

_RECORD_COLUMN = "Recording"
_LABEL_COLUMNS = ("First_label", "Second_label", "Third_label")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cpsc2018Item:
    """One record.

    Attributes:
        record_id: Published name of the record, or its path below the folder where an earlier record has that name.
        path: File of the record; None where only the reference names it.
        labels: Up to three class numbers from 1 to 9, as text.
        first_path: Earlier file with the same name, or None.
    """

    record_id: str
    path: Path | None
    labels: tuple[str, ...] = ()
    first_path: Path | None = None


class Cpsc2018Source:
    """The `.mat` files under a folder, with the labels of its `REFERENCE.csv` if there is one."""

    def __init__(self, folder: Path, *, recipe: SignalRecipe):
        """Lists the files and reads the reference; the reader reads the signals.

        Args:
            folder: Folder that is searched recursively.
            recipe: Recipe by which the signals are converted.

        Raises:
            DataError: There is no file, or the reference is not the one of this data set.
        """
        reference = _read_reference(folder)
        matlab = (path for path in files_under(folder) if path.suffix == ".mat")
        if not (paths := sorted(matlab, key=lambda path: path.relative_to(folder).as_posix())):
            message = f"{folder}: no MATLAB file (.mat) in it or below; {what_is_there(folder)}; is --source right?"
            raise DataError(message)
        self.items = _items(folder, paths, reference or {})
        self.recipe = recipe
        self.signal_format = recipe.signal_format
        self.label_schema = LabelSchema(tasks={"rhythm_morphology": CLASSES})
        notes = [
            "the set names no patients: each record is taken for a patient of its own, dealt to folds 1 to 10 by a "
            "hash of its name"
        ]
        if reference is None:
            notes.append(f"there is no {REFERENCE_FILE}: no record has labels")
        elif num_without := sum(path.stem not in reference for path in paths):
            notes.append(
                f"{counted(num_without, 'record has', 'records have')} no row in {REFERENCE_FILE} and no labels"
            )
        self.card = SourceCard(
            name="cpsc2018",
            description="CPSC 2018: 12-lead ECGs of 6 to 144 s from 11 hospitals in China, with up to three of nine "
            "classes of rhythm and morphology.",
            simulated=False,
            citation="Liu et al., An Open Access Database for Evaluating the Algorithms of Electrocardiogram Rhythm "
            "and Morphology Abnormality Detection, J. Med. Imaging Health Inform. 8, 1368 (2018). "
            "https://doi.org/10.1166/jmihi.2018.2442",
            notes=tuple(notes),
            sex_reading=WORDS.said_by,
        )

    def reader(self) -> RecordingReader[Cpsc2018Item]:
        """Returns a reader of the files in the order of their paths, followed by the records that only the reference
        names.
        """
        return RecordingReader(open=_open, record=_record, recipe=self.recipe)


def _items(folder: Path, paths: list[Path], reference: dict[str, tuple[str, ...]]) -> list[Cpsc2018Item]:
    items = [
        Cpsc2018Item(**vars(named), labels=reference.get(named.path.stem, ()))
        for named in named_paths(paths, folder, name_of=lambda path: path.stem)
    ]
    names = {path.stem for path in paths}
    # A record without a file becomes an item all the same, so that a download that is not whole shows.
    return items + [Cpsc2018Item(record_id=name, path=None) for name in reference if name not in names]


def _open(item: Cpsc2018Item) -> Recording:
    if item.path is None:
        raise RecordError(
            f"{item.record_id}: is in {REFERENCE_FILE}, but there is no {item.record_id}.mat; download it or leave it "
            "out",
            reason="missing_file",
        )
    check_first_of_name(item.path, item.first_path)
    # The reader of MATLAB files knows rate, unit and leads of this data set's structs, so nothing needs to be declared.
    return read_matlab(item.path, Declared())


def _record(item: Cpsc2018Item, recording: Recording, stored: StoredSignal) -> EcgRecord:
    source = str(item.path)
    labels, of_labels = _labels(item.labels, source)
    return ecg_record(
        stored,
        origin=origin_of(recording, form="matlab"),
        record_id=item.record_id,
        patient_id=item.record_id,
        fold=fold_of_patient(item.record_id),
        tasks={"rhythm_morphology": labels},
        **person_fields(recording, person_of(recording, source=source), of_labels),
    )


def _labels(texts: tuple[str, ...], source: str) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """Returns the labels of a record, `int8[9]`: all are missing, with a remark, if a text is not a class number.

    Args:
        texts: Class numbers from 1 to 9, as text; none for an unlabelled record.
        source: Name of the recording, for the remark.
    """
    missing = np.full(len(CLASSES), LABEL_MISSING, np.int8)
    # A record without a label is unlabelled, which does not say that it has none of the classes.
    if not texts:
        return missing, ()
    row = np.zeros(len(CLASSES), np.int8)
    for text in texts:
        # A program that reads the columns as numbers writes those with gaps as floats.
        if (label := text.removesuffix(".0")) not in map(str, range(1, len(CLASSES) + 1)):
            return missing, (unread_label(REFERENCE_FILE, text, expected=f"1 to {len(CLASSES)}", source=source),)
        row[int(label) - 1] = 1
    return row, ()


def _read_reference(folder: Path) -> dict[str, tuple[str, ...]] | None:
    """Returns class numbers as text, by the record's name, from the reference; None if there is no reference."""
    if not (found := sorted(path for path in files_under(folder) if path.name == REFERENCE_FILE)):
        return None
    if len(found) > 1:
        raise DataError(f"{found[1]}: a second {REFERENCE_FILE} beside {found[0]}; keep the right one")
    path = found[0]
    table = read_published_table(path, (_RECORD_COLUMN, *_LABEL_COLUMNS), owner="CPSC 2018").map(str.strip)
    names = table[_RECORD_COLUMN].str.removesuffix(".mat")
    # Of two rows of one record nothing tells which is right.
    if len(repeated := names[names.duplicated()]):
        raise DataError(
            f"{path}: {counted(len(repeated), 'record has', 'records have')} more than one row, first "
            f"'{repeated.iloc[0]}'"
        )
    labels = table[list(_LABEL_COLUMNS)].to_numpy()
    return {name: tuple(text for text in row if not is_missing(text)) for name, row in zip(names, labels, strict=True)}
