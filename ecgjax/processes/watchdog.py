"""A watchdog, which ends a process that hangs, after it has written where every thread stands."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import jax

from data_pipelines.system import stop_signals
from data_pipelines.system.exit_status import ExitStatus
from data_pipelines.system.stop_signals import say
from ecgjax.processes.signs_of_life import SILENCE_S, SignsOfLife
from ecgjax.settings.bounds import ZERO_OR_MORE, between
from ecgjax.settings.leaf import leaf

#: Seconds that an activity goes on after a signal to stop, before the state is saved without waiting for its end.
PATIENCE_S = 10.0

#: Seconds that a read or a step goes on after a signal to stop where the state cannot be saved without its end: with
#: several processes, or where a device hangs.
_HOPELESS_S = 60.0

#: Longest activity of a kind so far, times this, is allowed to the next one, whatever the setting says.
_TIMES_LONGEST = 20

#: Seconds between looks at the activity.
_LOOK_S = 0.25

#: Seconds that a save gets which the watchdog makes.
_RESCUE_S = 300.0

#: Seconds that the watchdog is late by before the C library ends the process in its place.
_BACKSTOP_S = 120.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogSettings:
    """`config.watchdog`: times after which a run that hangs, or has lost a process, ends."""

    minutes: float = leaf(
        30.0,
        "Minutes that a read, a step, an evaluation or a save may take, or 20 times the longest so far; 0 for ever.",
        bound=ZERO_OR_MORE,
    )
    start_minutes: float = leaf(
        180.0, "Minutes that opening the data, compiling and restoring may take together; 0 for ever.",
        bound=ZERO_OR_MORE,
    )  # fmt: skip
    silence_seconds: float = leaf(
        SILENCE_S, "Seconds without a sign of life after which another process counts as lost.", bound=between(2, 60)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Activity:
    kind: str
    what: str
    since: float
    limit_s: float
    setting: str
    rescue: Callable[[], str] | None


class Watchdog:
    """Context manager with a thread that looks at what the main thread is doing, and for how long.

    Args:
        folder: Folder that the stacks of all threads are written to, as `stacks.processN.txt`; None for stderr.
        settings: Times that are allowed.
    """

    def __init__(self, folder: str | Path | None = None, settings: WatchdogSettings | None = None):
        self._folder, self._settings = folder, settings or WatchdogSettings()
        self._lock = threading.Lock()
        self._current: _Activity | None = None
        self._longest: dict[str, float] = {}
        self._over = threading.Event()
        self._armed = 0.0
        self._rescuing = False

    def __enter__(self) -> Watchdog:
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._lock:
            if self._armed:
                faulthandler.cancel_dump_traceback_later()

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """Watches the start of a run: opening the data, compiling, restoring."""
        with self._activity("start", "the start", self._settings.start_minutes, "start_minutes", None):
            yield

    @contextlib.contextmanager
    def activity(
        self, kind: str, what: str, *, rescue: Callable[[], str] | None = None, compiles: bool = False
    ) -> Iterator[None]:
        """Watches what is done inside.

        Args:
            kind: Kind of activity, of which the longest so far is remembered.
            what: Activity in words, as in "reading the batch of step 7".
            rescue: Function that saves the state, and returns in words what it saved. It is called, in another thread,
                where the activity hangs or does not end after a signal to stop; the code inside must leave the state
                alone. The process ends afterwards, and the code after the context is not reached.
            compiles: Whether the first activity of the kind compiles something, and has the time of a start.
        """
        first = compiles and kind not in self._longest
        setting = "start_minutes" if first else "minutes"
        with self._activity(kind, what, getattr(self._settings, setting), setting, rescue):
            yield
        if first:
            self._longest[kind] = 0.0  # What compiling took says nothing of the next ones.

    @contextlib.contextmanager
    def _activity(
        self, kind: str, what: str, minutes: float, setting: str, rescue: Callable[[], str] | None
    ) -> Iterator[None]:
        if self._rescuing:  # The rescue is itself at work, and is waited for by its own limit.
            yield
            return
        limit_s = max(60 * minutes, _TIMES_LONGEST * self._longest.get(kind, 0.0)) if minutes else float("inf")
        outer, since = self._current, time.monotonic()
        self._current = _Activity(kind, what, since, limit_s, setting, rescue)
        try:
            yield
        finally:
            with self._lock:  # A rescue that has begun holds it to the process's end.
                self._current = outer
        self._longest[kind] = max(self._longest.get(kind, 0.0), time.monotonic() - since)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            now, current = time.monotonic(), self._current
            self._arm(now, current)
            if current is None:
                continue
            running = now - current.since
            if running > current.limit_s:
                self._end(current, self._hung(current, running))
            elif (
                stop_signals.is_taken_over()
                and stop_signals.heard() is not None
                and min(running, stop_signals.seconds_since()) > self._patience(current)
            ):
                self._end(current, f"{current.what} goes on for {running:.0f} s", asked=True)

    def _patience(self, current: _Activity) -> float:
        """Returns the seconds that an activity goes on after a signal to stop."""
        if current.rescue is not None:
            return PATIENCE_S
        # A save is what is waited for, and an evaluation has no usual length.
        hopeless = max(_HOPELESS_S, 5 * self._longest.get(current.kind, 0.0))
        return hopeless if current.kind in ("read", "step") else float("inf")

    def _arm(self, now: float, current: _Activity | None) -> None:
        """Has the C library dump the stacks and end the process where this thread cannot run any more.

        Code that hangs while it holds the interpreter's lock stops all threads of Python.
        """
        if self._folder is None or (now - self._armed < _BACKSTOP_S / 4 and self._armed):
            return
        with self._lock:
            if self._over.is_set():
                return
            limit_s = current.limit_s if current is not None else 60 * self._settings.minutes
            if 0 < limit_s < threading.TIMEOUT_MAX - _BACKSTOP_S:
                faulthandler.dump_traceback_later(limit_s + _BACKSTOP_S, exit=True, file=sys.__stderr__ or 2)
            else:
                faulthandler.cancel_dump_traceback_later()
            self._armed = now

    def _hung(self, current: _Activity, running: float) -> str:
        """Writes the stacks of all threads, and returns what happened in words."""
        words = f"{current.what} has taken {_duration(running)}, longer than config.watchdog.{current.setting} allows"
        where = self._dump(words)
        return f"{words}: this process hangs. {where}"

    def _dump(self, words: str) -> str:
        if self._folder is not None:
            path = Path(self._folder) / f"stacks.process{jax.process_index()}.txt"
            with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {words}\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
                return f"{path} says where every thread stands"
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        return "Above stands where every thread was"

    def _end(self, current: _Activity, words: str, *, asked: bool = False) -> None:
        with self._lock:
            if self._current is not current:  # It has ended in this very moment.
                return
            self._rescuing = True
            heard = stop_signals.heard()
            saved = self._saved(current)
            again = f"{saved}; {stop_signals.go_on(heard)}"
            say(f"{heard.name if heard else 'stop'}: {words}; {again}" if asked else f"error: {words}. {again}")
            if (processes := SignsOfLife.current()) is not None:
                processes.announce_end(words)
            stop_signals.leave(stop_signals.status() if heard is not None else ExitStatus.HUNG)

    @staticmethod
    def _saved(current: _Activity) -> str:
        """Saves the state where that is possible, and returns what became of it in words."""
        if current.rescue is None:
            return "nothing was saved since the last checkpoint"
        outcome = ["it could not be saved in time"]

        def save(rescue: Callable[[], str]) -> None:
            try:
                outcome[0] = rescue()
            except Exception as error:
                outcome[0] = f"it could not be saved ({error})"

        saving = threading.Thread(target=save, args=(current.rescue,), daemon=True, name="rescue")
        saving.start()
        saving.join(_RESCUE_S)
        return outcome[0]


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} s"
