"""Figures of predicted quantities, drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgjax.evaluation.metrics.regression import BlandAltman

_LINE = "#b3202c"


def scatter_figure(truth: np.ndarray, predicted: np.ndarray, *, name: str, title: str) -> Figure:
    """Draws predicted against true values on one scale, with the line on which they are equal.

    Args:
        truth: True values, `[n]`.
        predicted: Predicted values, `[n]`.
        name: Name of the quantity, with its unit.
        title: Title of the model.
    """
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    axes = figure.subplots()
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
    columns = min(4, max(1, len(predicted)))
    rows = math.ceil(len(predicted) / columns)
    figure = Figure(figsize=(2.9 * columns, 3.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    limits = _limits(truth, list(predicted.values()))
    for panel, (title, values) in zip(panels, predicted.items(), strict=False):
        _scatter(panel, truth, values, limits=limits, size=5)
        panel.set_title(title.replace(", ", ",\n"), fontsize=8)
    for panel in panels[len(predicted) :]:
        panel.set_visible(False)
    figure.supxlabel(f"true {name}", fontsize=9)
    figure.supylabel(f"predicted {name}", fontsize=9)
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
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    axes = figure.subplots()
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
    _plain(axes)
    return figure


def _scatter(
    axes: Axes, truth: np.ndarray, predicted: np.ndarray, *, limits: tuple[float, float], size: float = 10
) -> None:
    _points(axes, truth, predicted, size=size)
    axes.plot(limits, limits, color="#888888", linewidth=0.9, linestyle="--")
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    _plain(axes)


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, *, size: float = 10) -> None:
    axes.scatter(x, y, s=size, alpha=0.35, color="#1f6fb4", linewidths=0)


def _limits(truth: np.ndarray, predicted: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the limits of the axes.

    They hold all true values and all but the most extreme predictions, since one that is far off would hide the others.
    """
    within = np.concatenate([np.quantile(values, (0.001, 0.999)) for values in predicted])
    low, high = min(truth.min(), within.min()), max(truth.max(), within.max())
    margin = 0.03 * (high - low)
    return float(low - margin), float(high + margin)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
