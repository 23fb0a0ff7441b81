"""Age, sex and fold as sources write them, to the stored form."""

from __future__ import annotations

import hashlib
import math

from data_pipelines.errors import RecordError
from data_pipelines.records import FEMALE, MALE, SEX_UNKNOWN

#: Number of folds that patients are dealt to where the source has none of its own.
NUM_FOLDS = 10

#: PTB-XL, and sets made from it, store ages above 89 as 300 for anonymity; they are kept as the lowest they can be.
ANONYMISED_AGE = 300.0
AGE_ABOVE_89 = 90.0
OLDEST_AGE = 120.0

_SEX = {"male": MALE, "m": MALE, "0": MALE, "female": FEMALE, "f": FEMALE, "1": FEMALE}
_UNKNOWN = frozenset({"", "nan", "unknown", "unspecified", "none", "n/a", "na"})
_TRUTH = {"true": 1.0, "false": 0.0}

# Scalars are stored as float32; an infinite label would end a training run.
_LARGEST = 3.4e38


def number(text: str) -> float:
    """Returns a number or truth value as float, NaN where missing.

    Raises:
        ValueError: neither a finite number nor a way to say that there is none.
    """
    text = text.strip().casefold()
    if text in _UNKNOWN:
        return math.nan
    value = _TRUTH[text] if text in _TRUTH else float(text)
    if not abs(value) <= _LARGEST:
        raise ValueError(f"{text} is no number that can be stored")
    return value


def age_in_years(text: str, *, source: str) -> float:
    """Returns an age, 90 for PTB-XL's anonymised 300, NaN where missing.

    Raises:
        RecordError: `bad_label`.
    """
    try:
        age = number(text)
    except ValueError:
        age = -1.0
    if age == ANONYMISED_AGE:
        return AGE_ABOVE_89
    if not math.isnan(age) and not 0 <= age <= OLDEST_AGE:
        raise RecordError(
            f"{source}: age is '{text}', 0 to {OLDEST_AGE:g} years or nothing expected", reason="bad_label"
        )
    return age


def sex_code(text: str, *, source: str) -> int:
    """Returns `MALE`, `FEMALE` or `SEX_UNKNOWN` for male/female, m/f, 0/1 (PTB-XL's coding) or nothing.

    Raises:
        RecordError: `bad_label`.
    """
    key = text.strip().casefold()
    if key in _UNKNOWN:
        return SEX_UNKNOWN
    if key not in _SEX:
        raise RecordError(
            f"{source}: sex is '{text}'; male, female, m, f, 0 (male), 1 (female) or nothing expected",
            reason="bad_label",
        )
    return _SEX[key]


def fold_of_patient(patient_id: str) -> int:
    """Returns a fold from 1 to 10 that depends on the patient alone, so that it is the same in any selection."""
    digest = hashlib.blake2b(patient_id.encode(), digest_size=8, person=b"ecgjax fold").digest()
    return int.from_bytes(digest, "little") % NUM_FOLDS + 1
