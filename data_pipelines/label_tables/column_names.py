"""Finds the columns of a label table that have a meaning, whatever their case, spaces and dashes.

For a column with a similar name (`gender`, `subject_id`, `patinet_id`), an error is raised that says what to call the
column; otherwise it would become a label, or be ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.metadata.sexes import TRUTH_COLUMNS

#: Columns with a meaning of their own; every other numeric column becomes a scalar label.
KNOWN_COLUMNS = ("record", "patient_id", "age", "sex", "fold", "report")

# Other names for each known column, without capitals, spaces, dashes and dots.
_OTHER_NAMES = {
    "record": (
        "recordid", "recordname", "recordno", "records", "recording", "recordingid", "recordingname", "ecg", "ecgid",
        "ecgname", "examid", "studyid", "file", "fileid", "filename", "filepath", "path", "ecgfile", "waveformfile",
    ),
    "patient_id": (
        "patient", "patients", "patientno", "patientnr", "patientnumber", "patientcode", "patid", "pid", "patientenid",
        "subject", "subjectid", "subjectno", "subjid", "mrn", "person", "personid", "participant", "participantid",
    ),
    "age": ("ages", "ageinyears", "ageyears", "ageyrs", "ageyr", "patientage", "ageatecg", "ageatexam",
            "ageatrecording", "alter", "edad", "idade"),
    "sex": ("gender", "patientsex", "patientgender", "geschlecht", "sexe", "sexo", "sesso", "genero", "género",
            "sexcode", "gendercode", "sexmf", "malesex", "biologicalsex", "birthsex", "sexatbirth"),
    "fold": ("folds", "foldid", "stratfold", "split", "partition", "subset", "traintest", "trainvaltest"),
    "report": ("reports", "reporttext", "ecgreport", "befund"),
}  # fmt: skip

# Names of at least this length are recognised if they are similar enough, shorter ones if they are anagrams.
_ALIKE = 0.86
_SHORTEST_ALIKE = 6

# Matches the brackets in 'Sex (1=m)' and 'Age [y]'.
_IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")

_NAMELESS = re.compile(r"(unnamed: *\d+(_level_\d+)?)?")


def known_names(names: Iterable[str], *, path: Path) -> dict[str, str]:
    """Returns the known columns of a table: the known name by the table's own name.

    Args:
        names: Names of all columns of the table, without white space around them.
        path: Path of the table, for messages.

    Raises:
        DataError: Two columns have the same meaning, or a column has nearly the name of a known one.
    """
    names = list(names)
    found: dict[str, str] = {}
    own: dict[str, str] = {}
    for name in names:
        if (known := _known(name)) is None:
            continue
        if known in own:
            raise DataError(f"{path}: columns '{own[known]}' and '{name}' both mean '{known}'; keep one of them")
        found[name], own[known] = known, name
    for name in names:
        meant = None if name in found else _meant(name)
        if meant is None or (meant in own and meant == "record"):
            continue  # Such names are common beside 'record', and no labels (`is_other_id`).
        if meant in own:
            # A name that is only similar may be that of a label: its meaning is taken already.
            if _key(name) not in _OTHER_NAMES[meant]:
                continue
            raise DataError(f"{path}: columns '{own[meant]}' and '{name}' both mean '{meant}'; keep one of them")
        raise DataError(
            f"{path}: rename its column '{name}' to '{meant}', or to something else if it is a label{_how(meant)}"
        )
    return found


def is_other_id(name: str) -> bool:
    """Returns whether a column with this name identifies the recording in another way, such as by its file."""
    return _key(name) in _OTHER_NAMES["record"]


def is_nameless(name: str) -> bool:
    """Returns whether a column has no name of its own, such as the row numbers that pandas writes."""
    return _NAMELESS.fullmatch(name.strip().casefold()) is not None


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _known(name: str) -> str | None:
    if (key := _key(name)) in TRUTH_COLUMNS:
        return "sex"
    return next((known for known in KNOWN_COLUMNS if key == _key(known)), None)


def _meant(name: str) -> str | None:
    if (bare := _IN_BRACKETS.sub("", name)) != name and (known := _known(bare)):
        return known
    key = _key(bare)
    for known in KNOWN_COLUMNS:
        own = _key(known)
        if key in _OTHER_NAMES[known] or (len(key) == len(own) and sorted(key) == sorted(own)):
            return known
        if len(own) >= _SHORTEST_ALIKE and difflib.SequenceMatcher(None, own, key).ratio() >= _ALIKE:
            return known
    return None


def _how(meant: str) -> str:
    return "; folds are whole numbers, such as 1 to train on, 2 to select on, 3 to test on" if meant == "fold" else ""
