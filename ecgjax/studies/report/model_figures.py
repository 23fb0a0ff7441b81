"""Figures of the models' predictions for the same test records, drawn without a display."""

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
from ecgjax.evaluation.metrics.regression import BlandAltman
from ecgjax.studies.model_names import REFERENCE
from ecgjax.studies.report.forest import alone, plain_axes

_LINE = "#b3202c"
_COLORS = (_LINE, "#e08a3c", "#7f7f7f", "#1f6fb4", "#c58a00", "#3c8d40", "#6a4c93", "#2aa198")

#: Size in inches: two such figures fit side by side on a page, and one is readable on a phone.
_SIZE = (5.6, 5.9)


class Curve(NamedTuple):
    """Scores of a model whose curve is drawn.

    Attributes:
        model: Key of the model.
        title: Title of the model.
        scores: Scores of the test records, `f64[n]`.
        area: Area under the curve, for the legend; a curve whose area is not finite is not drawn.
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
    figure, panels = _panels(list(curves), height=3.0, xlabel="predicted probability", ylabel="observed frequency")
    for panel, color, curve in zip(panels, itertools.cycle(_COLORS), curves.values(), strict=False):
        panel.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle="--")
        bars = [curve.observed - curve.low, curve.high - curve.observed]
        panel.errorbar(curve.predicted, curve.observed, bars, color=color, marker="o", markersize=4, capsize=2)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        panel.grid(alpha=0.25)
    return figure


def scatter_figure(truth: np.ndarray, predicted: np.ndarray, *, name: str, title: str) -> Figure:
    """Draws predicted against true values on one scale, with the line on which they are equal.

    Args:
        truth: True values, `[n]`.
        predicted: Predicted values, `[n]`.
        name: Name of the quantity, with its unit.
        title: Title of the model.
    """
    figure, axes = alone((5.6, 5.4))
    _scatter(axes, truth, predicted, limits=_limits(truth, [predicted]))
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    axes.set_title(title, fontsize=11)
    return figure


def panels_figure(truth: np.ndarray, predicted: Mapping[str, np.ndarray], *, name: str) -> Figure:
    """Draws predicted against true values of every model, one panel per model, all on one scale.

    Args:
        truth: True values, `[n]`.
        predicted: Predicted values, `[n]`, by the model's title.
        name: Name of the quantity, with its unit.
    """
    figure, panels = _panels(list(predicted), height=3.1, xlabel=f"true {name}", ylabel=f"predicted {name}")
    limits = _limits(truth, list(predicted.values()))
    for panel, values in zip(panels, predicted.values(), strict=True):
        _scatter(panel, truth, values, limits=limits, size=5)
        plain_axes(panel)
    return figure


def bland_altman_figure(
    truth: np.ndarray, predicted: np.ndarray, *, agreement: BlandAltman, name: str, unit: str, title: str
) -> Figure:
    """Draws a Bland–Altman plot: differences against means, with bias and limits of agreement.

    Bands show the intervals of the bias and of the limits.

    Args:
        truth: True values, `[n]`, one record per patient.
        predicted: Predicted values, `[n]`.
        agreement: Bias and limits of agreement of the same values.
        name: Name of the quantity, with its unit.
        unit: Unit of the quantity; empty if it has none.
        title: Title of the model.
    """
    figure, axes = alone((5.6, 5.4))
    spread = agreement.upper - agreement.lower
    digits = max(0, 2 - math.floor(math.log10(spread))) if spread > 0 else 2
    _points(axes, (truth + predicted) / 2, predicted - truth)
    lines = (
        ("bias", agreement.bias, agreement.bias_interval, "-"),
        ("upper limit", agreement.upper, agreement.upper_interval, "--"),
        ("lower limit", agreement.lower, agreement.lower_interval, "--"),
    )
    for text, value, interval, style in lines:
        axes.axhspan(*interval, color=_LINE, alpha=0.15, linewidth=0)
        axes.axhline(value, color=_LINE, linewidth=1.2, linestyle=style)
        axes.annotate(
            f"{text} {value:+z.{digits}f}", (1, value), (-4, 4), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=9, color=_LINE,
        )  # fmt: skip
    axes.set(
        xlabel=f"mean of true and predicted {name}",
        ylabel=f"predicted minus true ({unit})" if unit else "predicted minus true",
    )
    axes.set_title(title, fontsize=11)
    return figure


def _scatter(
    axes: Axes, truth: np.ndarray, predicted: np.ndarray, *, limits: tuple[float, float], size: float = 10
) -> None:
    _points(axes, truth, predicted, size=size)
    axes.plot(limits, limits, color="#888888", linewidth=0.9, linestyle="--")
    axes.set(xlim=limits, ylim=limits, aspect="equal")


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, *, size: float = 10) -> None:
    axes.scatter(x, y, s=size, alpha=0.35, color="#1f6fb4", linewidths=0)


def _limits(truth: np.ndarray, predicted: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the limits of both axes of a scatter plot.

    They include all true values, and all predictions but the most extreme 0.1 % on each side.
    """
    within = np.concatenate([np.quantile(values, (0.001, 0.999)) for values in predicted])
    low, high = min(truth.min(), within.min()), max(truth.max(), within.max())
    margin = 0.03 * (high - low)
    return float(low - margin), float(high + margin)


def _square(*, title: str) -> tuple[Figure, Axes]:
    figure, axes = alone(_SIZE)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal", title=title)
    return figure, axes


def _panels(titles: Sequence[str], *, height: float, xlabel: str, ylabel: str) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure and its panels, one for each title, all on one scale."""
    columns = min(4, max(1, len(titles)))
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(2.9 * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title.replace(", ", ",\n"), fontsize=8)
    for panel in panels[len(titles) :]:
        panel.set_visible(False)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return figure, list(panels[: len(titles)])


def _legend(figure: Figure, axes: Axes) -> None:
    handles, texts = axes.get_legend_handles_labels()
    if handles:  # The legend stands below, since with eight models it would hide curves.
        figure.legend(handles, texts, loc="outside lower center", frameon=False, fontsize=9)


def _drawn(curves: Sequence[Curve]) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Returns the scores and the line style of every curve whose area is defined."""
    drawn = []
    for curve, color in zip(curves, itertools.cycle(_COLORS), strict=False):
        if math.isfinite(curve.area):
            label, width = f"{curve.title} ({curve.area:.3f})", 2.2 if curve.model == REFERENCE else 1.3
            drawn.append((curve.scores, {"color": color, "linewidth": width, "label": label}))
    return drawn


def _roc(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns 1 − specificity and sensitivity, `f64[thresholds]` each, from the highest threshold to the lowest."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Records of equal score are called positive together.
    last_of_tie = np.r_[ranked[1:] != ranked[:-1], True]
    alarms, hits = (np.r_[0, np.cumsum(labels[order] == which)[last_of_tie]] for which in (0, 1))
    return alarms / alarms[-1], hits / hits[-1]
