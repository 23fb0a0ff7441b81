"""The trace of some steps of a run, as JAX's profiler writes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from data_pipelines.system.visible_text import visible
from ecgjax.system.terminal import say, warn
from ecgjax.training.profiling.profile_settings import ProfileSettings

#: Folder of the traces in that of the run.
PROFILE_DIR = "profile"

Step = Callable[[Any, Any], tuple[Any, Any]]


class StepTrace:
    """A step, as a context manager, that writes a trace of the steps which the settings name.

    A trace that cannot be begun or written costs a warning and no run. One that a signal or an error cuts short is
    written as far as it goes.

    Args:
        step: Step that is traced; without a trace it is called and nothing else.
        workdir: Folder of the run.
        settings: Settings of the trace.
        first: Number of finished steps before the first call.
    """

    def __init__(self, step: Step, workdir: str | Path, settings: ProfileSettings, *, first: int):
        self._step, self._done = step, first
        self._folder = Path(workdir) / PROFILE_DIR
        self._begin = settings.start
        self._end = (settings.start or 0) + settings.steps
        self._tracing = False
        self._latest: Any = None

    def __enter__(self) -> StepTrace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """Takes the step, and begins or ends the trace where that is due."""
        if self._begin is None:
            return self._step(state, batch)
        if self._begin <= self._done < self._end and not self._tracing:
            jax.block_until_ready(state)  # What was dispatched before is not part of the trace.
            self._start()
        with self._named():
            after = self._step(state, batch)
        self._done += 1
        self._latest = after if self._tracing else None
        if self._tracing and self._done >= self._end:
            self._stop()
        return after

    def _named(self) -> contextlib.AbstractContextManager[Any]:
        if not self._tracing:
            return contextlib.nullcontext()
        return jax.profiler.StepTraceAnnotation("train", step_num=self._done + 1)

    def _start(self) -> None:
        try:
            jax.profiler.start_trace(str(self._folder))
        except Exception as error:  # Whatever it is, a trace is not worth a run.
            self._give_up(error)
        else:
            self._tracing = True

    def _stop(self) -> None:
        if not self._tracing:
            return
        self._tracing = False
        try:
            # What was dispatched is part of the trace; a step that failed has taken its state along.
            jax.block_until_ready([leaf for leaf in jax.tree.leaves(self._latest) if not leaf.is_deleted()])
            jax.profiler.stop_trace()
        except Exception as error:
            self._give_up(error)
        else:
            if jax.process_index() == 0:
                say(f"trace of the steps up to {self._done}: {visible(str(self._folder))}")
        self._begin = self._latest = None

    def _give_up(self, error: Exception) -> None:
        self._begin = None
        warn(f"there is no trace in {visible(str(self._folder))}: {visible(str(error))}")
