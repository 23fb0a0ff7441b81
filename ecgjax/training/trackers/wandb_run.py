"""A run at Weights & Biases. Its own environment variables, such as WANDB_MODE, hold."""

from __future__ import annotations

import atexit
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ecgjax.system.terminal import warn
from ecgjax.training.trackers.tracker import Beginning

_PROJECT = "ecgjax"

# Seconds in which the service must answer when a run begins and ends.
_BEGIN_S, _END_S = 30.0, 8.0

# Seconds that a process waits at its end for the package's own process, which goes on by itself.
_LEAVE_S = 5.0


class WandbRun:
    """Tracker that writes to Weights & Biases."""

    def __init__(self) -> None:
        self._run: Any = None

    def begin(self, beginning: Beginning) -> None:
        """Begins or resumes the run; its files lie in `WORKDIR/wandb`."""
        import wandb

        wandb.setup()  # This registers the package's own hook, which must come first here to be run after ours.
        _Leaving(wandb.teardown)
        run_id = beginning.run_id or uuid.uuid4().hex[:12]
        beginning.keep(run_id)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run_id,
            resume="allow",
            name=os.environ.get("WANDB_NAME", beginning.workdir.name),
            dir=str(beginning.workdir),
            config=dict(beginning.leaves),
            allow_val_change=True,
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=_BEGIN_S, finish_timeout=_END_S, finish_timeout_raises=True
            ),
        )
        # Steps of the run, and not of the service: a run that resumes goes back to its checkpoint, and the service
        # would drop what comes at an earlier step than its own.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands over the metrics of a step."""
        self._run.log({"step": step, **values})

    def end(self, *, finished: bool, failed: bool) -> None:
        """Ends the run; one that was stopped counts as failed until it goes on."""
        self._run.finish(exit_code=0 if finished else 1)


class _Leaving:
    """Lets the package go when Python ends, and waits a little only: its own hook waits as long as its process runs.

    Args:
        leave: Function that ends what the package has at work, and waits for it.
    """

    def __init__(self, leave: Callable[[], None]):
        self._leave, self._asked, self._done = leave, threading.Event(), threading.Event()
        # Python starts no thread any more where it runs its hooks.
        threading.Thread(target=self._run, name="wandb ends", daemon=True).start()
        atexit.register(self.end)

    def end(self) -> None:
        """Lets the package go; a warning says where it did not end in time."""
        self._asked.set()
        if not self._done.wait(_LEAVE_S):
            warn(f"wandb has not ended within {_LEAVE_S:g} s; its files are in WORKDIR/wandb, for `wandb sync`")

    def _run(self) -> None:
        self._asked.wait()
        try:
            self._leave()
        finally:
            self._done.set()
