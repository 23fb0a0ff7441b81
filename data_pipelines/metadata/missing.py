"""Decides whether a value is missing, by one rule for every column of every source: ids, labels, age, sex, folds.

People and programs write that a value is missing in many ways. A patient called `NA` in a thousand rows is not one
person; as an id, a word that stands in for a name that was taken away (`Anonymous`) is missing as well. Numbers that
often stand for a missing one (0, 9999) can also be real ids: they do not count as missing here, but their consequence,
one id with recordings that contradict each other, is reported (`patient_checks.py`), and the user can name further
values.
"""

from __future__ import annotations

import re
from collections.abc import Collection

# These are what pandas, R, SQL, spreadsheets, MATLAB, C and people write, in lower case, with single spaces.
_MISSING = frozenset(
    (
        "na", "n/a", "n.a.", "n.a", "n/d", "n/k", "nan", "-nan", "+nan", "none", "null", "nil", "nul", "nat", "<na>",
        "<null>", "(null)", "[null]", "<none>", "\\n", "void", "empty", "(empty)", "(blank)", "blank", "missing",
        "(missing)", "<missing>", "undefined", "undef", "#n/a", "#na", "#n/a n/a", "#null!", "#value!", "#ref!",
        "#div/0!", "#name?", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "nan(ind)", "-nan(ind)",
        "unknown", "unknwon", "unkown", "unkn", "unk", "unspecified", "not specified", "not available", "not known",
        "not applicable", "not stated", "not recorded", "not provided", "not given", "no data", "no value", "no entry",
        "not entered", "unavailable", "unrecorded", "unbekannt", "keine angabe", "keine angaben", "k.a.", "k. a.",
        "k.a", "nicht bekannt", "nicht angegeben", "fehlt", "inconnu", "inconnue", "non renseigné",
        "non renseigne", "desconocido", "desconocida", "desconhecido", "desconhecida", "não informado", "nao informado",
        "sin datos", "sconosciuto", "sconosciuta", "onbekend", "okänd", "okänt", "ukendt", "ukjent", "tuntematon",
        "nieznany", "nieznana", "brak", "neznámý", "ismeretlen", "bilinmiyor", "неизвестно",
        "неизвестен", "不明", "未知",
    )
)  # fmt: skip

# These are names of nobody: taken away on purpose, never entered, or of a trial of the recorder.
_NOBODY = frozenset(
    (
        "anonymous", "anonymized", "anonymised", "anonym", "anon", "anonyme", "anonymisiert", "anonymisé", "anonymise",
        "anónimo", "anonimo", "anonimizado", "anonimizada", "anonimizzato", "anoniem", "anonymiserad", "pseudonymized",
        "deidentified", "de-identified", "de identified", "deidentify", "removed", "redacted", "deleted", "hidden",
        "masked", "withheld", "confidential", "private", "no id", "noid", "no_id", "no name", "noname", "no_name",
        "none given", "no patient", "no patient id", "patient", "patient id", "patientid", "patient_id", "id", "name",
        "test", "test patient", "testpatient", "test_patient", "patient test", "testing", "demo", "demo patient",
        "dummy", "dummy patient", "phantom", "simulator", "ecg simulator", "emergency", "temp",
        "anonymous patient", "anonymized patient", "unknown patient", "patient unknown", "unidentified", "unnamed",
        "john doe", "jane doe", "doe, john", "doe, jane", "doe^john", "doe^jane", "unknown^unknown",
    )
)  # fmt: skip

# A value without a letter or digit says nothing: '-', '?', '...', '***', '[]'.
_SAYS_SOMETHING = re.compile(r"[^\W_]")

# Forms are struck out by several letters x, and codes of missing ids are often negative numbers.
_STRUCK_OUT = re.compile(r"x{2,}|-\d+(\.0+)?")

_ZEROS = re.compile(r"0+(\.0+)?")


def folded(text: str) -> str:
    """Returns a text in lower case, with single spaces between words and none around them."""
    return " ".join(text.split()).casefold()


def is_missing(text: str) -> bool:
    """Returns whether a text says that there is no value, such as `NA`, `unknown` or an empty text."""
    key = folded(text)
    return key in _MISSING or _SAYS_SOMETHING.search(key) is None


def is_missing_id(text: str, *, more: Collection[str] = ()) -> bool:
    """Returns whether a patient's id is missing, or belongs to nobody.

    Args:
        text: Id of the patient.
        more: Further values that belong to nobody, as `folded` returns them.
    """
    key = folded(text)
    return key in more or key in _NOBODY or is_missing(key) or _STRUCK_OUT.fullmatch(key) is not None


def is_missing_in_file(text: str, *, more: Collection[str] = ()) -> bool:
    """Returns whether an id in a recording's own file is missing; zeros count as missing there.

    Recorders fill an empty field with zeros. In a table, 0 and 000 can be the first of patients that are numbered from
    0, so zeros are no missing ids there (`is_missing_id`).
    """
    return is_missing_id(text, more=more) or _ZEROS.fullmatch(text.strip()) is not None
