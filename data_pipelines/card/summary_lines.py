"""Lines of a build's summary about sexes and labels; empty for data sets whose cards lack these counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.prepared.fold_labels import fold_table

_MOST_LABELS = 12


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


def aligned(rows: Sequence[Sequence[str]], *, indent: str, num_left: int = 1) -> list[str]:
    """Returns rows of a table as lines, with the first columns aligned to the left and the others to the right.

    Args:
        rows: Rows of the table, its header among them.
        indent: Text before every line.
        num_left: Number of columns that are aligned to the left.
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    for number, column in enumerate(columns):
        align, width = "<" if number < num_left else ">", max(map(len, column))
        column[:] = [f"{cell:{align}{width}}" for cell in column]
    return [(indent + "  ".join(cells)).rstrip() for cells in zip(*columns, strict=True)]
