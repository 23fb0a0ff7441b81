"""The request to stop that a loop asks about, at one step for all processes."""

from __future__ import annotations

import contextlib
from types import TracebackType

import jax

from data_pipelines.system import stop_signals
from ecgjax.processes.signs_of_life import SignsOfLife


class StopRequest:
    """Context manager that turns signals to stop into a question that a loop asks before every step.

    Where the process did not listen to signals before, SIGTERM and SIGUSR1 are heard inside, and Ctrl-C stays a
    `KeyboardInterrupt`.
    """

    def __enter__(self) -> StopRequest:
        with contextlib.ExitStack() as stack:
            if stop_signals.listen(interrupts=False):
                stack.callback(stop_signals.ignore)
            self._processes = stack.enter_context(SignsOfLife()) if jax.process_count() > 1 else None
            stack.enter_context(stop_signals.taken_over())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._processes is not None:
            self._processes.loop_is_over()
        self._stack.__exit__(kind, error, trace)

    def requested(self) -> bool:
        """Returns whether the loop is to stop here; all processes ask equally often, and get the same answer."""
        if self._processes is not None:
            return self._processes.stop_at_this_poll()
        return stop_signals.heard() is not None
