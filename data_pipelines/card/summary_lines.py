"""Lines of a build's summary about sexes and labels; empty for data sets whose cards lack these counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.prepared.fold_labels import fold_table
from data_pipelines.system.terminal_lines import COLUMNS

_MOST_LABELS = 12
_GAP = "  "


def sex_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line on the numbers of men and women, and on how sex was read.

    Args:
        summary: Entry `summary` of the data set's card.
    """
    if not (counts := summary.get("sex")):
        return []
    # No share can be given of nobody.
    if not (known := counts["male"] + counts["female"]):
        return ["  sex                 unknown of all"]
    men, women, unknown = (counts[name] for name in ("male", "female", "unknown"))
    share = f"{men} men ({men / known:.1%} of those known), {women} women, {unknown} unknown"
    read = f"; read {summary['sex_reading']}" if summary.get("sex_reading") else ""
    return [f"  sex                 {share}{read}"]


def fold_lines(summary: Mapping[str, Any]) -> list[str]:
    """Returns the table of labels by fold as lines, with the first labels only where there are many.

    Args:
        summary: Entry `summary` of the data set's card.
    """
    if not (counted := summary.get("labels_by_fold")):
        return []
    rows = fold_table(counted, most=_MOST_LABELS)
    lines = ["  labels by fold      positive/known records, or mean (known)", *aligned(rows, indent="    ")]
    if (others := len(counted["labels"]) - _MOST_LABELS) > 0:
        lines.append(f"    … and {others} more; python -m data_pipelines.inspect shows all")
    return lines


def aligned(rows: Sequence[Sequence[str]], *, indent: str, num_left: int = 1, width: int = COLUMNS) -> list[str]:
    """Returns rows of a table as lines, with the first columns aligned to the left and the others to the right.

    Columns that do not fit beside the others follow below them, with those of the left repeated.

    Args:
        rows: Rows of the table, its header among them.
        indent: Text before every line.
        num_left: Number of columns that are aligned to the left.
        width: Number of letters that fit on a line.
    """
    columns = list(zip(*rows, strict=True))
    sizes = [max(map(len, column)) + len(_GAP) for column in columns]
    left, room = columns[:num_left], width - len(indent) - sum(sizes[:num_left]) + len(_GAP)
    parts: list[list[Sequence[str]]] = [[]]
    used = 0
    for column, size in zip(columns[num_left:], sizes[num_left:], strict=True):
        if parts[-1] and used + size > room:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += size
    lines = [_aligned_part(list(zip(*left, *part, strict=True)), indent, num_left) for part in parts]
    return [line for part in lines for line in part]


def _aligned_part(rows: Sequence[Sequence[str]], indent: str, num_left: int) -> list[str]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    for number, column in enumerate(columns):
        align, width = "<" if number < num_left else ">", max(map(len, column))
        column[:] = [f"{cell:{align}{width}}" for cell in column]
    return [(indent + _GAP.join(cells)).rstrip() for cells in zip(*columns, strict=True)]
