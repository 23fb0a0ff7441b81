"""Parses ages as sources write them, in years: whole or not, with a unit, cut off at a limit, or impossible.

An age that cannot be read is missing (NaN), and a remark says so.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from data_pipelines.metadata.missing import folded, is_missing
from data_pipelines.records import Remark

#: PTB-XL, and sets made from it, store ages above 89 as 300 for anonymity; they are kept as the lowest age possible.
ANONYMISED_AGE = 300.0
AGE_ABOVE_89 = 90.0
OLDEST_AGE = 120.0

#: Reasons of the remarks about ages.
UNKNOWN_AGE, UNREAD_AGE, AGE_AT_LIMIT = "unknown_age", "unread_age", "age_at_limit"

#: Years of a unit, by its names or their beginnings in English, German, French, Spanish, Portuguese and Italian.
YEARS_OF_UNIT = {
    **dict.fromkeys(("y", "yr", "yrs", "yo", "y/o", "y.o.", "year", "years", "years old", "year old", "yr old"), 1.0),
    **dict.fromkeys(("years of age", "j", "j.", "jahr", "jahre", "a", "an", "ans", "año", "años", "anos", "anni"), 1.0),
    **dict.fromkeys(("m", "mo", "mos", "mon", "mth", "mths", "month", "months", "monat", "monate", "mois"), 1 / 12),
    **dict.fromkeys(("months old", "month old", "mes", "meses", "mese", "mesi"), 1 / 12),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks", "weeks old", "woche", "wochen"), 7 / 365.25),
    **dict.fromkeys(("d", "day", "days", "days old", "day old", "tag", "tage", "jours", "días", "dias"), 1 / 365.25),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "hours old", "stunde", "stunden"), 1 / 8766),
}

_NUMBER = r"\d+(?:[.,]\d*)?|[.,]\d+"
_PLAIN = re.compile(rf"([+-]?(?:{_NUMBER}))(?:[eE]([+-]?\d\d?))?\s*([^\W\d_][^\d]*)?")
_AT_LEAST_BEFORE = re.compile(rf"(?:>=|=>|≥|at least|from|min\.?)\s*({_NUMBER})\s*([^\W\d_].*)?")
_ABOVE = re.compile(rf"(?:>|over|above|older than|more than|über|plus de)\s*({_NUMBER})\s*([^\W\d_].*)?")
_BELOW = re.compile(rf"(?:<|<=|≤|under|below|younger than|less than|unter)\s*({_NUMBER})\s*([^\W\d_].*)?")
_AT_LEAST_AFTER = re.compile(
    rf"({_NUMBER})\s*([^\W\d_]*?)\s*(?:\+|plus\b|(?:and|or|&|und|oder)\s*(?:older|over|above|more|up|älter))\s*"
    r"([^\W\d_].*)?"
)


class ReadAge(NamedTuple):
    """An age in years, NaN where missing, and a remark about it where there is one."""

    years: float
    remark: Remark | None = None


def read_age(text: str, *, source: str) -> ReadAge:
    """Returns an age in years.

    `89+`, `>=89` and `89 or older` are read as 89, `>89` as 90, the next whole year, PTB-XL's 300 as 90, and `<1` as 0.
    Months, weeks, days and hours become years.

    Args:
        text: Age as the source has it.
        source: Name of the recording for remarks.
    """
    if is_missing(text):
        return ReadAge(math.nan)
    key = folded(text)
    if key.isdecimal() and key.isascii() and len(key) < 4:  # This is nearly every age, and avoids the patterns below.
        return _checked(float(key), text, source)
    plain = _PLAIN.fullmatch(key)
    years = _years(plain[1], plain[3], exponent=plain[2]) if plain else math.nan
    if not math.isnan(years):
        return _checked(years, text, source)
    years = _limit(key)
    return _checked(years, text, source) if math.isnan(years) else _at_limit(years, text, source)


def _limit(key: str) -> float:
    """Returns the age in years that is nearest to the limit in a text such as `89+`; NaN if the text states no limit.

    Args:
        key: Text from `folded`.
    """
    if found := _AT_LEAST_BEFORE.fullmatch(key):
        return _years(found[1], found[2])
    if found := _AT_LEAST_AFTER.fullmatch(key):
        return _years(found[1], found[2] or found[3])
    if found := _ABOVE.fullmatch(key):
        return _years(found[1], found[2]) // 1 + 1
    if found := _BELOW.fullmatch(key):
        years = _years(found[1], found[2])
        # Only for infants is the lowest age near the truth.
        return 0.0 if years <= 1 else math.nan
    return math.nan


def _years(number: str, unit: str | None, *, exponent: str | None = None) -> float:
    value = float(number.replace(",", ".")) * 10.0 ** int(exponent or 0)
    return value * YEARS_OF_UNIT.get((unit or "years").strip(), math.nan)


def _checked(years: float, text: str, source: str) -> ReadAge:
    if years == ANONYMISED_AGE:
        return _at_limit(AGE_ABOVE_89, text, source)
    if 0 <= years <= OLDEST_AGE:
        return ReadAge(years)
    reason, what = UNKNOWN_AGE, f"not 0 to {OLDEST_AGE:g} years"
    if math.isnan(years):
        reason, what = UNREAD_AGE, "which cannot be read"
    message = f"{source}: age is '{text}', {what}; it is stored as missing"
    return ReadAge(math.nan, Remark(reason=reason, value=text, message=message))


def _at_limit(years: float, text: str, source: str) -> ReadAge:
    if not 0 <= years <= OLDEST_AGE:
        return _checked(years, text, source)
    message = f"{source}: age is '{text}', which is read as {years:g} years"
    return ReadAge(years, Remark(reason=AGE_AT_LIMIT, value=text, message=message))
