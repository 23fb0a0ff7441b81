"""Figures of the report, drawn without a display."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from data_pipelines.records import STANDARD_LEADS
from ecgjax.evaluation.calibration import ReliabilityCurve
from ecgjax.evaluation.comparison import REFERENCE, Comparison

#: Distance between the zero lines of stacked leads, mV.
_LEAD_SPACING_MV = 2.0

_COLORS = ("#b3202c", "#e08a3c", "#7f7f7f", "#1f6fb4", "#c58a00", "#3c8d40", "#6a4c93", "#2aa198")

#: Training metrics drawn under the loss; all lie in −1 … 1.
_PAIR_METRICS = ("best_positive_similarity", "hardest_negative_similarity", "top1_accuracy")


def metric_series(lines: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Turns the lines of `metrics.jsonl`, each with `step` and any number of named values, into one series a name.

    Returns:
        name → `f64[points, 2]` of step and value, sorted by step; undefined values are left out, and of a step written
        twice the last counts.
    """
    series: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                series.setdefault(name, {})[line["step"]] = float(value)
    return {name: np.array(sorted(points.items()), np.float64) for name, points in series.items()}


def training_curve(metrics: Mapping[str, np.ndarray]) -> Figure:
    """Draws the loss of training and validation, and below it what the pairs of a batch look like, against the step.

    Args:
        metrics: as `metric_series` gives them; must have `train/loss`. `eval/loss` and the similarities of
            `_PAIR_METRICS` are drawn where they are there.
    """
    pairs = [name for name in _PAIR_METRICS if f"train/{name}" in metrics]
    figure = Figure(figsize=(8, 3.6 + (2.6 if pairs else 0)), layout="constrained")
    axes = figure.subplots(1 + bool(pairs), 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(*metrics["train/loss"].T, color=_COLORS[2], linewidth=1.2, label="training")
    if "eval/loss" in metrics:
        axes[0].plot(*metrics["eval/loss"].T, "o-", color=_COLORS[0], markersize=4, label="validation")
    axes[0].set_ylabel("loss")
    for color, name in zip(_COLORS, pairs, strict=False):
        axes[1].plot(*metrics[f"train/{name}"].T, color=color, linewidth=1.2, label=name.replace("_", " "))
    if pairs:
        axes[1].set_ylabel("pairs of a training batch")
    axes[-1].set_xlabel("step")
    for panel in axes:
        panel.legend(frameon=False)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def augmented_views(
    original: np.ndarray,
    views: Sequence[tuple[str, np.ndarray]],
    *,
    sampling_rate_hz: float,
    titles: Sequence[str],
) -> Figure:
    """Draws records (rows) as they are and under each view (columns), twelve leads stacked on ECG paper.

    Args:
        original: `f32[records, time, 12]`, mV, leads I II III aVR aVL aVF V1…V6.
        views: name and `f32[records, time, 12]` each; a view may be shorter than the original.
        sampling_rate_hz: of all of them.
        titles: one a record.
    """
    columns = [("original", original), *views]
    figure = Figure(figsize=(4.6 * len(columns), 7.0 * len(original)), layout="constrained")
    panels = figure.subplots(len(original), len(columns), squeeze=False)
    for row, title in enumerate(titles):
        for panel, (name, signals) in zip(panels[row], columns, strict=True):
            _draw_ecg(panel, signals[row], sampling_rate_hz=sampling_rate_hz)
            panel.set_title(f"{title}: {name}" if name == "original" else name, fontsize=10)
    for panel in panels[-1]:
        panel.set_xlabel("s")
    return figure


def _draw_ecg(panel: Axes, ecg: np.ndarray, *, sampling_rate_hz: float) -> None:
    """Draws `f32[time, 12]` on a grid of 0.2 s by 0.5 mV."""
    seconds = np.arange(len(ecg)) / sampling_rate_hz
    zeros = -_LEAD_SPACING_MV * np.arange(ecg.shape[1])
    panel.plot(seconds, ecg + zeros, color="black", linewidth=0.55)
    panel.set_yticks(zeros, STANDARD_LEADS)
    panel.set_xlim(0, len(ecg) / sampling_rate_hz)
    panel.set_ylim(zeros[-1] - 1.5, 2.0)
    panel.xaxis.set_minor_locator(MultipleLocator(0.2))
    panel.yaxis.set_minor_locator(MultipleLocator(0.5))
    panel.xaxis.set_major_locator(MultipleLocator(1.0))
    panel.grid(which="both", color="#e8a0a0", linewidth=0.35)
    panel.set_axisbelow(True)
    panel.tick_params(which="both", length=0)


def comparison_figure(comparison: Comparison, *, labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Draws the ROC curve of every model, and the paired differences with their intervals.

    Args:
        comparison: result, rows in the order to draw.
        labels: `[n]` of 0 and 1 of the test records.
        scores: model name → `f64[n]`.
    """
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    roc, forest = figure.subplots(1, 2, width_ratios=(1, 1.1))
    colors = dict(zip((row.name for row in comparison.rows), _COLORS, strict=False))
    for row in comparison.rows:
        if math.isfinite(row.auroc.estimate):
            width = 2.2 if row.name == REFERENCE else 1.3
            label = f"{row.title} ({row.auroc.estimate:.3f})"
            roc.plot(*_roc(labels, scores[row.name]), color=colors[row.name], linewidth=width, label=label)
    roc.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle="--")
    roc.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    if roc.get_legend_handles_labels()[0]:
        roc.legend(frameon=False, fontsize=8, loc="lower right", title="AUROC", title_fontsize=8)
    others = [row for row in comparison.rows if row.difference is not None]
    for position, row in enumerate(others):
        estimate, low, high = row.difference.estimate, row.difference.low, row.difference.high
        if math.isfinite(low):
            forest.plot([low, high], [position] * 2, color=colors[row.name], linewidth=2)
        if math.isfinite(estimate):
            forest.plot(estimate, position, "o", color=colors[row.name])
        at = (estimate if math.isfinite(estimate) else 0, position)
        forest.annotate(row.difference.signed(), at, (0, 8), textcoords="offset points", ha="center", fontsize=8)
    forest.axvline(0, color="#888888", linewidth=0.8)
    forest.set_yticks(range(len(others)), [row.title.replace(", ", ",\n") for row in others], fontsize=8)
    forest.set_ylim(len(others) - 0.5, -0.6)
    forest.margins(x=0.25)
    forest.set_xlabel("AUROC: pretrained − this model")
    for panel in (roc, forest):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    return figure


def reliability_figure(curves: Mapping[str, ReliabilityCurve]) -> Figure:
    """Draws the reliability curve of every model in a panel of its own.

    Args:
        curves: title of the model → its curve on the test records.
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
    figure.supylabel("frequency", fontsize=9)
    return figure


def _roc(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns 1 − specificity and sensitivity at every threshold, from none positive to all."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_tie = np.r_[ranked[1:] != ranked[:-1], True]
    alarms, hits = (np.r_[0, np.cumsum(labels[order] == which)[last_of_tie]] for which in (0, 1))
    return alarms / alarms[-1], hits / hits[-1]
