"""A stopwatch that always runs for one kind of work, and writes down what each has taken."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from data_pipelines.errors import DataError
from ecgjax.errors import ConfigError
from ecgjax.training.run_log.metric_writer import GrowingFile, MetricWriter
from ecgjax.training.run_time.account import ALL_KINDS, Account, account_of
from ecgjax.training.run_time.compile_time import CompileTime
from ecgjax.training.run_time.events import (
    FAILED,
    FINISHED,
    GOODPUT_FILE,
    KINDS,
    STOPPED,
    TimeEvent,
    cut_half_line,
    read_events,
)

#: Seconds after which a line is written in any case: a kill costs no more than that.
BEAT_S = 10.0

#: Seconds that the end of a run waits for a disk that gives no answer.
_LAST_PATIENCE_S = 1.0


class Stopwatch:
    """Context manager that gives all time from the beginning of a start to its end to one of `KINDS`.

    Outside of `spending` the time is that of "init" until the training begins, and of "step" from then on: a step is
    at work on the devices while the host does something else. What JAX takes to compile is taken from whatever it
    happened in.

    Nothing here can end, stop or hold up a run: lines are written as metrics are (`metric_writer`), and a disk that
    does not answer is not waited for.

    Args:
        begun: Time at which the start began, in seconds since the epoch; None for now.
        clock: Clock in seconds that never goes back.
        wall: Clock in seconds since the epoch, which may.
        beat_s: Seconds after which a line is written in any case.
    """

    def __init__(
        self,
        *,
        begun: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        beat_s: float = BEAT_S,
    ):
        self._clock, self._wall, self._beat_s = clock, wall, beat_s
        now = wall()
        self._begun = round(now if begun is None else min(begun, now), 6)
        self._spent = dict.fromkeys(KINDS, 0.0)
        self._spent["init"] = now - self._begun
        self._kind, self._since = "init", clock()
        self._first: int | None = None
        self._step = 0
        self._earlier: list[TimeEvent] = []
        self._before = dict.fromkeys(ALL_KINDS, 0.0)
        self._writer: MetricWriter | None = None
        self._path, self._length_before = Path(GOODPUT_FILE), 0
        self._ended = STOPPED
        # The watchdog's thread saves in the place of one that hangs.
        self._lock, self._over = threading.RLock(), threading.Event()
        self._compiling = CompileTime(self._compiled, clock=clock)

    def __enter__(self) -> Stopwatch:
        self._compiling.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compiling.__exit__()
        self._over.set()
        if self._writer is None:
            return
        refused = self._first is None and isinstance(error, ConfigError | DataError)
        if not refused:
            self._write(self._ended if error is None else FAILED)
        self._writer.close()
        if refused:
            self._forget()

    def write_to(self, workdir: str | Path) -> None:
        """Begins to write to the file of a run, once; of a start that is refused afterwards the lines are taken back.

        Args:
            workdir: Folder of the run.
        """
        if self._writer is not None:
            return
        self._earlier = read_events(workdir)
        self._sum_up_earlier()
        cut_half_line(workdir)
        self._path = Path(workdir) / GOODPUT_FILE
        self._length_before = self._path.stat().st_size if self._path.is_file() else 0
        file = GrowingFile(self._path)
        self._writer = MetricWriter([file], patience_s=0.0, last_patience_s=_LAST_PATIENCE_S)
        self._write("begin")
        threading.Thread(target=self._beat, daemon=True, name="goodput").start()

    def _forget(self) -> None:
        with contextlib.suppress(OSError):  # The lines of a refusal do no harm.
            if self._length_before:
                os.truncate(self._path, self._length_before)
            else:
                self._path.unlink()

    def train_from(self, step: int) -> None:
        """Says that the training begins, and from which step."""
        with self._lock:
            self._turn_to("step")
            self._first = self._step = step
        self._sum_up_earlier()
        self._write("train")

    def step(self) -> None:
        """Counts one more step."""
        self._step += 1

    def finished(self) -> None:
        """Says that the run has come to its end; without, it was told to stop."""
        self._ended = FINISHED

    @contextlib.contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Gives the time inside to a kind of `KINDS`, and to the kind from before what comes after."""
        outer = self._turn_to(kind)
        try:
            yield
        finally:
            self._turn_to(outer)
        if kind in ("evaluate", "save"):
            self._write(kind)

    def metrics(self) -> dict[str, float]:
        """Returns the share of every kind in the time of all starts so far, as `perf/…`."""
        own = self._event("metrics").spent
        seconds = {kind: self._before[kind] + own.get(kind, 0.0) for kind in ALL_KINDS}
        whole = max(sum(seconds.values()), 1e-9)
        shares = {f"perf/share_{kind}": value / whole for kind, value in seconds.items()}
        return {"perf/goodput": shares["perf/share_step"], **shares}

    def _sum_up_earlier(self) -> None:
        # Earlier starts are added up once: their lines may be many.
        *earlier, _ = account_of([*self._earlier, self._event("sum")]).starts
        self._before = Account(starts=earlier).seconds

    def _turn_to(self, kind: str) -> str:
        """Lets the stopwatch run for another kind from now on, and returns the one that it ran for."""
        with self._lock:
            now = self._clock()
            self._spent[self._kind] += now - self._since
            before, self._kind, self._since = self._kind, kind, now
            return before

    def _compiled(self, seconds: float) -> None:
        with self._lock:
            self._turn_to(self._kind)
            moved = min(seconds, self._spent[self._kind])
            self._spent[self._kind] -= moved
            self._spent["compile"] += moved

    def _event(self, occasion: str) -> TimeEvent:
        with self._lock:
            self._turn_to(self._kind)
            return TimeEvent(
                begun=self._begun,
                at=round(self._wall(), 3),
                occasion=occasion,
                first=self._first,
                step=self._step,
                spent=dict(self._spent),
            )

    def _write(self, occasion: str) -> None:
        if self._writer is not None:
            with self._lock:
                self._writer.put([self._event(occasion).line()])

    def _beat(self) -> None:
        while not self._over.wait(self._beat_s):
            self._write("alive")
