"""Runs what may never return in a thread of its own, so that its caller can give it up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Task(Generic[Result]):
    """Runs a function in a daemon thread of its own, which ends with the process and need not be waited for."""

    def __init__(self, work: Callable[[], Result]):
        """Starts the function in its thread."""
        # The executors of the standard library wait for their threads at exit, and would never return if one hangs.
        self._answers: queue.SimpleQueue[tuple[Result] | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._answers.put((work(),))
        except BaseException as error:  # It is raised again where the result is taken.
            self._answers.put(error)

    def result(self, timeout_s: float | None = None) -> Result:
        """Waits for the function's result and returns it, or raises the function's error; the result can be taken once.

        Raises:
            TimeoutError: The result did not come in time.
        """
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(answer, BaseException):
            raise answer
        return answer[0]
