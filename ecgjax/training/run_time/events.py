"""`goodput.jsonl`: what each start of a run has spent its time on, in a form that any kill survives.

Every line holds the sums of its start so far, so that a line which is lost or damaged costs only what came after the
one before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.system.visible_text import visible
from ecgjax.system.machine_faults import cause_of
from ecgjax.system.terminal import warn

GOODPUT_FILE = "goodput.jsonl"

#: Kinds of what a start spends its time on; together they are all of it.
KINDS = ("init", "compile", "input", "step", "evaluate", "save")

#: Kinds that are done for certain steps, and are lost with them.
OF_STEPS = ("input", "step", "evaluate", "save")

#: Occasions of the last line of a start: it came to the run's end, to a signal to stop, or to an error.
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeEvent:
    """A line of the file.

    Attributes:
        begun: Time at which the start began, in seconds since the epoch, by which its lines are known.
        at: Time of the line, in seconds since the epoch.
        occasion: Reason of the line, such as "save"; the last one of a start says how it ended.
        first: Step that the start goes on from; None before that is known.
        step: Number of finished steps.
        spent: Seconds by kind (`KINDS`), from the beginning of the start to this line.
    """

    begun: float
    at: float
    occasion: str
    first: int | None
    step: int
    spent: Mapping[str, float]

    def line(self) -> bytes:
        """Returns the event as a line of the file."""
        told = {
            "begun": self.begun,
            "at": self.at,
            "occasion": self.occasion,
            "first": self.first,
            "step": self.step,
            "spent": {kind: round(self.spent.get(kind, 0.0), 3) for kind in KINDS},
        }
        return json.dumps(told, allow_nan=False).encode() + b"\n"


def read_events(workdir: str | Path) -> list[TimeEvent]:
    """Returns the events of a run in the order of the file; none where it does not exist or cannot be read.

    Half a line that a killed process left is passed over. So are damaged lines, which a warning counts.

    Args:
        workdir: Folder of the run.
    """
    path = Path(workdir) / GOODPUT_FILE
    try:
        data = path.read_bytes() if path.is_file() else b""  # A pipe or device would not end.
    except OSError as error:
        warn(f"{visible(str(path))} cannot be read ({cause_of(error)}); the time of earlier starts is not known")
        return []
    texts = [text for text in data.split(b"\n") if text.strip()]
    events = [event for text in texts if (event := _event(text)) is not None]
    half = bool(texts) and not data.endswith(b"\n") and _event(texts[-1]) is None
    if damaged := len(texts) - len(events) - half:
        warn(f"{visible(str(path))} has {damaged} damaged line{'s' * (damaged > 1)}, passed over")
    return events


def cut_half_line(workdir: str | Path) -> None:
    """Cuts off half a line that a killed start left at the end of the file, if the disk lets that be done.

    Args:
        workdir: Folder of the run.
    """
    path = Path(workdir) / GOODPUT_FILE
    with contextlib.suppress(OSError):
        if path.is_file() and not (data := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def _event(text: bytes) -> TimeEvent | None:
    try:
        told = json.loads(text)
        spent = {kind: _number(told["spent"].get(kind, 0.0)) for kind in KINDS}
        first = None if told["first"] is None else _count(told["first"])
        begun, at = _number(told["begun"]), _number(told["at"])
        return TimeEvent(
            begun=begun, at=at, occasion=str(told["occasion"]), first=first, step=_count(told["step"]), spent=spent
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no time")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of steps")
    return value
