"""Figures that compare models on the same test records, drawn without a display."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.calibration import ReliabilityCurve
from ecgjax.studies.comparison import REFERENCE, Comparison

_COLORS = ("#b3202c", "#e08a3c", "#7f7f7f", "#1f6fb4", "#c58a00", "#3c8d40", "#6a4c93", "#2aa198")

#: Size in inches: two such figures fit side by side on a page, and one is readable on a phone.
_SIZE = (5.6, 5.9)


def roc_figure(comparison: Comparison, *, labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Draws the ROC curve of every model.

    Args:
        comparison: Result of the comparison, with its rows in the order in which they are drawn.
        labels: Labels of the test records, `[n]` of 0 and 1.
        scores: Scores of the test records, `f64[n]`, by the model's name.
    """
    figure, axes = _square(title="ROC curves (AUROC)")
    for curve in _drawn(comparison, "auroc"):
        alarms, hits = _roc(labels, scores[curve.model])
        axes.plot(alarms, hits, color=curve.color, linewidth=curve.linewidth, label=curve.label)
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity")
    _legend(figure, axes)
    return figure


def precision_recall_figure(comparison: Comparison, *, labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Draws the precision–recall curve of every model, and the share of positives as a line.

    The area under these steps is the average precision of the table: nothing is interpolated between thresholds
    (Davis and Goadrich, The relationship between precision-recall and ROC curves, ICML 2006).

    Args:
        comparison: Result of the comparison, with its rows in the order in which they are drawn.
        labels: Labels of the test records, `[n]` of 0 and 1.
        scores: Scores of the test records, `f64[n]`, by the model's name.
    """
    figure, axes = _square(title="Precision–recall curves (AUPRC)")
    for curve in _drawn(comparison, "auprc"):
        precision, recall, _ = precision_recall_curve(labels, scores[curve.model])
        axes.plot(
            recall, precision, drawstyle="steps-post", color=curve.color, linewidth=curve.linewidth, label=curve.label
        )
    axes.axhline(float(np.mean(labels)), color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.set(xlabel="sensitivity (recall)", ylabel="positive predictive value (precision)")
    _legend(figure, axes)
    return figure


class Compared(Protocol):
    """Protocol of a row in a comparison of models, such as `comparison.Row`."""

    @property
    def name(self) -> str:
        """Key of the model, such as `"random"`."""

    @property
    def title(self) -> str:
        """Title of the model in tables."""

    @property
    def difference(self) -> Interval | None:
        """Paired difference of the metric, the pretrained encoder's minus this model's; None for itself."""


def differences_figure(rows: Sequence[Compared], *, metric: str = "AUROC") -> Figure:
    """Draws the paired differences of the pretrained encoder from the other models, with their intervals.

    Args:
        rows: Rows of all models, in the order in which they are drawn.
        metric: Name of the metric that the differences are of.
    """
    others = [(row, row.difference) for row in rows if row.difference is not None]
    figure = Figure(figsize=(_SIZE[0], 0.9 + 0.55 * len(others)), layout="constrained")
    axes = figure.subplots()
    colors = _colors(rows)
    for position, (row, difference) in enumerate(others):
        estimate, low, high = difference.estimate, difference.low, difference.high
        if math.isfinite(low):
            axes.plot([low, high], [position] * 2, color=colors[row.name], linewidth=2)
        if math.isfinite(estimate):
            axes.plot(estimate, position, "o", color=colors[row.name])
        at = (estimate if math.isfinite(estimate) else 0, position)
        axes.annotate(difference.signed(), at, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(others)), [row.title.replace(", ", ",\n") for row, _ in others], fontsize=8)
    axes.set_ylim(len(others) - 0.5, -0.8)
    axes.margins(x=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(6))  # signed numbers with two decimals are wide
    axes.set_xlabel(f"{metric}: pretrained minus this model")
    _plain(axes)
    return figure


def reliability_figure(curves: Mapping[str, ReliabilityCurve]) -> Figure:
    """Draws the reliability curve of every model in a panel of its own.

    Args:
        curves: Reliability curves on the test records, by the model's title.
    """
    columns = min(4, max(1, len(curves)))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(2.9 * columns, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, color, (title, curve) in zip(panels, itertools.cycle(_COLORS), curves.items(), strict=False):
        panel.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle="--")
        bars = [curve.observed - curve.low, curve.high - curve.observed]
        panel.errorbar(curve.predicted, curve.observed, bars, color=color, marker="o", markersize=4, capsize=2)
        panel.set_title(title.replace(", ", ",\n"), fontsize=8)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        panel.grid(alpha=0.25)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    figure.supxlabel("predicted probability", fontsize=9)
    figure.supylabel("observed frequency", fontsize=9)
    return figure


def _square(*, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal", title=title)
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, texts = axes.get_legend_handles_labels()
    if handles:  # The legend stands below, since with eight models it would hide curves.
        figure.legend(handles, texts, loc="outside lower center", frameon=False, fontsize=9)


def _colors(rows: Sequence[Compared]) -> dict[str, str]:
    return dict(zip((row.name for row in rows), itertools.cycle(_COLORS), strict=False))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Curve:
    """Style in which a model's curve is drawn."""

    model: str
    color: str
    linewidth: float
    label: str


def _drawn(comparison: Comparison, metric: str) -> list[_Curve]:
    """Returns the curves of the models whose metric is defined."""
    colors, out = _colors(comparison.rows), []
    for row in comparison.rows:
        estimate = getattr(row, metric).estimate
        if math.isfinite(estimate):
            width = 2.2 if row.name == REFERENCE else 1.3
            label = f"{row.title} ({estimate:.3f})"
            out.append(_Curve(model=row.name, color=colors[row.name], linewidth=width, label=label))
    return out


def _roc(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns 1 − specificity and sensitivity at every threshold, from none called positive to all."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_tie = np.r_[ranked[1:] != ranked[:-1], True]
    alarms, hits = (np.r_[0, np.cumsum(labels[order] == which)[last_of_tie]] for which in (0, 1))
    return alarms / alarms[-1], hits / hits[-1]
