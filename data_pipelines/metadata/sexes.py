"""Decides what the values of sex in a source mean, for a whole column at a time: words are clear, digits are not.

The mapping from values to sexes is called the coding. 1 is a man in ISO 5218 (1 male, 2 female) and in a column `male`,
and a woman in PTB-XL (0 male, 1 female). Digits and truth values are therefore only read where the column's name, the
published set, or the user (`--sex_coding=1=male,2=female`) defines them. The meaning of single letters depends on the
other letters of the column: M is *mujer* beside H or V, and *mies* or *man* beside N or V.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from data_pipelines.errors import DataError
from data_pipelines.metadata.missing import folded, is_missing
from data_pipelines.records import FEMALE, MALE, SEX_NAMES, SEX_UNKNOWN, Remark
from data_pipelines.system.counted import counted

#: Reasons of the remarks about sexes.
AMBIGUOUS_SEX, UNREAD_SEX, OTHER_SEX = "ambiguous_sex", "unread_sex", "other_sex"

_MALE_WORDS = (
    "male", "man", "men", "males", "boy", "masculine", "masculin", "masculino", "masc", "masc.", "maschio", "maschile",
    "hombre", "varón", "varon", "homem", "homme", "uomo", "mann", "männlich", "maennlich", "mannelijk", "erkek", "mies",
    "manlig", "mand", "mężczyzna", "muž", "férfi", "муж", "муж.", "мужской", "м", "男", "男性", "남", "남성",
)  # fmt: skip
_FEMALE_WORDS = (
    "female", "woman", "women", "females", "girl", "feminine", "féminin", "feminin", "femenino", "feminino", "fem",
    "fem.", "femmina", "femminile", "femme", "mujer", "mulher", "donna", "frau", "weiblich", "vrouw", "vrouwelijk",
    "kadın", "kadin", "nainen", "kvinna", "kvinnlig", "kvinde", "kvinne", "kobieta", "žena", "nő", "жен", "жен.",
    "женский", "ж", "女", "女性", "여", "여성",
)  # fmt: skip
_OTHER_WORDS = (
    "o", "other", "un", "undifferentiated", "x", "d", "div", "divers", "diverse", "i", "intersex", "indeterminate",
    "ambiguous", "non-binary", "nonbinary", "non binary", "nb", "neither", "both", "transgender",
)  # fmt: skip

_WORDS: Mapping[str, int] = (
    dict.fromkeys(_MALE_WORDS, MALE) | dict.fromkeys(_FEMALE_WORDS, FEMALE) | dict.fromkeys(_OTHER_WORDS, SEX_UNKNOWN)
)
_UNSAID = frozenset({"u"})
_USUAL_LETTERS: Mapping[str, int] = {"m": MALE, "f": FEMALE, "w": FEMALE}

# These letters have other meanings beside others; the table lists the pairs in which their meaning is clear.
_LETTERS = frozenset("mfwvhkenž")
_LETTERS_TOGETHER: Mapping[frozenset[str], Mapping[str, int]] = {
    frozenset("hf"): {"h": MALE, "f": FEMALE},
    frozenset("hm"): {"h": MALE, "m": FEMALE},
    frozenset("mk"): {"m": MALE, "k": FEMALE},
    frozenset("ek"): {"e": MALE, "k": FEMALE},
    frozenset("mž"): {"m": MALE, "ž": FEMALE},
}

_TRUE, _FALSE = ("true", "1", "yes", "y", "t"), ("false", "0", "no", "n", "f")

#: Sex that a truth value of true stands for, by the simplified name of the column.
TRUTH_COLUMNS: Mapping[str, int] = {"ismale": MALE, "male": MALE, "isfemale": FEMALE, "female": FEMALE}

_CODE = re.compile(r"[+-]?\d+|true|false|yes|no|t|y|n")
_VALUES_NAMED = 6
_MOST_UNCLEAR = 0.05


class ReadSex(NamedTuple):
    """A sex, and a remark about it where there is one."""

    code: int
    remark: Remark | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SexCoding:
    """Meaning of the values of one column of sexes.

    Attributes:
        meaning: Sex, `MALE`, `FEMALE` or `SEX_UNKNOWN`, by the value as `sex_key` normalises it.
        said_by: Description, for the summary, of what decided the meaning.
    """

    meaning: Mapping[str, int]
    said_by: str

    def read(self, text: str, *, source: str) -> ReadSex:
        """Returns the sex that a value means; a value that the coding lacks is unknown, with a remark.

        Args:
            text: Value as the source has it.
            source: Name of the recording for remarks.
        """
        key = sex_key(text)
        if key in self.meaning:
            code = self.meaning[key]
            if code != SEX_UNKNOWN or key in _UNSAID:
                return ReadSex(code)
            reason, what = OTHER_SEX, "neither male nor female; it is stored as unknown"
        elif is_missing(text):
            return ReadSex(SEX_UNKNOWN)
        elif _CODE.fullmatch(key) or key in _LETTERS:
            reason, what = AMBIGUOUS_SEX, "of which nothing says what it means; it is stored as unknown. Say it, such "
            what += "as with --sex_coding=1=male,2=female"
        else:
            reason, what = UNREAD_SEX, "which cannot be read; it is stored as unknown"
        remark = Remark(reason=reason, value=text, message=f"{source}: sex is '{text}', {what}")
        return ReadSex(SEX_UNKNOWN, remark)


def sex_key(text: str) -> str:
    """Returns a value normalised as a key of `SexCoding.meaning`: in lower case, whole numbers without a fraction."""
    key = folded(text)
    return key[:-2] if key.endswith(".0") else key


def _with_words(meaning: Mapping[str, int]) -> dict[str, int]:
    return {**_WORDS, **dict.fromkeys(_UNSAID, SEX_UNKNOWN), **meaning}


#: Coding of texts that stand alone, each in a file of its own: words and the usual letters.
WORDS = SexCoding(meaning=_with_words(_USUAL_LETTERS), said_by="from words (male, female, m, f and others)")

#: PTB-XL's own coding.
PTBXL_CODING = SexCoding(
    meaning=_with_words({"0": MALE, "1": FEMALE}), said_by="0 as male and 1 as female, PTB-XL's coding"
)

#: Coding of a column that says whether somebody is a man.
IS_MALE_CODING = SexCoding(
    meaning=dict.fromkeys(_TRUE, MALE) | dict.fromkeys(_FALSE, FEMALE), said_by="from truth values of 'is_male'"
)


def declared_sexes(entries: Sequence[str]) -> dict[str, int]:
    """Returns the sexes that the user declares for values, by the value as `sex_key` normalises it.

    Args:
        entries: Entries as the user gives them, such as `["1=male", "2=female", "9=unknown"]`.

    Raises:
        DataError: An entry is not `VALUE=male`, `VALUE=female` or `VALUE=unknown`, or two entries declare the same
            value.
    """
    given = f"--sex_coding={','.join(entries)}"
    codes = {name: code for code, name in SEX_NAMES.items()}
    meaning: dict[str, int] = {}
    for entry in entries:
        value, equals, name = entry.rpartition("=")
        if not equals or not value.strip() or folded(name) not in codes:
            message = f"{given}: '{entry}' is not VALUE=male, VALUE=female or VALUE=unknown, such as 1=male,2=female"
            raise DataError(message)
        if sex_key(value) in meaning:
            raise DataError(f"{given}: says twice what '{value.strip()}' means")
        meaning[sex_key(value)] = codes[folded(name)]
    return meaning


def files_coding(declared: Mapping[str, int]) -> SexCoding:
    """Returns the coding of sexes in the recordings' own files: words, and the values that the user declares.

    Args:
        declared: Sexes by value, from `declared_sexes`.
    """
    if not declared:
        return WORDS
    return SexCoding(meaning={**WORDS.meaning, **declared}, said_by=f"{_text(declared)} as declared, else from words")


def column_coding(values: Iterable[str], *, column: str, declared: Mapping[str, int], where: str) -> SexCoding:
    """Returns the coding of a column of sexes.

    Args:
        values: Values of all rows.
        column: Name of the column as the table has it.
        declared: Sexes by value, from `declared_sexes`.
        where: File of the table, for messages.

    Raises:
        DataError: The meaning of the values is not clear, or no declared value is in the column; the message has their
            counts.
    """
    counts: Counter[str] = Counter()
    for text, count in Counter(values).items():
        if not is_missing(text):
            counts[sex_key(text)] += count
    if declared:
        unused = [value for value in declared if value not in counts]
        if counts and len(unused) == len(declared):
            raise DataError(
                f"{where}: --sex_coding says what {_list(unused)} means, and column '{column}' has {_counted(counts)}"
            )
        coding = {**_column_words(counts), **declared}
        return _described(coding, counts, column, by=f"as --sex_coding={_text(declared)} says")
    name = re.sub(r"[\W_]", "", column.casefold())
    if name in TRUTH_COLUMNS and counts.keys() <= {*_TRUE, *_FALSE}:
        true = TRUTH_COLUMNS[name]
        meaning = dict.fromkeys(_TRUE, true) | dict.fromkeys(_FALSE, FEMALE if true == MALE else MALE)
        return _described(meaning, counts, column, by="by its name")
    meaning = _column_words(counts)
    unclear = [value for value in counts if value not in meaning and (_CODE.fullmatch(value) or value in _LETTERS)]
    if not unclear and counts and not any(meaning.get(value) in (MALE, FEMALE) for value in counts):
        unclear = [value for value in counts if value not in meaning]
    num_unclear = sum(counts[value] for value in unclear)
    # A few codes for 'not known' among words do not make the column a coded one.
    if num_unclear >= _MOST_UNCLEAR * counts.total() and unclear:
        raise _ambiguous(counts, unclear, column=column, where=where)
    return _described(meaning, counts, column, by="by its words")


def _column_words(counts: Collection[str]) -> dict[str, int]:
    """Returns the sexes that words and letters mean; letters whose meaning the other letters leave open are left out.

    Args:
        counts: Values of the column, from `sex_key`.
    """
    letters = frozenset(value for value in counts if value in _LETTERS)
    if letters <= _USUAL_LETTERS.keys():
        return _with_words(_USUAL_LETTERS)
    return _with_words(_LETTERS_TOGETHER.get(letters, {}))


def _described(meaning: Mapping[str, int], counts: Counter[str], column: str, *, by: str) -> SexCoding:
    read = [f"'{key}' {count} as {SEX_NAMES[meaning[key]]}" for key, count in counts.most_common() if key in meaning]
    read = read[:_VALUES_NAMED] + ([f"and {len(read) - _VALUES_NAMED} more"] if len(read) > _VALUES_NAMED else [])
    return SexCoding(meaning=meaning, said_by=f"from column '{column}', {by}: {', '.join(read) or 'no value'}")


def _ambiguous(counts: Counter[str], unclear: Sequence[str], *, column: str, where: str) -> DataError:
    pair = next((pair for pair in (("1", "2"), ("0", "1")) if set(pair) <= set(unclear)), None)
    if pair is None:
        common = sorted(unclear, key=lambda value: -counts[value])[:2]
        pair = (common[0], common[1]) if len(common) == 2 else None
    if pair is None:
        ways = f"--sex_coding={unclear[0]}=male or --sex_coding={unclear[0]}=female"
    else:
        ways = " or ".join(
            f"--sex_coding={man}=male,{woman}=female ({counts[man]} men, {counts[woman]} women)"
            for man, woman in (pair, pair[::-1])
        )
    return DataError(
        f"{where}: column '{column}' has {_counted(counts)}. What {_list(unclear)} means differs between tables (in "
        f"ISO 5218, 1 is male and 2 female; in PTB-XL, 0 is male and 1 female); say it with {ways}"
    )


def _counted(counts: Counter[str]) -> str:
    named = [f"'{value}' in {counted(count, 'row')}" for value, count in counts.most_common(_VALUES_NAMED)]
    others = len(counts) - len(named)
    return ", ".join(named + ([f"and {counted(others, 'other value')}"] if others else [])) or "no value"


def _list(values: Sequence[str]) -> str:
    return ", ".join(f"'{value}'" for value in values[:_VALUES_NAMED])


def _text(declared: Mapping[str, int]) -> str:
    return ",".join(f"{value}={SEX_NAMES[code]}" for value, code in declared.items())
