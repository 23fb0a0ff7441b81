"""Recordings that were not stored, as a build's summary tells of them: by reason, with one of each in its own words."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.prepared.dataset import QUARANTINE_FILE
from data_pipelines.system.visible_text import visible

#: Remedy for files of bare samples, by the reason that they are refused for.
_REMEDIES = {
    "missing_metadata": "bare CSV, NumPy, HDF5 and MATLAB files say too little: --declared_rate_hz, --declared_unit "
    "and --declared_leads say it for all of them"
}


def quarantine_lines(counts: Mapping[str, int], directory: Path, *, of_folder: bool) -> list[str]:
    """Returns lines on the recordings that were not stored: each reason, the first recording it met, and a remedy.

    Args:
        counts: Number of recordings by reason, as the card has it.
        directory: Directory of the data set, whose list may be missing.
        of_folder: Whether the builder is the one that takes declarations.
    """
    first = _first_by_reason(directory)
    lines = []
    for reason, count in counts.items():
        lines.append(f"{reason:<16}  {count}")
        lines += [f"  the first: {visible(first[reason])}"] if reason in first else []
        lines += [f"  {_REMEDIES[reason]}"] if of_folder and reason in _REMEDIES else []
    return lines


def example_of_most(counts: Mapping[str, int], first: Mapping[str, str]) -> str:
    """Returns a clause with the first recording that met the most frequent reason, which is the likeliest to help.

    Args:
        counts: Number of recordings by reason; at least one.
        first: Message about the first recording of each reason.
    """
    most = max(counts, key=counts.__getitem__)
    return f"the first{'' if len(counts) == 1 else f' of {most}'}: {first[most]}"


def quarantined(directory: Path) -> list[dict[str, str]]:
    """Returns the rows of a data set's list of recordings that were not stored, each by the name of its column.

    Args:
        directory: Directory of the data set.
    """
    with (directory / QUARANTINE_FILE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _first_by_reason(directory: Path) -> dict[str, str]:
    if not (directory / QUARANTINE_FILE).is_file():
        return {}
    first: dict[str, str] = {}
    for row in quarantined(directory):
        # A message begins with the file in most cases; where it does not, the record is named.
        named = row["record_id"] in row["message"]
        first.setdefault(row["reason"], row["message"] if named else f"{row['record_id']}: {row['message']}")
    return first
