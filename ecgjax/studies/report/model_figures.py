"""Figures that compare models on the same test records, drawn without a display."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from ecgjax.evaluation.metrics.calibration import ReliabilityCurve
from ecgjax.studies.models import REFERENCE

_COLORS = ("#b3202c", "#e08a3c", "#7f7f7f", "#1f6fb4", "#c58a00", "#3c8d40", "#6a4c93", "#2aa198")

#: Size in inches: two such figures fit side by side on a page, and one is readable on a phone.
_SIZE = (5.6, 5.9)


class Curve(NamedTuple):
    """Scores of a model of which a curve is drawn.

    Attributes:
        model: Key of the model.
        title: Title of the model.
        scores: Scores of the test records, `f64[n]`.
        area: Area under the curve, for the legend; a curve without one is not drawn.
    """

    model: str
    title: str
    scores: np.ndarray
    area: float


def roc_figure(curves: Sequence[Curve], *, labels: np.ndarray) -> Figure:
    """Draws the ROC curve of every model.

    Args:
        curves: Scores of the models, in the order in which they are drawn.
        labels: Labels of the test records, `[n]` of 0 and 1.
    """
    figure, axes = _square(title="ROC curves (AUROC)")
    for scores, style in _drawn(curves):
        axes.plot(*_roc(labels, scores), **style)
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity")
    _legend(figure, axes)
    return figure


def precision_recall_figure(curves: Sequence[Curve], *, labels: np.ndarray) -> Figure:
    """Draws the precision–recall curve of every model, and the share of positives as a line.

    The area under these steps is the average precision of the table: nothing is interpolated between thresholds
    (Davis and Goadrich, The relationship between precision-recall and ROC curves, ICML 2006).

    Args:
        curves: Scores of the models, in the order in which they are drawn.
        labels: Labels of the test records, `[n]` of 0 and 1.
    """
    figure, axes = _square(title="Precision–recall curves (AUPRC)")
    for scores, style in _drawn(curves):
        precision, recall, _ = precision_recall_curve(labels, scores)
        axes.plot(recall, precision, drawstyle="steps-post", **style)
    axes.axhline(float(np.mean(labels)), color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.set(xlabel="sensitivity (recall)", ylabel="positive predictive value (precision)")
    _legend(figure, axes)
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


def _drawn(curves: Sequence[Curve]) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Returns scores and the style of their curve, for the models whose metric is defined."""
    return [
        (
            curve.scores,
            {
                "color": color,
                "linewidth": 2.2 if curve.model == REFERENCE else 1.3,
                "label": f"{curve.title} ({curve.area:.3f})",
            },
        )
        for curve, color in zip(curves, itertools.cycle(_COLORS), strict=False)
        if math.isfinite(curve.area)
    ]


def _roc(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns 1 − specificity and sensitivity at every threshold, from none called positive to all."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_tie = np.r_[ranked[1:] != ranked[:-1], True]
    alarms, hits = (np.r_[0, np.cumsum(labels[order] == which)[last_of_tie]] for which in (0, 1))
    return alarms / alarms[-1], hits / hits[-1]
