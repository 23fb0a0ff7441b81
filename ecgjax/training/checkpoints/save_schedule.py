"""The steps at which a run saves: by number, by time, and where an evaluation is better than all before."""

from __future__ import annotations

import time
from collections.abc import Callable

from ecgjax.processes.joint_answers import of_first_process


class SaveSchedule:
    """Decides whether a save is due; every process decides alike.

    Time is that of the first process. It tells the others at multiples of `look_every` only, since they have to wait
    for its answer.

    Args:
        every: Number of steps between saves.
        minutes: Minutes between saves; None for none.
        look_every: Number of steps between looks at the clock.
    """

    def __init__(self, *, every: int, minutes: float | None = None, look_every: int = 1):
        self._every, self._look_every = every, look_every
        self._seconds = None if minutes is None else 60 * minutes
        self._clock: Callable[[], float] = time.monotonic
        self._since = self._clock()

    def due(self, step: int) -> bool:
        """Returns whether a save is due after `step` updates; every process has to ask at every step."""
        return step % self._every == 0 or self._late(step)

    def saved(self) -> None:
        """Notes that a save has begun, whatever for."""
        self._since = self._clock()

    def _late(self, step: int) -> bool:
        if self._seconds is None or step % self._look_every:
            return False
        return bool(of_first_process(int(self._clock() - self._since >= self._seconds)))
