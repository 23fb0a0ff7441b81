"""Contents that many patients share: no recording of anybody, and so no reason to take these patients for one.

A recorder's test pattern, its calibration pulse or a demonstration ECG is stored under every patient it was left in
for. Two or three patients with one recording are people registered twice, or a mix-up, and belong together in a split.
If many patients were joined so, a split would lose them all to one side. Such contents stay duplicates of one another:
one record at most is ever used. But they join nobody, and a build names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Of a recording that more patients than this have, no one of them is the one recorded.
MOST_PATIENTS_OF_A_CONTENT = 4

_IDS_LISTED = 20


def shared_by_many(content: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Returns which records have a content that more than `MOST_PATIENTS_OF_A_CONTENT` patients have.

    Args:
        content: `int[n]` codes of contents, from 0 on.
        patient: `int[n]` codes of patients.

    Returns:
        `bool[n]`.
    """
    # Few contents come so often: only of these need patients be counted.
    often = np.flatnonzero((np.bincount(content) > MOST_PATIENTS_OF_A_CONTENT)[content])
    shared = np.zeros(len(content), bool)
    if len(often):
        pairs = np.unique(np.stack([content[often], patient[often]]), axis=1)
        num_patients = np.bincount(pairs[0], minlength=int(content.max()) + 1)
        shared[often] = num_patients[content[often]] > MOST_PATIENTS_OF_A_CONTENT
    return shared


def own_codes(codes: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Returns codes with one of its own for every record that is set apart.

    Args:
        codes: `int[n]`, from 0 on.
        apart: `bool[n]`.
    """
    if not apart.any():
        return codes
    return np.where(apart, int(codes.max()) + 1 + np.cumsum(apart), codes)


def listed_contents(content: np.ndarray, patient: np.ndarray, record_id: np.ndarray) -> list[dict[str, Any]]:
    """Lists the contents that many patients share, for the card.

    Args:
        content: `int[n]` codes of contents, from 0 on.
        patient: `int[n]` codes of patients.
        record_id: `str[n]`.

    Returns:
        Of each its numbers of `patients` and `records`, and `record_ids`, the first 20.
    """
    shared = np.flatnonzero(shared_by_many(content, patient))
    listed = []
    for code in dict.fromkeys(content[shared].tolist()):
        records = shared[content[shared] == code]
        ids = [str(record_id[number]) for number in records[:_IDS_LISTED]]
        num_patients = len(np.unique(patient[records]))
        listed.append({"patients": num_patients, "records": len(records), "record_ids": ids})
    return listed


def shared_sentence(entry: Mapping[str, Any]) -> str:
    """Says of one of `listed_contents` what it is and what was done."""
    ids: Sequence[str] = entry["record_ids"]
    more = entry["records"] - len(ids)
    return (
        f"WARNING: one recording stands under {entry['patients']:,} patients, in {entry['records']:,} records "
        f"({', '.join(ids)}{f' and {more:,} more' if more else ''}): a test pattern or calibration pulse of the "
        "recorder, or files copied under wrong names. They count as duplicates, of which at most one is used, and do "
        "not join their patients; look at one, remove them from the source and build again"
    )
