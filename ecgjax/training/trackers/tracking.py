"""Handing of metrics to services that may fail, hang or be slow: the training waits for none of them.

Each service has a thread and a queue of its own, as the disk has (`metric_writer`). What it does not take is lost to it
and counted; `metrics.jsonl` has it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_pipelines.system.visible_text import visible
from ecgjax.errors import ConfigError
from ecgjax.system.terminal import warn
from ecgjax.training.trackers.known_runs import keep_id, known_id
from ecgjax.training.trackers.mlflow_run import MlflowRun
from ecgjax.training.trackers.tracker import Beginning, Tracker
from ecgjax.training.trackers.wandb_run import WandbRun

#: Name → service. Its package, and the extra that installs it, have the same name.
TRACKERS: Mapping[str, Callable[[], Tracker]] = {"wandb": WandbRun, "mlflow": MlflowRun}

#: Lines of metrics that are kept for a service that is slow.
MOST_KEPT = 4096

#: Seconds that the end of a run waits for all services together.
LAST_PATIENCE_S = 10.0


def check_installed(names: Sequence[str]) -> None:
    """Refuses services whose packages are not installed, without importing those that are.

    Raises:
        ConfigError: A package is missing.
    """
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"config.trackers={tuple(names)!r} needs the package {name}, which is not installed: "
                f"pip install 'ecgjax[{name}]', or leave {name} out"
            )


class Tracking:
    """Hands the metrics of a run to services; no call of it fails, or waits for one of them but at the end.

    Args:
        names: Names of the services, of `TRACKERS`.
        workdir: Folder of the run.
        leaves: Every leaf of the config by its path.
    """

    def __init__(self, names: Sequence[str], workdir: Path, *, leaves: Mapping[str, object]):
        self._errands = [_Errand(name, workdir, leaves) for name in dict.fromkeys(names)]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands over the metrics of a step, all finite."""
        for errand in self._errands:
            errand.put(step, values)

    def close(self, *, finished: bool, failed: bool) -> None:
        """Says how the run ended, waits a little for what is still to be taken, and says what was not.

        Args:
            finished: Whether the run came to its end.
            failed: Whether an error ended it; neither where a signal did.
        """
        deadline = time.monotonic() + LAST_PATIENCE_S
        for errand in self._errands:
            errand.end(finished=finished, failed=failed)
        for errand in self._errands:
            errand.wait(deadline)


class _Errand:
    """One service, with its thread."""

    def __init__(self, name: str, workdir: Path, leaves: Mapping[str, object]):
        self._name, self._workdir, self._leaves = name, workdir, leaves
        self._queue: queue.Queue[Callable[[Tracker], None]] = queue.Queue(MOST_KEPT)
        self._lines = self._taken = 0
        self._ending: Callable[[Tracker], None] | None = None
        self._over, self._failed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, step: int, values: Mapping[str, float]) -> None:
        def hand_over(tracker: Tracker) -> None:
            tracker.log(step, values)
            self._taken += 1

        self._lines += 1
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(hand_over)

    def end(self, *, finished: bool, failed: bool) -> None:
        self._ending = lambda tracker: tracker.end(finished=finished, failed=failed)
        self._over.set()
        with contextlib.suppress(queue.Full):  # Who has that much to take looks at the event afterwards.
            self._queue.put_nowait(lambda tracker: None)

    def wait(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if lost := self._lines - self._taken:
            warn(f"{self._name} has not taken {lost:,} of {self._lines:,} lines of metrics; metrics.jsonl has them")

    def _run(self) -> None:
        tracker = TRACKERS[self._name]()
        if not self._tried(self._begin, tracker):
            return
        while not (self._over.is_set() and self._queue.empty()):
            self._tried(self._queue.get(), tracker)
        if self._ending is not None:
            self._tried(self._ending, tracker)

    def _begin(self, tracker: Tracker) -> None:
        tracker.begin(
            Beginning(
                workdir=self._workdir,
                leaves=self._leaves,
                run_id=known_id(self._workdir, self._name),
                keep=lambda run_id: keep_id(self._workdir, self._name, run_id),
            )
        )

    def _tried(self, call: Callable[[Tracker], None], tracker: Tracker) -> bool:
        """Returns whether a call went well; the first that does not is a warning."""
        try:
            call(tracker)
        except BaseException as error:  # A package may even try to end the process; it is not worth a run.
            if not self._failed:
                cause = f"{type(error).__name__}: {error}".partition("\n")[0]
                warn(f"{self._name} fails ({visible(cause)}); training goes on, and metrics.jsonl has the metrics")
            self._failed = True
            return False
        return True
