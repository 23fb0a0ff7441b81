"""Tables of results over seeds: mean, interval over patients, and standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipelines.system.counted import counted
from ecgjax.evaluation.results import Key, Results, lost_seeds, of_seeds, seed_sd
from ecgjax.pages.page import Table
from ecgjax.studies.report.forest import Row


def entry(results: Results, key: Key) -> str:
    """Returns a mean over seeds as text, with its interval and standard deviation over seeds; empty if there is none.

    A mean without an interval has `[n/a]` in its place, whose reason is that of `reasons_without_bounds`.

    Args:
        results: Rows of the table of results.
        key: Key of the mean, without a seed.
    """
    if (mean := results.get(key)) is None:
        return ""
    values, lost = of_seeds(results, key), lost_seeds(results, key)
    if not values:
        return f"n/a ({mean.reason})"
    scatter = f" ± {seed_sd(values):.3f}" if len(values) > 1 else ""
    if math.isnan(mean.low):
        text = f"{mean.estimate:{'+z' if key.minus else 'z'}.3f} [n/a]"
    else:
        text = mean.signed() if key.minus else str(mean)
    missing = f" ({counted(lost, 'seed')} missing)" if lost else ""
    return f"{text}{scatter}{missing}"


def reasons_without_bounds(results: Results, keys: Iterable[Key]) -> list[str]:
    """Returns the reasons for which means over seeds have no interval, each once.

    Args:
        results: Rows of the table of results.
        keys: Keys of the means.
    """
    means = (results[key] for key in keys if key in results)
    return list(dict.fromkeys(each.reason for each in means if math.isnan(each.low) and math.isfinite(each.estimate)))


def row_of(results: Results, key: Key, *, title: str, group: str = "") -> Row:
    """Returns a mean over seeds as a row of a figure.

    Args:
        results: Rows of the table of results.
        key: Key of the mean, without a seed.
        title: Title of the row.
        group: Group that has a colour.
    """
    return Row(title, results[key], list(of_seeds(results, key).values()), group)


def seeds_column(results: Results, key: Key) -> str:
    """Returns, as text, the number of seeds that a mean is taken over, and the number of those without a value.

    Args:
        results: Rows of the table of results.
        key: Key of the mean, without a seed.
    """
    lost = lost_seeds(results, key)
    return f"{len(of_seeds(results, key))}{f', {lost} missing' if lost else ''}"


def seeds_table(
    results: Results, cells: Mapping[str, Mapping[str, Key]], *, first: str = "model", caption: str = ""
) -> Table:
    """Returns a table of means over seeds; rows without any value are left out.

    Args:
        results: Rows of the table of results.
        cells: Key of every cell, by the titles of its row and of its column.
        first: Title of the first column.
        caption: Caption of the table.
    """
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [
        (title, *(entry(results, row[column]) if column in row else "" for column in columns))
        for title, row in cells.items()
    ]
    reasons = reasons_without_bounds(results, (key for row in cells.values() for key in row.values()))
    caption = "; ".join(filter(None, (caption, *(f"[n/a]: {reason}" for reason in reasons))))
    return Table(header=(first, *columns), rows=[row for row in rows if any(row[1:])], caption=caption)


def spread(values: Sequence[float], *, decimals: int = 3) -> str:
    """Returns the mean ± standard deviation of the values of seeds as text; `"n/a"` where a value is NaN."""
    if np.isnan(values).any():
        return "n/a"
    deviation = f" ± {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else ""
    return f"{np.mean(values):z.{decimals}f}{deviation}"
