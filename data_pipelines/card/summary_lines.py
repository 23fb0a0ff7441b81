"""Writes the lines of a build's summary about sexes and labels; data sets built before these were counted have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.prepared.fold_labels import fold_table

_MOST_LABELS = 12


def sex_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns how many men and women there are, and how their sex was read."""
    counts = summary.get("sex")
    if not counts:
        return []
    known = counts["male"] + counts["female"]
    if not known:
        return ["  sex                 unknown of all"]
    men, women, unknown = (counts[name] for name in ("male", "female", "unknown"))
    share = f"{men} men ({men / known:.1%} of those known), {women} women, {unknown} unknown"
    read = f"; read {summary['sex_reading']}" if summary.get("sex_reading") else ""
    return [f"  sex                 {share}{read}"]


def fold_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns the table of labels by fold, cut short where there are many labels."""
    counted = summary.get("labels_by_fold")
    if not counted:
        return []
    rows = fold_table(counted, most=_MOST_LABELS)
    lines = ["  labels by fold      positive/known records, or mean (known)", *aligned(rows, indent="    ")]
    others = len(counted["labels"]) - _MOST_LABELS
    if others > 0:
        lines.append(f"    … and {others} more; python -m data_pipelines.inspect shows all")
    return lines


def aligned(rows: Sequence[Sequence[str]], *, indent: str) -> list[str]:
    """Returns rows of a table as lines, with the first column aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines
