"""Silence for what Orbax and its readers print where a disk fails; ecgjax says in one line what happened.

A disk that is full would otherwise be told in a thousand lines: the trace of each error on every thread that it passes,
of each task that nobody waits for any more, and of each answer to a save that has already been given up.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from typing import Any


def silence_orbax() -> None:
    """Silences Orbax in this process; a second call changes nothing."""
    for name in ("", "absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_of_orbax)
    if not isinstance(sys.unraisablehook, _WithoutLateAnswers):
        sys.unraisablehook = _WithoutLateAnswers()


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    files = [record.pathname]
    if record.name == "asyncio" and error is not None:  # It logs errors of tasks, wherever they come from.
        files += [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return not any("orbax" in Path(file).parts for file in files)


class _WithoutLateAnswers:
    """Hook for errors that nobody can catch, which passes over what a save or a read that has failed leaves behind.

    Threads of TensorStore give their answers to an event loop that has ended, and coroutines of Orbax that nobody waits
    for any more raise errors when they are freed.
    """

    def __init__(self) -> None:
        self._before = sys.unraisablehook

    def __call__(self, unraisable: Any, /) -> None:
        closed = unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"
        code = getattr(unraisable.object, "cr_code", None)
        freed = code is not None and "orbax" in Path(code.co_filename).parts
        if not (freed or (closed and unraisable.object is None)):
            self._before(unraisable)
