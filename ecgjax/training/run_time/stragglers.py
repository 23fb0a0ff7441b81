"""Which process of a run keeps the others waiting for its input."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from typing import NamedTuple

#: Times the median of all processes above which one is told as a straggler.
MOST_TIMES = 2.0

#: Share of a step below which a difference is not worth a word.
_LEAST_SHARE = 0.1


class Pace(NamedTuple):
    """What a process has measured since its last log.

    Attributes:
        step: Step of the log.
        input_ms: Milliseconds a step that it has waited for its own input.
        step_ms: Milliseconds a step in all, which is the same in all processes: they wait for each other.
    """

    step: int
    input_ms: float
    step_ms: float

    def text(self) -> str:
        """Returns the pace as a text for other processes."""
        return json.dumps(self)


class Straggler(NamedTuple):
    """The process that waited longest for its input.

    Attributes:
        process: Number of the process.
        pace: Its pace.
        median_ms: Median of all processes' waiting, in milliseconds a step.
    """

    process: int
    pace: Pace
    median_ms: float

    @property
    def is_told(self) -> bool:
        """Whether it waits so much longer than the others that it holds them up."""
        excess = self.pace.input_ms - self.median_ms
        return self.pace.input_ms > MOST_TIMES * self.median_ms and excess > _LEAST_SHARE * self.pace.step_ms

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of the straggler, as `perf/…`."""
        return {
            "perf/straggler_process": float(self.process),
            "perf/straggler_input_ms": self.pace.input_ms,
            "perf/straggler_excess_ms": self.pace.input_ms - self.median_ms,
        }


def pace_of(text: str) -> Pace | None:
    """Returns the pace that another process has told, or None where it is none."""
    try:
        step, *times = json.loads(text)
        pace = Pace(int(step), *map(float, times))
    except (ValueError, TypeError):
        return None
    return pace if all(map(math.isfinite, pace)) else None


def straggler_of(told: Mapping[int, str], *, own: Pace) -> Straggler | None:
    """Returns the process that waited longest for its input; None where fewer than two have told of it.

    Nobody waits for what the others tell: it may be that of the log before.

    Args:
        told: Texts of the other processes by their numbers.
        own: Pace of the first process.
    """
    paces = {0: own, **{number: pace for number, text in told.items() if (pace := pace_of(text)) is not None}}
    if len(paces) < 2:
        return None
    slowest = max(paces, key=lambda number: (paces[number].input_ms, -number))
    return Straggler(slowest, paces[slowest], statistics.median_low([pace.input_ms for pace in paces.values()]))
