"""Threads that read files side by side, and never keep a process from ending.

The threads of `concurrent.futures` are waited for when a process ends; one that waits for a disk which no longer
answers would keep a process alive for good. These are left behind.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")

#: What the name of every thread begins with.
NAME = "ecgjax-reader"

_Task = tuple[Future, Callable[..., Any], tuple[Any, ...]]


class ReaderThreads:
    """A fixed number of threads that take tasks in the order in which these were submitted.

    The threads start with the first task. They end after `close`, and when nothing refers to the object any more.
    """

    def __init__(self, count: int):
        """Starts no thread yet.

        Args:
            count: Number of threads, at least 1.
        """
        self._count, self._started, self._closed = count, False, False
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()

    def __del__(self) -> None:
        self.close()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Has a thread call a function, and returns the future of its result; after `close` it is cancelled already."""
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                # Nobody would ever take the task: whoever waits for it, such as a batch that was begun when the stream
                # was closed, must be told instead of waiting for good.
                _cancel(future)
                return future
            if not self._started:
                self._started = True
                # A thread refers to the tasks alone, so that the object can be dropped while threads wait.
                for number in range(self._count):
                    name = f"{NAME}-{number}"
                    threading.Thread(target=_work, args=(self._tasks,), name=name, daemon=True).start()
            self._tasks.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Cancels tasks that no thread has begun, and lets the threads end; it does not wait for them."""
        with self._lock:
            self._closed = True
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                break
            if task is not None:
                _cancel(task[0])
        for _ in range(self._count if self._started else 0):
            self._tasks.put(None)


def _work(tasks: queue.SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        _perform(*task)
        del task  # What it refers to, such as the memory of a batch, must not wait for the next task.


def _cancel(future: Future) -> None:
    if future.cancel():
        future.set_running_or_notify_cancel()  # Without it `concurrent.futures.wait` would go on waiting.


def _perform(future: Future, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*arguments)
    except BaseException as error:  # Whoever waits for the result is told.
        future.set_exception(error)
    else:
        future.set_result(result)
