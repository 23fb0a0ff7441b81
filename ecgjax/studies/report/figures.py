"""Figures of a training and of recordings, drawn without a display."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from data_pipelines.records import STANDARD_LEADS
from ecgjax.studies.report.forest import plain_axes

#: Distance between the zero lines of stacked leads, mV.
_LEAD_SPACING_MV = 2.0

_TRAINING, _VALIDATION = "#7f7f7f", "#b3202c"
_PAIR_COLORS = ("#b3202c", "#e08a3c", "#1f6fb4")

#: Largest distance that panels reach beyond the outermost zero lines, mV, so that artefacts do not dwarf the ECG.
_MOST_BEYOND_MV = 6.0

#: Training metrics that are drawn below the loss; all lie between −1 and 1.
_PAIR_METRICS = ("best_positive_similarity", "hardest_negative_similarity", "top1_accuracy")


def metric_series(lines: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Collects the lines of `metrics.jsonl`, each with `step` and further named values, into a series for each name.

    Returns:
        Series of steps and values, `f64[points, 2]`, sorted by step, by name. Undefined values are left out, and if a
        step was written twice, the last value counts.
    """
    series: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                series.setdefault(name, {})[line["step"]] = float(value)
    return {name: np.array(sorted(points.items()), np.float64) for name, points in series.items()}


def training_curve(metrics: Mapping[str, np.ndarray]) -> Figure:
    """Draws the training and validation loss against the step, and below it metrics of the pairs in a batch.

    Args:
        metrics: Series from `metric_series`. `train/loss` is needed; `eval/loss` and `_PAIR_METRICS` are drawn if they
            are there.
    """
    pairs = [name for name in _PAIR_METRICS if f"train/{name}" in metrics]
    figure = Figure(figsize=(6.4, 3.2 + (2.4 if pairs else 0)), layout="constrained")
    axes = figure.subplots(1 + bool(pairs), 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(*metrics["train/loss"].T, color=_TRAINING, linewidth=1.2, label="training")
    if "eval/loss" in metrics:
        axes[0].plot(*metrics["eval/loss"].T, "o-", color=_VALIDATION, markersize=4, label="validation")
    axes[0].set_ylabel("loss")
    for color, name in zip(_PAIR_COLORS, pairs, strict=False):
        axes[1].plot(*metrics[f"train/{name}"].T, color=color, linewidth=1.2, label=name.replace("_", " "))
    if pairs:
        axes[1].set_ylabel("pairs of a training batch")
    axes[-1].set_xlabel("step")
    for panel in axes:
        panel.legend(frameon=False)
        plain_axes(panel)
    return figure


def augmented_views(
    original: np.ndarray, views: Sequence[tuple[str, np.ndarray]], *, sampling_rate_hz: float, titles: Sequence[str]
) -> Figure:
    """Draws records (rows) as they are and under each view (columns), with twelve leads stacked on ECG paper.

    A second and a millivolt have the same length in every panel of a row: a view of half the duration is half as wide.

    Args:
        original: Signals as they are, `f32[records, time, 12]`, mV, leads I II III aVR aVL aVF V1…V6.
        views: Name and signals, `f32[records, time, 12]`, of each view, which may be shorter than the original.
        sampling_rate_hz: Sampling rate of all signals, Hz.
        titles: Titles of the records, one per record.
    """
    columns = [("original", original), *views]
    figure = Figure(figsize=(4.6 * len(columns), 7.0 * len(original)), layout="constrained")
    widths = [signals.shape[1] for _, signals in columns]
    panels = figure.subplots(len(original), len(columns), squeeze=False, width_ratios=widths)
    for row, title in enumerate(titles):
        limits = _limits([signals[row] for _, signals in columns])
        for panel, (name, signals) in zip(panels[row], columns, strict=True):
            _draw_ecg(panel, signals[row], sampling_rate_hz=sampling_rate_hz)
            panel.set_ylim(*limits)
            panel.set_title(f"{title}: {name}" if name == "original" else name, fontsize=10, parse_math=False)
    for panel in panels[-1]:
        panel.set_xlabel("s (grid: .2 s, .5 mV)")
    return figure


def _limits(signals: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the lower and upper limit, mV, of the y axis of panels that show several signals of one record.

    Zero is the zero line of the first lead. The limits include the outermost leads of all signals, up to a largest
    distance.
    """
    zeros = -_LEAD_SPACING_MV * np.arange(signals[0].shape[1])
    low, high = (np.array([extreme(ecg, axis=0) + zeros for ecg in signals]) for extreme in (np.min, np.max))
    most = np.array([zeros[-1], 0]) + np.array([-1, 1]) * _MOST_BEYOND_MV
    return max(most[0], min(zeros[-1] - 1.5, low.min() - 0.2)), min(most[1], max(2.0, high.max() + 0.2))


def _draw_ecg(panel: Axes, ecg: np.ndarray, *, sampling_rate_hz: float) -> None:
    """Draws an ECG, `f32[time, 12]`, mV, into a panel, on a grid of 0.2 s by 0.5 mV."""
    seconds = np.arange(len(ecg)) / sampling_rate_hz
    zeros = -_LEAD_SPACING_MV * np.arange(ecg.shape[1])
    panel.plot(seconds, ecg + zeros, color="black", linewidth=0.55)
    panel.set_yticks(zeros, STANDARD_LEADS)
    panel.set_xlim(0, len(ecg) / sampling_rate_hz)
    panel.xaxis.set_minor_locator(MultipleLocator(0.2))
    panel.yaxis.set_minor_locator(MultipleLocator(0.5))
    panel.xaxis.set_major_locator(MultipleLocator(1.0))
    panel.grid(which="both", color="#e8a0a0", linewidth=0.35)
    panel.set_axisbelow(True)
    panel.tick_params(which="both", length=0)
