"""Converts dates, ages and sexes of recorders' files to the spelling of `Recording.fields`, which all formats share.

All of them are optional: what cannot be read is left out, and a remark says so.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from data_pipelines.metadata.ages import YEARS_OF_UNIT, read_age
from data_pipelines.metadata.missing import folded, is_missing
from data_pipelines.records import Remark

#: Keys of `Recording.fields` that readers of recorders' files use.
PATIENT_ID, AGE, SEX, ACQUIRED = "Patient ID", "Age", "Sex", "Acquired"

#: Reasons of the remarks about dates.
UNREAD_DATE, UNKNOWN_DATE, AGE_DISAGREES = "unread_date", "unknown_date", "age_disagrees"

_SEX = {"m": "male", "male": "male", "f": "female", "female": "female"}

# Nobody with an ECG in a file was born before; programs write 1900-01-01 or 0001-01-01 for an unknown date.
_FIRST_YEAR_OF_BIRTH = 1901

# Clocks that were never set begin at these dates.
_UNSET_CLOCKS = frozenset(datetime.date(year, 1, 1) for year in (1, 1601, 1753, 1900, 1970, 1980))

# A stated age is in whole years, and so is one counted from a birth of which the day is not known.
_MOST_YEARS_APART = 1.5


class RecorderFields(NamedTuple):
    """Fields of a file about patient and recording, and the remarks about them, for the attributes of `Recording`."""

    fields: dict[str, str]
    remarks: tuple[Remark, ...]


class StatedDate(NamedTuple):
    """A date as a file has it (empty where there is none), and as it was parsed (None where it could not be)."""

    text: str
    moment: datetime.datetime | None


def known_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Returns the fields whose value is not empty."""
    return {name: value for name, value in fields.items() if value}


def recorder_fields(
    *, source: str, patient_id: str, sex: str, birth: StatedDate, acquired: StatedDate, age: str = ""
) -> RecorderFields:
    """Returns the fields of a recorder's file about patient and recording, under the keys that all formats share.

    Args:
        source: Name of the recording for remarks.
        patient_id: Id of the patient as the file has it.
        sex: Sex as the file has it.
        birth: Date of the patient's birth.
        acquired: Date and time at which the recording began.
        age: Age as the file has it, in years where no unit is given; where it is empty, it follows from the dates of
            birth and recording.
    """
    remarks = [
        Remark(
            reason=UNREAD_DATE,
            value=date.text,
            message=f"{source}: its date of {name} is '{date.text}', which cannot be read; it is left out",
        )
        for name, date in (("birth", birth), ("recording", acquired))
        if date.moment is None and not is_missing(date.text)
    ]
    remarks += _doubts_of_dates(birth, acquired, source)
    from_birth = math.nan if remarks else _years_between(birth.moment, acquired.moment)
    if not math.isnan(from_birth):
        stated = read_age(age, source=source).years
        # Recorders fill the field of an age that nobody entered with zeros.
        if math.isnan(stated) or (stated == 0 and from_birth >= 1):
            age = f"{from_birth:.0f}"
        elif abs(stated - from_birth) > _MOST_YEARS_APART and age_is_exact(age):
            message = (
                f"{source}: its age is '{age}', and {from_birth:.0f} years by its dates of birth ('{birth.text}') and "
                f"recording ('{acquired.text}'); the stated age is kept"
            )
            remarks.append(Remark(reason=AGE_DISAGREES, message=message))
    fields = {
        PATIENT_ID: patient_id,
        AGE: age,
        SEX: _SEX.get(folded(sex), sex.strip()),
        ACQUIRED: "" if acquired.moment is None else acquired.moment.isoformat(),
    }
    return RecorderFields(known_fields(fields), tuple(remarks))


def age_is_exact(age: str) -> bool:
    """Returns whether an age is stated exactly, and not as a limit such as `89+`."""
    return read_age(age, source="").remark is None


def _doubts_of_dates(birth: StatedDate, acquired: StatedDate, source: str) -> Iterator[Remark]:
    if birth.moment is not None and birth.moment.year < _FIRST_YEAR_OF_BIRTH:
        message = f"{source}: its date of birth is '{birth.text}', which stands for none; it is left out"
        yield Remark(reason=UNKNOWN_DATE, value=birth.text, message=message)
    elif acquired.moment is not None and acquired.moment.date() in _UNSET_CLOCKS:
        message = f"{source}: its date of recording is '{acquired.text}', that of a clock that was not set"
        yield Remark(reason=UNKNOWN_DATE, value=acquired.text, message=message)
    elif birth.moment is not None and acquired.moment is not None and birth.moment > acquired.moment:
        message = f"{source}: its date of birth is '{birth.text}', after that of the recording ('{acquired.text}')"
        yield Remark(reason=UNKNOWN_DATE, value=birth.text, message=message)


def age_text(number: str, *, unit: str) -> str:
    """Returns an age in years as text; where number and unit cannot be converted, both are returned as they are.

    Args:
        number: Number as the file has it.
        unit: Unit as in `ages.YEARS_OF_UNIT`, in any capitals.
    """
    years = YEARS_OF_UNIT.get(folded(unit))
    try:
        age = float(number)
    except ValueError:
        age = math.nan
    if years is None or not math.isfinite(age):
        return f"{number} {unit}".strip() if number.strip() else ""
    return f"{age * years:.10g}"


def _years_between(birth: datetime.datetime | None, acquired: datetime.datetime | None) -> float:
    """Returns the whole years from birth to the recording; NaN where either is unknown."""
    if birth is None or acquired is None:
        return math.nan
    had_birthday = (acquired.month, acquired.day) >= (birth.month, birth.day)
    return float(acquired.year - birth.year - (not had_birthday))


def moment(text: str, *formats: str) -> datetime.datetime | None:
    """Returns the date and time that `text` states in one of `formats` (of `strptime`), or None."""
    for spelling in formats:
        try:
            return datetime.datetime.strptime(text.strip(), spelling)
        except ValueError:
            continue
    return None


def compact_moment(text: str) -> datetime.datetime | None:
    """Returns date and time of a text `YYYYMMDD[HHMM[SS[.fraction]]][±ZZZZ]` (DICOM, HL7) without its zone, or None."""
    digits = text.strip().partition("+")[0].partition("-")[0].partition(".")[0]
    spelling = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    return moment(digits, spelling) if spelling and digits.isascii() and digits.isdigit() else None


def birth_date(text: str, *formats: str) -> StatedDate:
    """Parses a date of birth.

    Where the day is not known, the middle of the year or month is taken.

    Args:
        text: Date as a day in one of `formats`, of DICOM, HL7 or ISO 8601; or a year, or year and month, alone.
        *formats: Formats of `strptime`.
    """
    text = text.strip()
    born = moment(text, *formats, "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d") or compact_moment(text)
    if born is None and text.isascii() and text.isdigit():
        if len(text) == 4:
            born = moment(f"{text}0701", "%Y%m%d")
        elif len(text) == 6:
            born = moment(f"{text}15", "%Y%m%d")
    return StatedDate(text, born)
