"""Draws short simulated and real records of the same conditions side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS

_LEADS = ("II", "V1", "V5")
_SECONDS = 5.0
_LEAD_STEP_MV = 2.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """A simulated and a real example of a condition.

    Attributes:
        name: Name of the condition.
        simulated: `int16[time, lead]`, µV, or None where there is no simulated example.
        real: `int16[time, lead]`, µV, or None where there is no real example.
    """

    name: str
    simulated: np.ndarray | None
    real: np.ndarray | None


def draw_strips(conditions: Sequence[Condition], *, sampling_rate_hz: int, path: Path) -> None:
    """Draws leads II, V1 and V5 of every condition, simulated on the left and real on the right, to a PNG.

    Args:
        conditions: Conditions, one for each row of the picture.
        sampling_rate_hz: Rate of the signals.
        path: Path of the PNG.
    """
    figure = Figure(figsize=(15, 2.6 * len(conditions)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("Left: SIMULATED (no patient). Right: real. Leads II, V1, V5; a box is 0.2 s by 0.5 mV")
    axes = figure.subplots(len(conditions), 2, sharex=True, sharey=True, squeeze=False)
    for row, condition in zip(axes, conditions, strict=True):
        for axis, signal, origin, colour in (
            (row[0], condition.simulated, "SIMULATED", "tab:blue"),
            (row[1], condition.real, "real", "black"),
        ):
            axis.set_title(f"{origin}: {condition.name}" + (" (no example)" if signal is None else ""), fontsize=9)
            _draw_paper(axis)
            if signal is not None:
                _draw_leads(axis, signal, sampling_rate_hz, colour)
    figure.savefig(path, dpi=80)


def _draw_paper(axis: Axes) -> None:
    axis.set_xlim(0, _SECONDS)
    axis.set_ylim(-(len(_LEADS) - 0.25) * _LEAD_STEP_MV, 0.85 * _LEAD_STEP_MV)
    axis.set_xticks(np.arange(0, _SECONDS + 0.01, 0.2), labels=[])
    axis.set_yticks(np.arange(-(len(_LEADS) - 0.25) * _LEAD_STEP_MV, 0.85 * _LEAD_STEP_MV, 0.5), labels=[])
    axis.tick_params(length=0)
    axis.grid(color="mistyrose")


def _draw_leads(axis: Axes, signal: np.ndarray, sampling_rate_hz: int, colour: str) -> None:
    time = np.arange(len(signal)) / sampling_rate_hz
    for position, lead in enumerate(_LEADS):
        millivolts = signal[:, STORED_LEADS.index(lead)] / MICROVOLTS_PER_MILLIVOLT
        base = -position * _LEAD_STEP_MV
        axis.plot(time, millivolts - np.median(millivolts) + base, color=colour, linewidth=0.8)
        axis.text(0.03, base + 0.35, lead, fontsize=8)
