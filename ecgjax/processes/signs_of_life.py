"""Signs of life between the processes of one run, and the ways in which they end together.

JAX's coordination service keeps small texts by name, which all processes see. In a thread of its own every process
writes a count there every second, and reads those of the others. So it learns which process has fallen silent, which
one has ended with an error and which one was asked to stop, also while its main thread waits in a collective operation
that never ends.

The service lives in process 0. Where that one dies, JAX's own thread ends the other processes by `abort()` at once;
a handler of that signal says what happened and leaves with the status that launchers know. Where its machine is gone,
or the network between, nothing is closed and a call to the service waits for a minute; a second thread does not.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import jax
from jax._src import distributed

from data_pipelines.system import stop_signals
from data_pipelines.system.exit_status import ExitStatus
from data_pipelines.system.stop_signals import Stopped, say
from data_pipelines.system.visible_text import visible
from ecgjax.errors import CheckpointError, status_of

#: Seconds of silence after which a process counts as lost, unless a config says otherwise.
SILENCE_S = 30.0

#: Seconds that process 0, whose end takes the service away, waits for the others to leave before it.
_LAST_S = 5.0

#: Seconds that a process with an error gets to end by itself; libraries may wait for the others without end.
_INSIST_S = 20.0

_FINISHED, _STARTING = "finished", "starting"


class SignsOfLife:
    """Context manager in which this process gives signs of life to the others, and hears theirs.

    With one process it does nothing. Contexts may be nested: the inner one is then the outer one.

    Args:
        silence_s: Seconds of silence after which a process counts as lost.
    """

    _current: SignsOfLife | None = None
    _generation = 0

    def __init__(self, *, silence_s: float = SILENCE_S):
        self._silence_s, self._interval_s = silence_s, min(1.0, silence_s / 10)
        self._own, self._count = jax.process_index(), jax.process_count()
        self._wake, self._over = threading.Event(), threading.Event()
        self._agreement = threading.Condition()
        self._poll: int | None = None  # number of the last question of `stop_at_this_poll`
        self._loop_over = self._published = self._ending = False
        self._stop_poll: int | None = None
        self._seen: dict[int, tuple[str, float]] = {}
        self._client: Any = None
        self._note = ""
        self._notes: dict[int, str] = {}
        self._answered = time.monotonic()
        self._own_status: ExitStatus | None = None  # of the error that ends this process

    @classmethod
    def current(cls) -> SignsOfLife | None:
        """Returns the context that this process is in, or None."""
        return cls._current

    def __enter__(self) -> SignsOfLife:
        if self._count == 1:
            return self
        if SignsOfLife._current is not None:
            return SignsOfLife._current
        SignsOfLife._current = self
        # A process may run one training after another; their signs must not be mixed up.
        SignsOfLife._generation += 1
        self._prefix = f"ecgjax/{SignsOfLife._generation}"
        self._client = distributed.global_state.client
        now = time.monotonic()
        self._answered = now
        self._seen = {process: ("", now) for process in range(self._count) if process != self._own}
        self._signs = 0
        self._abort = _AbortHandler(self._coordinator_is_lost)
        self._take_back = stop_signals.when_heard(lambda _: self._wake.set())
        threading.Thread(target=self._watch, daemon=True, name="signs-of-life").start()
        if self._own:
            threading.Thread(target=self._watch_service, daemon=True, name="signs-of-process-0").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if SignsOfLife._current is not self:
            return
        if error is not None:
            self._end_with(error)
        else:
            with contextlib.suppress(Exception):  # The run is over, and only the others' watching is at stake.
                self._set(f"done/{self._own}", "")
            self._over.set()
            self._abort.remove()
        self._take_back()
        SignsOfLife._current = None

    # -- notes ------------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Lets the thread tell the other processes a text with its next sign of life; the call does not wait.

        Args:
            text: Text, which replaces the one before.
        """
        self._note = text

    def notes(self) -> dict[int, str]:
        """Returns the last text of every other process that has told one and was heard, by its number."""
        return dict(self._notes)

    def host_of(self, process: int) -> str:
        """Returns the name of the host of a process, as far as it was heard."""
        return socket.gethostname() if process == self._own else self._host(process)

    # -- stopping at one step ---------------------------------------------------------------------------------------

    def stop_at_this_poll(self) -> bool:
        """Returns whether all processes are to stop here; every process asks equally often, and hears the same.

        A process that learns of a request writes down how often it has asked, and from then on waits at its next
        question for what the others wrote. All stop at the question after the last one that any process had asked: each
        gets there, because none has to wait for another in between.
        """
        with self._agreement:
            self._poll = 0 if self._poll is None else self._poll + 1
            while self._published and self._stop_poll is None:
                self._agreement.wait(1.0)
            return self._stop_poll is not None and self._poll >= self._stop_poll

    def loop_is_over(self) -> None:
        """Says that this process asks no more."""
        with self._agreement:
            self._loop_over = True

    # -- the thread -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                self._round()
                self._answered = time.monotonic()
            except Exception as error:
                if time.monotonic() - self._answered > self._silence_s:
                    self._leave(_lost(0, self._host(0), f"it does not answer ({_first_line(error)})"), ExitStatus.LOST)
            self._wake.wait(self._interval_s)
            self._wake.clear()

    def _watch_service(self) -> None:
        """Ends this process where the service has not answered for too long; it calls nothing that may wait for it."""
        looked = time.monotonic()
        while not self._over.wait(self._interval_s):
            now = time.monotonic()
            if now - looked > self._silence_s / 2:  # This process itself stood still, as after SIGSTOP.
                self._answered = now
            looked = now
            if (silent := now - self._answered) > self._silence_s:
                if self._own_status is None:
                    self._say_that_0_is_lost(f"it has not answered for {silent:.0f} s")
                stop_signals.leave(_status_of_loss() if self._own_status is None else self._own_status)

    def _round(self) -> None:
        self._signs += 1
        self._set(f"alive/{self._own}", f"{self._signs} {socket.gethostname()}")
        found = {
            name.removeprefix(f"{self._prefix}/"): value
            for name, value in self._client.key_value_dir_get(f"{self._prefix}/")
        }
        if self._note:
            self._set(f"note/{self._own}", self._note)
        self._notes = {
            process: found[f"note/{process}"] for process in range(self._count)
            if process != self._own and f"note/{process}" in found
        }  # fmt: skip
        if self._ending:  # The main thread is ending this process.
            return
        if "end" in found:
            end = json.loads(found["end"])
            asked = stop_signals.heard() is not None and end["status"] == ExitStatus.LOST
            self._leave(end["words"], stop_signals.status() if asked else end["status"])
        self._agree(found)
        now = time.monotonic()
        for process, (sign, _) in self._seen.items():
            if found.get(f"alive/{process}", "") != sign:
                self._seen[process] = found[f"alive/{process}"], now
        for process, (_, last) in self._seen.items():
            if now - last > self._silence_s and not {f"done/{process}", f"gone/{process}"} & set(found):
                why = f"it has given no sign of life for {now - last:.0f} s"
                words = _lost(process, self._host(process), why)
                self._announce(words, ExitStatus.LOST)
                self._leave(words, ExitStatus.LOST)

    def _agree(self, found: Mapping[str, str]) -> None:
        heard = stop_signals.heard()
        if heard is not None and "asked" not in found:
            self._set("asked", str(int(heard)))
        elif heard is None and "asked" in found:
            os.kill(os.getpid(), int(found["asked"]))  # From here on it is as if this process had got the signal.
        elif heard is None:
            return
        if not self._published:
            with self._agreement:
                self._published = True
                at = _FINISHED if self._loop_over else _STARTING if self._poll is None else str(self._poll)
            self._set(f"at/{self._own}", at)
            self._wake.set()
            return
        polls = [
            found.get(f"at/{process}", _STARTING if f"gone/{process}" in found else None)
            for process in range(self._count)
        ]
        known = [poll for poll in polls if poll is not None]
        if len(known) < self._count or self._stop_poll is not None:
            return
        if _STARTING in known and _FINISHED not in known:
            # A process that has not begun cannot have taken a step, and no other can have finished one without it.
            if stop_signals.is_taken_over():
                self._leave(
                    f"{_name(heard)}: no step was finished since the start, so there is nothing to save; "
                    f"{stop_signals.go_on(heard)}",
                    stop_signals.status(),
                )
            return
        with self._agreement:
            # Where one process has come to the end of the run, all are there.
            self._stop_poll = 2**62 if _FINISHED in known else max(map(int, known)) + 1
            self._agreement.notify_all()

    # -- ending -----------------------------------------------------------------------------------------------------

    def announce_end(self, words: str) -> None:
        """Tells the other processes, where there are any, that this one ends before its time.

        Args:
            words: Reason, as it follows "process 1 (host) ended: ".
        """
        if self._client is not None:
            self._announce(f"process {self._own} ({socket.gethostname()}) ended: {words}", ExitStatus.LOST)

    def _end_with(self, error: BaseException) -> None:
        """Tells the others of an error that ends this process, and has the process leave without waiting for them."""
        self._own_status = status = status_of(error)
        if isinstance(error, Stopped):
            with contextlib.suppress(Exception):
                self._set("asked", str(int(stop_signals.heard() or signal.SIGTERM)))
                self._set(f"at/{self._own}", _STARTING)
        else:
            if isinstance(error, jax.errors.JaxRuntimeError | CheckpointError):
                self._wait_for_signs()
            self._ending = True
            where = f"process {self._own} ({socket.gethostname()})"
            # Another start makes the same mistake again; what crashed may go well.
            own_fault = status in (ExitStatus.USER_ERROR, ExitStatus.DIVERGED)
            hint = "" if own_fault else ". Start all processes again: they go on from the last checkpoint"
            self._announce(
                f"{where} ended with an error: {_first_line(error)}{hint}", status if own_fault else ExitStatus.LOST
            )
        self._ending = True
        # JAX waits at the end of a process for all others, which are not at theirs.
        atexit.register(self._go, status)
        threading.Thread(target=self._insist, args=(status,), daemon=True, name="end").start()

    def _wait_for_signs(self) -> None:
        """Returns once every other process has given a sign of life; where one is lost, the thread ends the process.

        An operation with another process fails when that one dies, before its silence is noticed. A sign counts that is
        heard some time afterwards: its last one, given before it died, may be heard only now.
        """
        begun = time.monotonic()
        later = begun + self._silence_s / 2
        while any(last < later for _, last in self._seen.values()) and time.monotonic() < begun + self._silence_s + 5:
            time.sleep(self._interval_s / 2)

    def _insist(self, status: ExitStatus) -> None:
        time.sleep(_INSIST_S)
        self._go(status)

    def _announce(self, words: str, status: ExitStatus) -> None:
        # The first reason counts; a second one is its consequence.
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{self._prefix}/end", json.dumps({"words": words, "status": int(status)}))

    def _leave(self, words: str, status: int) -> None:
        self._ending = True
        say(f"error: {visible(words)}" if status not in (75, 130) else words)
        self._go(status)

    def _go(self, status: int) -> None:
        """Ends the process; process 0 lets the others go first, because it takes the service with it."""
        with contextlib.suppress(Exception):
            self._set(f"gone/{self._own}", "")
            deadline = time.monotonic() + (_LAST_S if self._own == 0 else 0)
            while time.monotonic() < deadline:
                there = {name.rpartition("/")[2] for name, _ in self._client.key_value_dir_get(f"{self._prefix}/gone")}
                now = time.monotonic()
                awaited = {str(p) for p, (_, last) in self._seen.items() if now - last < self._silence_s}
                if awaited <= there:
                    break
                time.sleep(0.1)
        stop_signals.leave(status)

    def _coordinator_is_lost(self) -> bool:
        """Says that process 0 is lost, where it is; whether it answers is asked of its address."""
        if self._own == 0:
            return False
        host, _, port = str(distributed.global_state.coordinator_address).rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
                return False
        except OSError:
            pass
        self._say_that_0_is_lost("its connections are closed")
        return True

    def _say_that_0_is_lost(self, why: str) -> None:
        if stop_signals.heard() is None:  # Otherwise the signal is the reason.
            say(f"error: {visible(_lost(0, self._host(0), why))}")

    def _host(self, process: int) -> str:
        return self._seen.get(process, ("", 0.0))[0].partition(" ")[2] or "host unknown"

    def _set(self, name: str, value: str) -> None:
        self._client.key_value_set(f"{self._prefix}/{name}", value, allow_overwrite=True)


class _AbortHandler:
    """Handler of SIGABRT that runs in the thread that aborts, where Python's own would run too late.

    It leaves with `LOST` where process 0 is lost; otherwise it returns, and the process aborts as it would have.
    """

    def __init__(self, coordinator_is_lost: Any):
        def on_abort(_: int) -> None:
            if coordinator_is_lost():
                stop_signals.leave(_status_of_loss())

        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
        self._signal = ctypes.CDLL(None).signal
        self._signal.argtypes, self._signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        self._before = self._signal(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

    def remove(self) -> None:
        """Puts the handler from before back."""
        self._signal(signal.SIGABRT, self._before)


def _lost(process: int, host: str, why: str) -> str:
    return (
        f"process {process} ({host}) is lost: {why}. It was killed, or its machine is gone. Start all processes again: "
        "they go on from the last checkpoint"
    )


def _status_of_loss() -> ExitStatus:
    """Returns the status after the loss of process 0: that of a stop where one was asked for."""
    return ExitStatus.LOST if stop_signals.heard() is None else stop_signals.status()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _name(number: signal.Signals | None) -> str:
    return "SIGTERM" if number is None else number.name
