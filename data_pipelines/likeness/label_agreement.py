"""How often neighbours agree in a label, against chance: pairs of records of two patients, whoever they are."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.index import Index

_COMPARISON = re.compile(r"(?P<label>[^<>=*]+?)\s*(?P<symbol>[<>])\s*(?P<threshold>[-+.\deE]+)")
_PRESENT = re.compile(r"(?P<label>[^<>=*]+?)\s*=\s*1")

# A normal interval of 95 %.
_QUANTILE = 1.96

# More classes than these are values of a quantity, of which hardly two are equal.
_MOST_CLASSES = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of neighbours in a label.

    Attributes:
        question: Question, as `answers` takes it.
        pairs: Number of pairs of a record and a neighbour that both have an answer.
        share: Share of these that have the same one; NaN where there are none.
        half_width: Half the width of its interval of 95 %, clustered by the patient of the record; that neighbours have
            patients too makes it somewhat wider in truth.
        chance: Share of all pairs of records of two patients, of those that have neighbours and an answer, that have
            the same one; NaN where there are none.
    """

    question: str
    pairs: int
    share: float
    half_width: float
    chance: float


def answers(question: str, index: Index, *, flag: str = "--agreement") -> np.ndarray:
    """Returns the class of every record by a question, `f64[records]`, NaN where it is unknown.

    Args:
        question: `LABEL<NUMBER` or `LABEL>NUMBER`, both strictly; `LABEL=1`, or a label or class whose values are few.
        index: Index of the data set.
        flag: Flag that asks the question, for messages.

    Raises:
        DataError: It is no such question, there is no such label, or its values are too many to be classes.
    """
    if compared := _COMPARISON.fullmatch(question.strip()):
        try:
            threshold = float(compared["threshold"])
        except ValueError as error:
            raise _unreadable(question, flag) from error
        values = index.label(compared["label"].strip())
        above = values > threshold if compared["symbol"] == ">" else values < threshold
        return np.where(np.isnan(values), math.nan, above.astype(np.float64))
    named = _PRESENT.fullmatch(question.strip())
    if re.search("[<>*]", question) or (named is None and "=" in question):
        raise _unreadable(question, flag)
    values = index.label(named["label"] if named else question.strip()).astype(np.float64)
    if (number := len(np.unique(values[~np.isnan(values)]))) > _MOST_CLASSES:
        raise DataError(
            f"{flag}={question!r} has {number:,} values, of which hardly two are equal: ask below or above one, as in "
            f"{flag}='{question}>18'"
        )
    return values


def _unreadable(question: str, flag: str) -> DataError:
    return DataError(
        f"{flag}={question!r} is no question; write LABEL<NUMBER, LABEL>NUMBER, LABEL=1, TASK:CLASS, or a LABEL of few "
        "values"
    )


def agreement(question: str, classes: np.ndarray, groups: np.ndarray, neighbours: np.ndarray) -> Agreement:
    """Compares the classes of records and their neighbours.

    Args:
        question: Question that the classes answer.
        classes: Class of every record, `f64[records]`, NaN where it is unknown.
        groups: Group of every record, such as its patient, `int[records]`.
        neighbours: Record numbers of the neighbours of every record, `int[records, k]`, −1 for none.
    """
    records = np.flatnonzero((neighbours >= 0).any(axis=1) & ~np.isnan(classes))
    others = neighbours[records]
    of_others = np.where(others >= 0, classes[np.maximum(others, 0)], math.nan)
    known = ~np.isnan(of_others)
    same = known & (of_others == classes[records, None])
    share, half_width = _clustered_share(same.sum(axis=1), known.sum(axis=1), groups[records])
    return Agreement(
        question=question,
        pairs=int(known.sum()),
        share=share,
        half_width=half_width,
        chance=chance(classes[records], groups[records]),
    )


def chance(classes: np.ndarray, groups: np.ndarray) -> float:
    """Returns the share of pairs of two groups whose classes are equal; NaN where there is no such pair.

    It is counted, and not drawn: Σ n² over classes are the equal pairs, less those within a group.

    Args:
        classes: Class of every record, `f64[n]`.
        groups: Group of every record, `int[n]`.
    """
    number = len(classes)
    both = np.stack([classes, groups.astype(np.float64)], axis=1)
    within = [np.unique(each, axis=0, return_counts=True)[1].astype(np.float64) for each in (both, both[:, 1:])]
    equal = np.unique(classes, return_counts=True)[1].astype(np.float64)
    pairs = float(number) ** 2 - float((within[1] ** 2).sum())
    return float((equal**2).sum() - (within[0] ** 2).sum()) / pairs if pairs else math.nan


def _clustered_share(hits: np.ndarray, pairs: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Returns the share of hits among pairs and half its interval; the variance is that of a ratio of group sums."""
    if not (total := int(pairs.sum())):
        return math.nan, math.nan
    share = float(hits.sum()) / total
    _, group = np.unique(groups, return_inverse=True)
    residuals = np.bincount(group, weights=hits - share * pairs)
    number = len(residuals)
    if number < 2:
        return share, math.nan
    return share, _QUANTILE * math.sqrt(float((residuals**2).sum()) * number / (number - 1)) / total
