"""Signals that ask a command to stop, heard from the first line of its module on.

Python runs a signal's handler in the main thread between two of its own instructions. While the main thread is in a
library's code, as XLA's compiler is for minutes, no handler runs, and before there is one, the signal ends the process
by itself. So a command calls `listen` before its other imports. The system's part of Python's handler then writes the
signal's number to a pipe at once, whatever the main thread does, and a thread of this module reads the pipe.

Before a loop takes the signals over (`taken_over`), there is nothing of the process's own to save. The main thread
raises `Stopped`, which is a `SystemExit`, so that temporary folders and worker processes are cleared away; where it
does not get to it within `GRACE_S`, the thread ends the process. That is as safe as a kill: every file of a run appears
by renaming a complete one, and a folder that is half made is removed, or gone on with, by the next start.

This module imports the standard library alone, so that importing it takes no time.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from data_pipelines.system.exit_status import ExitStatus

#: Signals that ask to stop: of clusters, of Slurm's `--signal=USR1@…`, and of Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

#: Seconds that the main thread gets to end by itself before the process is ended, where nothing is to be saved.
GRACE_S = 3.0

#: Number of a Ctrl-C that does not wait for the save under way.
_IMPATIENT = 3

#: Seconds that a stream gets to write what was printed to it before the process leaves.
_FLUSH_S = 1.0

#: Number in the pipe, of no signal, which says that the process leaves.
_LEAVING = 0


class Stopped(SystemExit):
    """The process was asked to stop, and ends with the status that says so."""


class _Ears:
    """What this process has heard, and who takes it; there is one, as a process has one set of handlers."""

    def __init__(self) -> None:
        self.previous: dict[int, Any] = {}
        self.first: signal.Signals | None = None
        self.first_at = 0.0
        self.taken = False
        self.saves = False
        self.raised = False
        self.told = threading.Event()
        self.counts: Counter[int] = Counter()
        self.hooks: list[Callable[[signal.Signals], None]] = []
        self.pipe: tuple[int, int] | None = None
        self.leaves_with = 0

    def handle(self, number: int, _: FrameType | None) -> None:
        """Ends the main thread, where no loop takes the signal; it runs in the main thread."""
        if not self.taken and not self.raised:
            self.raised = True
            self.told.wait(1.0)  # The other thread says what happens; this one might end the process before it.
            raise Stopped(int(status_of(signal.Signals(number))))

    def watch(self, pipe: int) -> None:
        """Reads the numbers of signals as they come; it runs in a thread of its own."""
        while True:
            for number in os.read(pipe, 64):
                if number == _LEAVING:
                    time.sleep(_FLUSH_S)
                    os._exit(self.leaves_with)
                if number in self.previous:
                    self.hear(signal.Signals(number))

    def hear(self, heard: signal.Signals) -> None:
        self.counts[heard] += 1
        before = self.first
        if before is None:
            self.first_at, self.first, self.saves = time.monotonic(), heard, self.taken
        for hook in self.hooks:
            with contextlib.suppress(Exception):  # The process stops even where others cannot be told.
                hook(heard)
        if before is None:
            if self.taken:
                say(f"{heard.name}: the run stops at the end of the step under way, and saves its state")
            else:
                say(
                    f"{heard.name}: stopping, before there was anything to save. What is finished stays; {go_on(heard)}"
                )
                self.told.set()
                if not _started(threading.Thread(target=self.insist, args=(heard,), daemon=True, name="stop")):
                    self.insist(heard)
        elif heard == signal.SIGINT and self.counts[heard] >= _IMPATIENT:
            dropped = "a save under way is dropped, earlier ones stay" if self.saves else "what is finished stays"
            say(f"SIGINT for the third time: leaving at once; {dropped}")
            os._exit(ExitStatus.INTERRUPTED)
        else:
            waited = "the save is waited for" if self.saves else "there is nothing to save"
            say(f"{heard.name}: already stopping since {before.name}; {waited}")

    def insist(self, heard: signal.Signals) -> None:
        """Ends the process where its main thread has not done so."""
        time.sleep(GRACE_S)
        leave(status_of(heard))


_EARS = _Ears()


def listen(*, interrupts: bool = True) -> bool:
    """Begins to hear signals that ask to stop; a second call only puts handlers back that a library has replaced.

    Args:
        interrupts: Whether Ctrl-C is heard too; without it, it raises a `KeyboardInterrupt` as before.

    Returns:
        Whether this call began it. It cannot begin in another than the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    began = not _EARS.previous
    if _EARS.pipe is None:
        _EARS.pipe = os.pipe()
        os.set_blocking(_EARS.pipe[1], False)
        threading.Thread(target=_EARS.watch, args=(_EARS.pipe[0],), daemon=True, name="stop-signals").start()
        # A child that is forked has the handlers and the pipe too: a signal to the child would be heard here.
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_forget)
        if sys.unraisablehook is sys.__unraisablehook__:
            sys.unraisablehook = _quieten
    signal.set_wakeup_fd(_EARS.pipe[1], warn_on_full_buffer=False)
    for number in SIGNALS if interrupts or not began else SIGNALS[:2]:
        if began or number in _EARS.previous:
            before = signal.signal(number, _EARS.handle)
            _EARS.previous.setdefault(number, before)
    return began


