"""Parses numbers of sources, and assigns patients to folds; ages and sexes have modules of their own."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

from data_pipelines.errors import RecordError
from data_pipelines.metadata.ages import read_age
from data_pipelines.metadata.missing import folded, is_missing
from data_pipelines.metadata.sexes import SexCoding
from data_pipelines.records import Remark

#: Number of folds that patients are dealt to where the source has none of its own.
NUM_FOLDS = 10

#: Reason of the remark about a label that cannot be read.
UNREAD_LABEL = "unread_label"

_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}

# Scalars are stored as float32; an infinite label would end a training run.
_LARGEST = 3.4e38


def number(text: str) -> float:
    """Returns the number or truth value (1 or 0) that a text states; NaN if the value is missing.

    Raises:
        ValueError: The text is neither a finite number nor a way to say that there is none.
    """
    try:
        value = float(text)
    except ValueError:
        if is_missing(text):
            return math.nan
        value = _TRUTH.get(folded(text), math.inf)
    if math.isnan(value):
        return value
    # Python reads 1_000 as a thousand, which no source means.
    if not abs(value) <= _LARGEST or "_" in text:
        raise ValueError(f"{text} is no number that can be stored")
    return value


class Person(NamedTuple):
    """Age and sex of a record, as `EcgRecord` has them, and the remarks about them."""

    age_years: float
    sex: int
    remarks: tuple[Remark, ...]


def read_person(*, age: str, sex: str, coding: SexCoding, source: str) -> Person:
    """Returns age and sex; what is missing or cannot be read is stored as missing.

    Args:
        age: Age as the source has it, empty where it has none.
        sex: Sex as the source has it, empty where it has none.
        coding: Meaning of the values of sex in this source.
        source: Name of the recording for remarks.
    """
    years, of_age = read_age(age, source=source)
    code, of_sex = coding.read(sex, source=source)
    return Person(years, code, tuple(remark for remark in (of_age, of_sex) if remark))


def missing_patient(text: str, *, where: str, source: str) -> RecordError:
    """Returns the error for a recording whose patient id is missing.

    Args:
        text: Id as the source has it.
        where: Field that should hold the id, such as `patient_id in exams.csv`.
        source: Name of the recording for the message.
    """
    what = f"{where} is '{text}', which names nobody" if text.strip() else f"no {where}"
    return RecordError(f"{source}: {what}, so its patient is not known", reason="missing_patient")


def unread_label(name: str, text: str, *, expected: str, source: str) -> Remark:
    """Returns the remark about a label that cannot be read and is stored as missing.

    Args:
        name: Name of the label.
        text: Value as the source has it.
        expected: What the value should be, as a phrase.
        source: Name of the recording.
    """
    return Remark(
        reason=UNREAD_LABEL,
        value=f"{name}={text}",
        message=f"{source}: {name} is '{text}', {expected} expected; it is stored as missing",
    )


def fold_of_patient(patient_id: str) -> int:
    """Returns a fold from 1 to 10, a hash of the patient id, so that it is the same in any selection of patients."""
    digest = hashlib.blake2b(patient_id.encode(), digest_size=8, person=b"ecgjax fold").digest()
    return int.from_bytes(digest, "little") % NUM_FOLDS + 1
