"""Checks the ids of patients against their records, once all records are known.

If an id stands for a missing one (0, 9999, Test), recordings of many people count as one person's. Such recordings
contradict each other, or are too many for one person. Conversely, a person with two spellings of an id (`00123` and
`123`) may be in training and test. The build cannot know the truth, so it reports both cases and changes nothing.
"""

from __future__ import annotations

import collections
import unicodedata
from collections.abc import Iterator

import numpy as np

from data_pipelines.prepared.index import Index
from data_pipelines.records import FEMALE, MALE, NO_FOLD
from data_pipelines.system.counted import counted

#: The ages of one person in one archive seldom differ by more than this, years.
_MOST_YEARS_APART = 40.0

#: An id has too many recordings if it has this many, and this many times as many as 99 in 100 of the other ids.
_FEWEST_OF_TOO_MANY = 30
_TIMES_USUAL = 10

_YOUNGEST_OF_ADULTS = 10.0
_NAMED = 3
_REMEDY = "if such an id stands for a missing one, name it with --missing_ids, or leave it empty in the table"


def patient_doubts(index: Index) -> list[str]:
    """Returns a sentence for each kind of doubt about the identity of the patients.

    Args:
        index: Index of the whole data set.
    """
    patient = np.asarray(index.patient)
    # Pieces of one recording count as one recording.
    rows = np.arange(len(patient)) if index.recording is None else np.unique(index.recording, return_index=True)[1]
    counts = np.bincount(patient[rows])
    return [
        *_contradictions(index, patient, counts, rows),
        *_too_many(index, patient, counts),
        *_spellings(index, patient),
        *_several_folds(index, patient),
        *_zero_ages(index),
    ]


def _contradictions(index: Index, patient: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> Iterator[str]:
    sex, age, whose = np.asarray(index.sex)[rows], np.asarray(index.age_years, np.float64)[rows], patient[rows]
    men, women = (np.bincount(whose[sex == code], minlength=len(counts)) for code in (MALE, FEMALE))
    known = ~np.isnan(age)
    youngest, oldest = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(youngest, whose[known], age[known])
    np.maximum.at(oldest, whose[known], age[known])
    both = (men > 0) & (women > 0)
    apart = oldest - youngest > _MOST_YEARS_APART
    if not len(found := np.flatnonzero(both | apart)):
        return
    named = []
    for code in _largest(found, counts):
        facts = [counted(int(counts[code]), "recording")]
        facts += [f"{men[code]} of a man, {women[code]} of a woman"] if both[code] else []
        facts += [f"ages {youngest[code]:g} to {oldest[code]:g}"] if apart[code] else []
        named.append(f"'{_id_of(index, patient, code)}' ({', '.join(facts)})")
    which = counted(len(found), "patient id has", "patient ids have")
    yield f"{which} recordings that contradict each other: {_list(named, len(found))}; {_REMEDY}"


def _too_many(index: Index, patient: np.ndarray, counts: np.ndarray) -> Iterator[str]:
    if len(counts) < 2:
        return
    # The largest count is left out, so that an id with very many recordings does not make itself the norm.
    usual = np.percentile(np.sort(counts)[:-1], 99)
    if len(found := np.flatnonzero(counts >= max(_FEWEST_OF_TOO_MANY, _TIMES_USUAL * usual))):
        named = [f"'{_id_of(index, patient, code)}' {counts[code]}" for code in _largest(found, counts)]
        yield (
            f"{counted(len(found), 'patient id has', 'patient ids have')} many more recordings than others (99 "
            f"of 100 have at most {usual:g}): "
            f"{_list(named, len(found))}; {_REMEDY}"
        )


def _spellings(index: Index, patient: np.ndarray) -> Iterator[str]:
    if np.array_equal(index.patient_id, index.record_id):
        return  # No patients are stated, and file names have one spelling.
    codes, first = np.unique(patient, return_index=True)
    ids_of_key = collections.defaultdict(list)
    for start in range(0, len(codes), 1 << 16):
        for text in np.asarray(index.patient_id[first[start : start + (1 << 16)]]).tolist():
            ids_of_key[_spelling_key(text)].append(text)
    if several := [ids for ids in ids_of_key.values() if len(ids) > 1]:
        named = [" and ".join(f"'{text}'" for text in ids) for ids in several[:_NAMED]]
        yield (
            f"{counted(len(several), 'patient')} may have two spellings: {_list(named, len(several))}; ids are "
            f"one patient only "
            "where they are equal: write one of the two throughout if they are"
        )


def _spelling_key(text: str) -> str:
    """Returns an equal key for spellings of one id: without case, fraction, leading zeros and repeated spaces."""
    key = unicodedata.normalize("NFKC", text).casefold().removesuffix(".0")
    key = " ".join(key.replace("-", " ").replace("_", " ").split())
    return (key.lstrip("0") or "0") if key.isdecimal() else key


def _several_folds(index: Index, patient: np.ndarray) -> Iterator[str]:
    fold = np.asarray(index.fold)
    order = np.lexsort((fold, patient))
    differs = (np.diff(patient[order]) == 0) & (np.diff(fold[order]) != 0)
    if len(found := np.unique(patient[order][1:][differs])):
        yield (
            f"{counted(len(found), 'patient has', 'patients have')} recordings in several folds, such as "
            f"'{_id_of(index, patient, int(found[0]))}'; a split leaves those out that would be on two of its sides"
        )
    num_without = int(np.count_nonzero(fold == NO_FOLD))
    if 0 < num_without < len(fold):
        yield f"{counted(num_without, 'record has no fold, and is', 'records have no fold, and are')} in no split"


def _zero_ages(index: Index) -> Iterator[str]:
    age = np.asarray(index.age_years)
    zeros, others = int(np.count_nonzero(age == 0)), age[age > 0]
    if zeros > 1 and len(others) and others.min() >= _YOUNGEST_OF_ADULTS:
        yield f"age is 0 in {zeros} records, and at least {others.min():g} in all others; does 0 stand for unknown?"


def _largest(found: np.ndarray, counts: np.ndarray) -> list[int]:
    """Returns the codes of a few patients, those with the most recordings first.

    Args:
        found: Codes of patients, `int64[n]`.
        counts: Number of recordings of every patient, `int64[patients]`.
    """
    return found[np.argsort(-counts[found], kind="stable")][:_NAMED].tolist()


def _id_of(index: Index, patient: np.ndarray, code: int) -> str:
    return str(index.patient_id[int(np.argmax(patient == code))])


def _list(named: list[str], total: int) -> str:
    return ", ".join(named) + (f" … and {total - len(named)} more" if total > len(named) else "")
