"""Recognises tables of labels and lists among recordings by their columns, since both are `.csv`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from data_pipelines.files.content_kind import head_of
from data_pipelines.lead_names import standard_lead

#: Columns that identify the record or patient of a row.
_IDS = frozenset(
    {"record", "record_id", "record_name", "recording", "recording_id", "patient_id", "patientid", "patient", "pid"}
    | {"subject", "subject_id", "study_id", "ecg_id", "exam_id", "filename", "file_name", "filename_lr", "filename_hr"}
    | {"file", "path", "filepath", "file_path", "trace_file", "mrn", "case_id", "sample_id", "uuid"}
)

#: Columns that occur in tables of labels and dictionaries, but not in recordings.
_OTHERS = frozenset(
    {"age", "sex", "gender", "fold", "strat_fold", "split", "label", "labels", "diagnosis", "report", "class", "target"}
    | {"name", "id", "code", "description", "meaning", "variable", "column", "field", "abbreviation", "snomed_ct"}
    | {"date", "birth_date", "dob", "height", "weight", "rhythm", "first_label", "scp_codes", "is_male", "dx"}
)

#: Names of files that are lists or texts, unless their first lines are those of samples.
_NAMES = re.compile(r"(readme|license|licence|changelog|changes|records|citation|(data_?)?dictionary|codebook)")

_FEWEST_LEADS = 3


def table_columns(path: Path) -> tuple[str, ...] | None:
    """Returns the columns of a `.csv` or `.tsv` that is a table about records, or None if it may be a recording.

    Args:
        path: Path of the file, of which only the beginning is read.
    """
    lines = head_of(path).decode("utf-8-sig", errors="replace").splitlines()
    # The last line may be incomplete, since only the beginning of the file was read.
    lines = [line for line in (lines if len(lines) < 2 else lines[:-1]) if line.strip() and not line.startswith("#")]
    is_list = _NAMES.fullmatch(path.stem.casefold()) is not None
    if not lines:
        return () if is_list else None
    separator = max(",;\t|", key=lines[0].count)
    try:
        header, *rows = csv.reader(lines, delimiter=separator)
    except csv.Error:
        return None
    header = [cell.strip() for cell in header]
    names = [re.sub(r"[\s-]+", "_", cell.casefold()) for cell in header]
    if sum(standard_lead(cell) is not None for cell in header) >= _FEWEST_LEADS or any(map(_is_number, names)):
        return None
    if is_list:
        return tuple(header)
    ids, others = sum(name in _IDS for name in names), sum(name in _OTHERS for name in names)
    # A recording may begin with lines such as 'Patient ID, Smith', before rows of another width.
    is_rectangular = all(len(row) == len(header) for row in rows)
    return tuple(header) if ids + others >= 2 or (ids and is_rectangular) else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