def _quieten(unraisable: Any) -> None:
    """Leaves out what Python prints where the main thread was in a callback that passes no exception on."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)


def ignore() -> None:
    """Undoes `listen`: handlers are those from before, and what was heard is forgotten."""
    for number, before in _EARS.previous.items():
        signal.signal(number, signal.SIG_DFL if before is None else before)
    signal.set_wakeup_fd(-1)
    _EARS.previous = {}
    _EARS.first, _EARS.raised, _EARS.taken, _EARS.saves = None, False, False, False
    _EARS.told.clear()
    _EARS.counts.clear()


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget() -> None:
    if _EARS.previous:
        ignore()
    _EARS.hooks.clear()
    _EARS.pipe = None
    _unblock()


@contextlib.contextmanager
def taken_over() -> Iterator[None]:
    """Leaves it to the code inside to stop: signals end nothing, and are told by `heard`.

    Raises:
        Stopped: A signal was heard before.
    """
    _EARS.taken = True
    try:
        if _EARS.first is not None:
            raise Stopped(int(status()))
        yield
    finally:
        # Once it has stopped by itself, the process is on its way out and needs no more signals.
        _EARS.taken = _EARS.first is not None


def heard() -> signal.Signals | None:
    """Returns the first signal that asked to stop, or None."""
    return _EARS.first


def seconds_since() -> float:
    """Returns the seconds since the first signal; 0 where there was none."""
    return time.monotonic() - _EARS.first_at if _EARS.first is not None else 0.0


def is_taken_over() -> bool:
    """Returns whether a loop has taken the signals over."""
    return _EARS.taken


def when_heard(hook: Callable[[signal.Signals], None]) -> Callable[[], None]:
    """Has a function called with every signal, in another thread; returns a function that takes this back."""
    _EARS.hooks.append(hook)
    return lambda: _EARS.hooks.remove(hook) if hook in _EARS.hooks else None


def status_of(stopped_by: signal.Signals) -> ExitStatus:
    """Returns the exit status of a command that a signal has stopped."""
    return ExitStatus.INTERRUPTED if stopped_by == signal.SIGINT else ExitStatus.STOPPED


def status() -> ExitStatus:
    """Returns the exit status of a command that was stopped: 130 after Ctrl-C, otherwise 75."""
    return status_of(_EARS.first or signal.SIGTERM)


def go_on(stopped_by: signal.Signals | None) -> str:
    """Returns how a stopped command goes on, in words: Ctrl-C comes from a person, who is shown the command."""
    if stopped_by != signal.SIGINT:
        return "the same command goes on"
    return f"this goes on:\n  {shlex.join(sys.orig_argv)}"


def say(words: str) -> None:
    """Writes a line to stderr at once; Python's own buffer may be locked by a thread that hangs."""
    with contextlib.suppress(OSError):
        os.write(2, f"{words}\n".encode(errors="replace"))


def leave(status: int) -> None:
    """Ends the process at once, after what was printed; nothing that is to run at its end is run.

    Args:
        status: Exit status of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # A thread that hangs may hold the stream, which must not hold this one.
        flushing = threading.Thread(target=_flush, args=(stream,), daemon=True)
        if _started(flushing):
            flushing.join(timeout=_FLUSH_S)
        else:
            _flush_here(stream, int(status))
    os._exit(int(status))


def _started(thread: threading.Thread) -> bool:
    """Starts a thread, and returns whether that was possible: from Python 3.12 on it is not while Python shuts down."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def _flush_here(stream: Any, status: int) -> None:
    """Flushes a stream in this thread; where that hangs, the thread that reads the pipe ends the process."""
    if _EARS.pipe is not None:
        _EARS.leaves_with = status
        with contextlib.suppress(OSError):
            os.write(_EARS.pipe[1], bytes([_LEAVING]))
    _flush(stream)


def _flush(stream: Any) -> None:
    with contextlib.suppress(Exception):
        stream.flush()
