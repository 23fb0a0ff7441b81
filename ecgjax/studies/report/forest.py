"""The forest figure of all studies: rows of estimates with their intervals, in panels that share the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.pages.digits import percent

# The markers differ, so that groups can be told apart without colour.
_COLORS = ("#b3202c", "#1f6fb4", "#3a8f4c", "#8a5fb0", "#c77f1a")
_MARKERS = "osD^v"

#: Height of a row in inches, and of what stands above and below all rows.
_ROW, _AROUND = 0.32, 1.4

#: Part of a row's height that its groups share.
_SHARED = 0.8


class Row(NamedTuple):
    """An estimate in a forest figure.

    Attributes:
        title: Title of the row. Rows of one title stand at one height, in every panel and of every group.
        interval: Estimate and interval; a bound that is not finite is not drawn.
        seeds: Values of single seeds, drawn as small grey dots.
        group: Group that has a colour and an entry in the legend, such as a fraction of the labels; empty where there
            is one group only.
    """

    title: str
    interval: Interval
    seeds: Sequence[float] = ()
    group: str = ""


def forest(panels: Mapping[str, Sequence[Row]], *, xlabel: str | Sequence[str], line: float = 0.0) -> Figure:
    """Draws estimates as dots on the bars of their intervals, one panel beside the other.

    Titles of rows and groups are in the order in which they first come in any panel, rows from above.

    Args:
        panels: Rows by the title of their panel, such as a question; the title of a single panel may be empty.
        xlabel: Label of the x axis of all panels, or the label of each.
        line: Value at which a vertical line is drawn, such as 0 for differences.
    """
    every = [row for rows in panels.values() for row in rows]
    names, groups = (list(dict.fromkeys(each)) for each in ([row.title for row in every], [row.group for row in every]))
    each_row = _ROW * max(1, 0.7 * len(groups))
    size = (3.2 + 2.4 * len(panels), _AROUND + each_row * len(names))
    figure = Figure(figsize=size, layout="constrained")
    labels = [xlabel] * len(panels) if isinstance(xlabel, str) else xlabel
    shared = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, rows), label in zip(shared, panels.items(), labels, strict=True):
        axes.axvline(line, color="#555555", linewidth=0.8)
        for row in rows:
            place = groups.index(row.group)
            height = names.index(row.title) + _SHARED * ((place + 0.5) / len(groups) - 0.5)
            _draw(axes, row, height=height, style=place % len(_COLORS), line=line)
        # Names of labels may have dollar signs, between which Matplotlib would see a formula.
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_xlabel(label, fontsize=8, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
    shared[0].set_yticks(range(len(names)), [_two_lines(name) for name in names], fontsize=8, parse_math=False)
    shared[0].set_ylim(len(names) - 0.4, -0.6)
    if groups[1:]:
        handles = [
            shared[0].plot([], [], _MARKERS[place % len(_COLORS)], color=_COLORS[place % len(_COLORS)], ms=5)[0]
            for place in range(len(groups))
        ]
        figure.legend(handles, groups, loc="outside lower center", frameon=False, fontsize=8, ncols=min(4, len(groups)))
    return figure


def _draw(axes: Axes, row: Row, *, height: float, style: int, line: float) -> None:
    value, color = row.interval, _COLORS[style]
    if math.isnan(value.estimate):
        axes.annotate("n/a", (line, height), (4, 0), textcoords="offset points", va="center", fontsize=7)
        return
    if np.isfinite([value.low, value.high]).all():
        axes.plot([value.low, value.high], [height, height], color=color, linewidth=1.6)
    axes.plot(row.seeds, [height] * len(row.seeds), ".", color="#888888", ms=4)
    axes.plot(value.estimate, height, _MARKERS[style], color=color, ms=5)


def _two_lines(title: str) -> str:
    """Returns a title with a line break after its first comma if it is long; wide titles leave panels no room."""
    return title.replace(", ", ",\n", 1) if len(title) > 24 else title


def alone(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Returns an empty figure of a size in inches with one plain panel."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: Axes) -> None:
    """Removes the upper and right edge of a panel, and draws a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def share_axis(axes: Axes, fractions: Sequence[float]) -> None:
    """Makes the horizontal axis one of shares of the labels, in per cent on a logarithmic scale.

    Args:
        axes: Axes whose horizontal axis is changed.
        fractions: Shares that are marked, in ascending order.
    """
    axes.set_xscale("log")
    axes.set_xticks(fractions, [percent(fraction) for fraction in fractions])
    axes.minorticks_off()
