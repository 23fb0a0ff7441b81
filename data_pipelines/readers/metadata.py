"""Dates, ages and sexes as recorders write them, to the spelling that `Recording.fields` has for all formats.

A value that cannot be told is left out: a recording with an odd date is still a recording.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping

#: Keys of `Recording.fields` that readers of recorders' files use.
PATIENT_ID, AGE, SEX, ACQUIRED = "Patient ID", "Age", "Sex", "Acquired"

_YEARS_PER_UNIT = {"year": 1.0, "month": 1 / 12, "week": 7 / 365.25, "day": 1 / 365.25, "hour": 1 / 8766}
_SEX = {"m": "male", "male": "male", "f": "female", "female": "female"}


def known_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Returns the fields that have a value."""
    return {name: value for name, value in fields.items() if value}


def recorder_fields(
    *,
    patient_id: str,
    sex: str,
    birth: datetime.datetime | None,
    acquired: datetime.datetime | None,
    age: str = "",
) -> dict[str, str]:
    """Returns what a recorder's file says about patient and recording, under the keys that all formats share.

    Args:
        patient_id: as the file has it.
        sex: likewise.
        birth: of the patient.
        acquired: when the recording began.
        age: in years; where there is none, it follows from birth and recording.
    """
    return known_fields(
        {
            PATIENT_ID: patient_id,
            AGE: age or _age_between(birth, acquired),
            SEX: _sex_text(sex),
            ACQUIRED: "" if acquired is None else acquired.isoformat(),
        }
    )


def _sex_text(text: str) -> str:
    """Returns `male`, `female`, or nothing."""
    return _SEX.get(text.strip().casefold(), "")


def age_text(number: str, *, unit: str) -> str:
    """Returns an age in years, or nothing.

    Args:
        number: as the file has it.
        unit: `year`, `month`, `week`, `day` or `hour`, in any capitals and also in the plural.
    """
    years = _YEARS_PER_UNIT.get(unit.strip().casefold().removesuffix("s"))
    try:
        age = float(number)
    except ValueError:
        return ""
    return f"{age * years:.10g}" if years is not None and math.isfinite(age) else ""


def _age_between(birth: datetime.datetime | None, acquired: datetime.datetime | None) -> str:
    """Returns the whole years from birth to the recording, or nothing where either is unknown or they are swapped."""
    if birth is None or acquired is None or birth > acquired:
        return ""
    had_birthday = (acquired.month, acquired.day) >= (birth.month, birth.day)
    return str(acquired.year - birth.year - (not had_birthday))


def moment(text: str, *formats: str) -> datetime.datetime | None:
    """Returns the date and time that `text` states in one of `formats` (of `strptime`), or None."""
    for spelling in formats:
        try:
            return datetime.datetime.strptime(text.strip(), spelling)
        except ValueError:
            continue
    return None


def compact_moment(text: str) -> datetime.datetime | None:
    """Returns the moment that DICOM's and HL7's `YYYYMMDD[HHMM[SS[.fraction]]][±ZZZZ]` states, without zone."""
    digits = text.strip().partition("+")[0].partition("-")[0].partition(".")[0]
    if not digits.isascii() or not digits.isdigit():
        return None
    spelling = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    return moment(digits, spelling) if spelling else None
