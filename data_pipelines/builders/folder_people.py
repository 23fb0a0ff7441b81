"""Patients of the recordings in a folder, from its table of labels or from the recordings' own files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from data_pipelines.metadata.ages import UNKNOWN_AGE, ReadAge, read_age
from data_pipelines.metadata.demographics import Person, missing_patient
from data_pipelines.metadata.missing import is_missing, is_missing_id, is_missing_in_file
from data_pipelines.metadata.sexes import SexCoding
from data_pipelines.recording import Recording
from data_pipelines.records import SEX_UNKNOWN, Remark

# Ages are in whole years, and the recording may have been made between two birthdays.
_MOST_YEARS_APART = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderPeople:
    """Rules for finding the patients of a folder's recordings.

    Attributes:
        patient_field: Name of the field of a file's own metadata that holds the patient id, or None.
        given: Whether the source states who the patients are; otherwise each recording counts as one patient.
        missing_ids: Values of the patient id that mean "unknown", in addition to those that always do.
        sex_of_table: Meaning of the values of sex in the table, or None where the table has no sex.
        sex_of_files: Meaning of the values of sex in the files.
        zero_is_no_age: Whether an age of 0 in the table means that the age is not known.
    """

    patient_field: str | None
    given: bool
    missing_ids: frozenset[str]
    sex_of_table: SexCoding | None
    sex_of_files: SexCoding
    zero_is_no_age: bool

    def patient_of(self, row: Mapping[str, str], recording: Recording) -> str:
        """Returns the patient id as it is stated, or an empty text where it is not.

        Args:
            row: Row of the recording in the table.
            recording: Recording as its file has it.
        """
        return (recording.field(self.patient_field) or "").strip() if self.patient_field else row["patient_id"]

    def check_patient(self, row: Mapping[str, str], recording: Recording) -> None:
        """Raises a `RecordError` (`missing_patient`) if the patient id is missing or means "unknown".

        Args:
            row: Row of the recording in the table.
            recording: Recording as its file has it.
        """
        text = self.patient_of(row, recording)
        if self.patient_field and is_missing_in_file(text, more=self.missing_ids):
            raise missing_patient(text, where=f"field '{self.patient_field}' in the file", source=recording.source)
        if self.given and not self.patient_field and is_missing_id(text, more=self.missing_ids):
            raise missing_patient(text, where="patient_id in the table of labels", source=recording.source)

    def person(self, row: Mapping[str, str], recording: Recording) -> Person:
        """Returns age and sex from the table, or else from the file, with a remark where the two differ.

        Args:
            row: Row of the recording in the table.
            recording: Recording as its file has it.
        """
        source = recording.source
        age, of_age = self._age(row.get("age", ""), source)
        sex, of_sex = (self.sex_of_table or self.sex_of_files).read(row.get("sex", ""), source=source)
        own_age, of_own_age = read_age(recording.field("Age") or "", source=source)
        own_sex, of_own_sex = self.sex_of_files.read(recording.field("Sex") or "", source=source)
        disagrees = []
        # An age that cannot be read, or is cut off at a limit such as '89+', contradicts no other.
        if abs(age - own_age) > _MOST_YEARS_APART and not of_age and not of_own_age:
            disagrees.append(_disagreement("age", f"{age:g}", f"{own_age:g}", source))
        if SEX_UNKNOWN not in (sex, own_sex) and sex != own_sex:
            disagrees.append(_disagreement("sex", row["sex"], recording.field("Sex") or "", source))
        # The value of the table is kept where both state one, as the remark says.
        if is_missing(row.get("age", "")):
            age, of_age = own_age, of_own_age
        if is_missing(row.get("sex", "")):
            sex, of_sex = own_sex, of_own_sex
        return Person(age, sex, tuple(remark for remark in (of_age, of_sex, *disagrees) if remark))

    def _age(self, text: str, source: str) -> ReadAge:
        read = read_age(text, source=source)
        if read.years != 0 or not self.zero_is_no_age:
            return read
        message = f"{source}: age is '{text}' in a table without other children; it is stored as missing"
        return ReadAge(math.nan, Remark(reason=UNKNOWN_AGE, value=text, message=message))


def _disagreement(name: str, of_table: str, of_file: str, source: str) -> Remark:
    message = (
        f"{source}: its {name} is '{of_table}' in the table of labels and '{of_file}' in the file; the table's is "
        "kept. Is the row that of this recording?"
    )
    return Remark(reason=f"{name}_disagrees", message=message)
