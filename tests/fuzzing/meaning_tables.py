"""Tables of labels whose columns or values mean something else: names of columns, codings of sex, ages, missing ids."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from data_pipelines.builders.base import Quarantined
from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError
from data_pipelines.records import FEMALE, MALE, SEX_UNKNOWN, STANDARD_LEADS, EcgRecord
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.statements.declared import Declared
from tests.fuzzing.meaning_arrays import SIGNAL_MV
from tests.fuzzing.meaning_book import TRUE_RATE
from tests.fuzzing.meaning_recorders import AGES, PATIENTS
from tests.support.fixtures import results_of

NUM_ROWS = 6
_RECIPE = SignalRecipe(name="f", version=1, sampling_rate_hz=TRUE_RATE, seconds=2, min_seconds=1.0)
_DECLARED = Declared(sampling_rate_hz=float(TRUE_RATE), unit="mV", leads=STANDARD_LEADS)

#: Texts for man and woman; None where a declaration is needed.
CODINGS = (
    ("male", "female", True), ("M", "F", True), ("Male", "Female", True), ("m", "w", True), ("1", "2", False),
    ("1", "0", False), ("0", "1", False), ("2", "1", False), ("1.0", "2.0", False), ("homme", "femme", True),
    ("H", "M", True), ("H", "F", True), ("V", "M", False), ("True", "False", False), ("Mann", "Frau", True),
)  # fmt: skip
NAMES = {
    "record": ("record", "Record", "RECORD", "filename", "ecg_id", "recrod", "file name"),
    "patient_id": ("patient_id", "Patient ID", "PatientID", "patient", "subject_id", "MRN", "patinet_id", "Patient-Id"),
    "age": ("age", "Age", "AGE", "age_years", "Age (years)", "Age at ECG", "patient_age"),
    "sex": ("sex", "Sex", "SEX", "gender", "Gender", "is_male", "male", "is_female", "Sex (1=m)"),
    "lvef": ("lvef", "LVEF", "LVEF %"),
}
LVEFS = (("55", 55.0), ("45.5", 45.5), ("", None), ("NA", None), ("45 %", "refuse"), ('"45,5"', "refuse"),
         (">60", "refuse"), ("-", None), ("1e1", 10.0))  # fmt: skip


@dataclasses.dataclass
class _Row:
    patient: tuple
    age: tuple
    sex: int
    lvef: tuple


def outcome(generator: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Makes a mutant of a table and builds from it; as `fuzz_meanings.outcome`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def pick(choices):
        return choices[int(generator.integers(len(choices)))]

    rows = [_Row((f"P{n}", f"P{n}"), ("61", 61.0), pick((MALE, FEMALE)), ("55", 55.0)) for n in range(NUM_ROWS)]
    rows[0].sex, rows[1].sex = MALE, FEMALE
    man, woman, is_clear = CODINGS[0]
    names = {name: name for name in NAMES}
    declared: tuple[str, ...] = ()
    mutation = pick(("patient", "age", "coding", "coding", "declared coding", "lvef", "name", "name", "decimal comma"))
    separator, ages = ",", AGES
    if mutation == "patient":
        rows[2].patient = pick(tuple(pair for pair in PATIENTS if pair[0] != "0"))
        mutation += f" '{rows[2].patient[0]}'"
    elif mutation == "age":
        rows[2].age = pick(ages)
        mutation += f" '{rows[2].age[0]}'"
    elif mutation in ("coding", "declared coding"):
        man, woman, is_clear = pick(CODINGS)
        if mutation == "declared coding":
            swapped = pick((False, True))
            declared = (f"{man}={'fe' * swapped}male", f"{woman}={'' if swapped else 'fe'}male")
            if swapped:
                for row in rows:
                    row.sex = FEMALE if row.sex == MALE else MALE
                man, woman = woman, man
            is_clear = True
        mutation += f" {man}/{woman} {declared}"
    elif mutation == "lvef":
        rows[2].lvef = pick(LVEFS)
        mutation += f" '{rows[2].lvef[0]}'"
    elif mutation == "name":
        column = pick(tuple(NAMES))
        names[column] = pick(NAMES[column])
        mutation += f" {names[column]}"
        if names[column] in ("is_male", "male", "is_female"):
            man, woman = ("0", "1") if names[column] == "is_female" else ("1", "0")
    else:
        separator = ";"
        rows[2].lvef = ("45,5", "refuse")
    _write(folder, rows, names, sexes={MALE: man, FEMALE: woman}, separator=separator)
    return mutation, _judged(rows, names, declared, is_clear=is_clear, folder=folder)


def _write(folder: Path, rows: list[_Row], names: dict[str, str], *, sexes: dict[int, str], separator: str) -> None:
    lines = [separator.join(names.values())]
    for number, row in enumerate(rows):
        np.save(folder / f"r{number}.npy", SIGNAL_MV[:1000])
        lines.append(separator.join((f"r{number}", row.patient[0], row.age[0], sexes[row.sex], row.lvef[0])))
    (folder.parent / "labels.csv").write_text("\n".join(lines) + "\n")


def _judged(rows: list[_Row], names: dict[str, str], declared: tuple[str, ...], *, is_clear: bool, folder: Path) -> str:
    try:
        source = FolderSource(folder, labels=folder.parent / "labels.csv", patient_field=None, name="f", recipe=_RECIPE,
                              declared=_DECLARED, sex_coding=declared)  # fmt: skip
    except DataError as error:
        return _judged_error(str(error), rows, names, is_clear=is_clear)
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    if not is_clear:
        return f"WRONG: silent acceptance of a coding of sex: {source.card.sex_reading}"
    if any(row.lvef[1] == "refuse" for row in rows) and "lvef" in source.label_schema.scalars:
        return "WRONG: silent acceptance of a value that is no number"
    for row, result in zip(rows, results_of(source), strict=True):
        wrong = _wrong(row, result, names)
        if wrong:
            return f"WRONG: {wrong}"
    return "read"


def _judged_error(message: str, rows: list[_Row], names: dict[str, str], *, is_clear: bool) -> str:
    if not is_clear:
        return "refused (sex)" if "--sex_coding" in message and "sex" in message else f"WRONG refusal: {message}"
    if any(row.lvef[1] == "refuse" for row in rows) and "lvef" in message:
        return "refused (label)"
    changed = [own for known, own in names.items() if known != own]
    if changed and f"'{changed[0]}'" in message:
        return "refused (column)"
    return f"WRONG refusal: {message}"


def _wrong(row: _Row, result: EcgRecord | Quarantined, names: dict[str, str]) -> str:
    if isinstance(result, Quarantined):
        is_right = result.reason == "missing_patient" and row.patient[1] is None
        return "" if is_right else f"quarantined: {result.message}"
    if result.patient_id != row.patient[1]:
        return f"patient '{result.patient_id}' of '{row.patient[0]}'"
    if row.age[1] is None:
        if not np.isnan(result.age_years):
            return f"age {result.age_years} of '{row.age[0]}'"
    elif not abs(result.age_years - row.age[1]) < 0.01:
        return f"age {result.age_years} of '{row.age[0]}'"
    if result.sex != row.sex or result.sex == SEX_UNKNOWN:
        return f"sex {result.sex} of {row.sex}"
    label = result.scalars.get(names["lvef"])
    wanted = np.nan if row.lvef[1] is None else row.lvef[1]
    if not (label == wanted or (np.isnan(wanted) and label is not None and np.isnan(label))):
        return f"label {label} of '{row.lvef[0]}'"
    return ""
