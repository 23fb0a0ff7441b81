"""A run at Weights & Biases. Its own environment variables, such as WANDB_MODE, hold."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from ecgjax.training.trackers.tracker import Beginning

_PROJECT = "ecgjax"

# Seconds in which the service must answer: its package waits for it when Python ends, whatever thread it was used in.
_BEGIN_S, _END_S = 30.0, 8.0


class WandbRun:
    """Tracker that writes to Weights & Biases."""

    def __init__(self) -> None:
        self._run: Any = None

    def begin(self, beginning: Beginning) -> None:
        """Begins or resumes the run; its files lie in `WORKDIR/wandb`."""
        import wandb

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
