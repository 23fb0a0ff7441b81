"""Finds contents that many patients share: they are no patient's recording, and do not show that patients are the same.

A recorder's test pattern, calibration pulse or demonstration ECG may be stored for many patients. Two or three patients
with one recording are people who were registered twice, or a mix-up, and belong on one side of a split. But if many
patients were joined in this way, a split would put all of them on one side. Records with such a content remain
duplicates of one another, so at most one of them is used, but they join no patients, and the build names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: A recording that more patients have than this belongs to none of them.
MOST_PATIENTS_OF_A_CONTENT = 4

_IDS_LISTED = 20


def shared_by_many(content: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Returns whether each record has a content that more than `MOST_PATIENTS_OF_A_CONTENT` patients have, `bool[n]`.

    Args:
        content: Codes of the signals, equal for equal ones, `int[n]`, from 0 on.
        patient: Codes of the patients, `int[n]`.
    """
    # Few contents are so frequent, and patients need to be counted only for these.
    often = np.flatnonzero((np.bincount(content) > MOST_PATIENTS_OF_A_CONTENT)[content])
    shared = np.zeros(len(content), bool)
    if len(often):
        pairs = np.unique(np.stack([content[often], patient[often]]), axis=1)
        num_patients = np.bincount(pairs[0], minlength=int(content.max()) + 1)
        shared[often] = num_patients[content[often]] > MOST_PATIENTS_OF_A_CONTENT
    return shared


def own_codes(codes: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Returns codes in which every record that is set apart has a code of its own.

    Args:
        codes: Codes of the records, `int[n]`, from 0 on.
        apart: Whether each record is set apart, `bool[n]`.
    """
    return np.where(apart, int(codes.max()) + 1 + np.cumsum(apart), codes) if apart.any() else codes


def listed_contents(content: np.ndarray, patient: np.ndarray, record_id: np.ndarray) -> list[dict[str, Any]]:
    """Returns the signals that many patients share, as values that JSON can hold, for the card.

    Args:
        content: Codes of the signals, equal for equal ones, `int[n]`, from 0 on.
        patient: Codes of the patients, `int[n]`.
        record_id: Ids of the records, `str[n]`.

    Returns:
        For each signal, the numbers of `patients` and `records`, and `record_ids`, the first 20.
    """
    shared = np.flatnonzero(shared_by_many(content, patient))
    listed = []
    for code in dict.fromkeys(content[shared].tolist()):
        records = shared[content[shared] == code]
        ids = [str(record_id[number]) for number in records[:_IDS_LISTED]]
        listed.append({"patients": len(np.unique(patient[records])), "records": len(records), "record_ids": ids})
    return listed


def shared_sentence(entry: Mapping[str, Any]) -> str:
    """Returns a sentence on an entry of `listed_contents`."""
    ids: Sequence[str] = entry["record_ids"]
    more = entry["records"] - len(ids)
    return (
        f"WARNING: one recording stands under {entry['patients']:,} patients, in {entry['records']:,} records "
        f"({', '.join(ids)}{f' and {more:,} more' if more else ''}): a test pattern or calibration pulse of the "
        "recorder, or files copied under wrong names. They count as duplicates, of which at most one is used, and do "
        "not join their patients; look at one, remove them from the source and build again"
    )
