"""The training loop.

At a step s the loop evaluates if that is due, saves if that is due, fetches the next batch, takes the step, and logs
metrics one interval late. Before a save it logs all metrics up to the save: a run killed after the save resumes there
and would not log them again.

Finished updates decide what is due, so that a run that stops after s updates and one that resumes there see the same
evaluations and saves. Metrics stay on the device until the next interval is logged, so that reading them never waits
for the step that has just been dispatched.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from ecgjax.errors import DivergedError
from ecgjax.training.checkpoint import EVALUATION, Checkpoints
from ecgjax.training.save_schedule import SaveSchedule
from ecgjax.training.steps import Batch, Metrics, TrainState
from ecgjax.training.telemetry import Telemetry


class StopRequest:
    """Context manager that turns SIGTERM (a cluster taking the machine back) into a request to save and end.

    With several processes JAX's own preemption service makes all of them stop at the same step.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._previous: Any = None

    def __enter__(self) -> StopRequest:
        # Several processes have to stop at the same step: JAX takes their SIGTERM and agrees on one.
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._previous)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        self._event.set()

    def requested(self, step: int) -> bool:
        """Returns whether the run is to stop before `step`; every process gets the same answer."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._event.is_set()


def train(
    state: TrainState,
    *,
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    batches: Iterator[Batch],
    num_steps: int,
    telemetry: Telemetry,
    checkpoints: Checkpoints,
    metadata: Callable[[int], Mapping[str, Any]],
    log_every: int,
    saves: SaveSchedule,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    eval_every: int = 0,
) -> tuple[TrainState, bool]:
    """Trains from `state.step` to `num_steps`.

    Args:
        state: State to start from; it is donated.
        step: Compiled step, which donates its state.
        batches: Batches of the steps from `state.step` on, on the devices.
        num_steps: Number of steps of the whole run.
        telemetry: Telemetry that the metrics are logged to.
        checkpoints: Checkpoints that the states are saved to.
        metadata: Function from the number of finished updates to the metadata of their checkpoint.
        log_every: Number of steps between metrics.
        saves: Schedule of the checkpoints; the last step is always saved, and so is one whose evaluation is better
            than those of all checkpoints.
        evaluate: Function from a state to metrics under their full names; None for no evaluation.
        eval_every: Number of steps between evaluations; 0 for none. The last step is always evaluated.

    Returns:
        The last state, and whether the run came to its end (False after SIGTERM).

    Raises:
        DivergedError: The loss or a parameter is no longer finite; the checkpoints from before stay.
        CheckpointError: The last save failed; of earlier ones that fail a line is printed.
    """
    start = int(state.step)
    pending: tuple[int, Metrics] | None = None
    latest: Metrics = {}

    def flush() -> None:
        nonlocal pending
        if pending is not None:
            (step_done, metrics_done), pending = pending, None
            telemetry.log(step_done, {f"train/{name}": value for name, value in metrics_done.items()})
            _check_finite(step_done, metrics_done)

    with StopRequest() as stop:
        for now in range(start, num_steps + 1):
            last = now == num_steps
            # A run resumed at `start` has evaluated and saved there before it was stopped.
            fresh = now > start or start == 0
            evaluated: Mapping[str, float] = {}
            improved = False
            if evaluate is not None and eval_every and fresh and (last or now % eval_every == 0):
                flush()
                with telemetry.pause():
                    evaluated = evaluate(state)
                    telemetry.log(now, evaluated)
                improved = checkpoints.improves(evaluated)
            # Every process asks at every step, because JAX agrees with all of them on the step to stop at.
            stopping = stop.requested(now)
            if now > start and (saves.due(now) | improved | last | stopping):
                flush()
                # Old checkpoints are removed as new ones come: a state that has diverged must not take a good one's
                # place.
                _check_finite(now, latest)
                with telemetry.pause():
                    checkpoints.save(now, state.parts(), metadata={**metadata(now), EVALUATION: _finite(evaluated)})
                saves.saved()
            if last or stopping:
                checkpoints.wait()
                return state, last
            with telemetry.input_wait():
                batch = next(batches)
            state, latest = step(state, batch)
            telemetry.step()
            if (now + 1) % log_every == 0 or now + 1 == num_steps:
                flush()
                # Metrics are fetched when the next ones are due: fetching them now would wait for the step that was
                # just dispatched.
                pending = (now + 1, latest)
    raise AssertionError("unreachable: the last step returns")


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has no NaN.
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _check_finite(step: int, metrics: Metrics) -> None:
    bad = {name: value for name in ("loss", "param_norm") if not math.isfinite(value := float(metrics.get(name, 0.0)))}
    if bad:
        found = ", ".join(f"train/{name} is {value}" for name, value in bad.items())
        raise DivergedError(
            f"training has diverged: {found} at step {step}; checkpoints from before stay. Start anew in another "
            "--workdir with a lower config.optimizer.learning_rate, or with a config.optimizer.clip_norm"
        )
