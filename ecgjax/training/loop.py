"""The training loop.

At a step s the loop evaluates if that is due, saves if that is due, fetches the next batch, takes the step, and logs
metrics one interval late. Before a save it logs all metrics up to the save: a run killed after the save resumes there
and would not log them again.

Finished updates decide what is due, so that a run that stops after s updates and one that resumes there see the same
evaluations and saves. Metrics stay on the device until the next interval is logged, so that reading them never waits
for the step that has just been dispatched.

While a batch is read, and while the state is evaluated, the state is whole and nothing changes it. Where one of them
fails, hangs, or does not end after a signal to stop, the state is saved first, with one process; several can only save
together, and go back to their last checkpoint.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from data_pipelines.system import stop_signals
from data_pipelines.system.stop_signals import say
from ecgjax.errors import DivergedError
from ecgjax.processes.stop_request import StopRequest
from ecgjax.processes.watchdog import Watchdog, WatchdogSettings
from ecgjax.training.checkpoints.checkpoint import EVALUATION, Checkpoints
from ecgjax.training.checkpoints.save_schedule import SaveSchedule
from ecgjax.training.settings import NonfiniteSettings
from ecgjax.training.steps import Batch, Metrics, TrainState
from ecgjax.training.telemetry import Telemetry

#: Name, in a checkpoint's metadata, of whether the evaluation of its step is still to be done.
EVALUATION_DUE = "evaluation_due"

#: Number of logged steps from one for which further metrics, which take longer than a step, are computed to the next.
MORE_METRICS_EVERY = 10


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
    parts: Callable[[TrainState], Mapping[str, Any]] = lambda state: state.parts(),
    enough: Callable[[], bool] = lambda: False,
    learning_rate: str = "config.optimizer.learning_rate",
    evaluation_due: bool = False,
    nonfinite: NonfiniteSettings | None = None,
    watchdog: Watchdog | None = None,
    more_metrics: Callable[[TrainState, Batch], Metrics] | None = None,
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
        evaluate: Function from a state to metrics under their full names, which may be none; None for no evaluation.
        eval_every: Number of steps between evaluations; 0 for none. The last step is always evaluated.
        parts: Function from a state to the parts of its checkpoint.
        enough: Function that says after an evaluation whether the run ends there; a run that resumes where it ended
            asks it again.
        learning_rate: Leaf of the learning rate, for the message of a run that has diverged.
        evaluation_due: Whether the state was saved in the middle of its evaluation, as its metadata say under
            `EVALUATION_DUE`.
        nonfinite: Numbers of updates that may be left out because they were not finite; None ends the run at the first.
        watchdog: Watchdog that looks at reads, steps, evaluations and saves; None for one that waits for ever.
        more_metrics: Function of a state and the batch of its next step, which it leaves as they are, that returns
            further metrics of that step; it is called at the first and the last step whose metrics are logged, and at
            every `MORE_METRICS_EVERY`-th between. None for none.

    Returns:
        The last state, and whether the run came to its end (False after a signal to stop).

    Raises:
        DivergedError: The loss or a parameter is no longer finite, or too many updates were left out because they were
            not; the checkpoints from before stay.
        CheckpointError: The last save failed; of earlier ones that fail a line is printed.
    """
    start = saved = int(state.step)
    pending: tuple[int, Metrics] | None = None
    latest: Metrics = {}
    evaluated: Mapping[str, float] = {}  # metrics of the state at hand
    check = Check(nonfinite, learning_rate=learning_rate)

    def flush() -> None:
        nonlocal pending
        if pending is not None:
            (step_done, metrics_done), pending = pending, None
            with watch("step", f"step {step_done}"):
                telemetry.log(step_done, {f"train/{name}": value for name, value in metrics_done.items()})
                check(step_done, metrics_done)

    def save(now: int, **more: Any) -> None:
        nonlocal saved
        flush()
        with telemetry.pause("save"), watch("save", f"saving step {now}", compiles=True):
            # Old checkpoints are removed as new ones come: a state that has diverged must not take a good one's place.
            check(now, latest)
            told = {**metadata(now), EVALUATION: _finite(evaluated), **more}
            checkpoints.save(now, parts(state), metadata=told)
        saved = now
        saves.saved()

    def keep(now: int, **more: Any) -> str:
        """Saves the state if it is not saved yet, waits for it, and returns what is saved in words."""
        if now > saved:
            save(now, **more)
        with telemetry.pause("save"), watch("save", f"saving step {now}"):
            checkpoints.wait()
        return _what_is_saved(saved, checkpoints, new=now > start)

    # Several processes save together or not at all.
    alone = jax.process_count() == 1

    patient = Watchdog(settings=WatchdogSettings(minutes=0, start_minutes=0))
    with contextlib.nullcontext(watchdog) if watchdog is not None else patient as looking, StopRequest() as stop:
        watch = looking.activity
        for now in range(start, num_steps + 1):
            last = now == num_steps
            # A run resumed at `start` has evaluated and saved there before it was stopped.
            fresh = now > start or start == 0 or evaluation_due
            evaluated = {}
            improved = False
            if evaluate is not None and eval_every and fresh and (last or now % eval_every == 0):
                flush()
                rescue = (lambda now=now: keep(now, **{EVALUATION_DUE: True})) if alone else None
                with telemetry.pause("evaluate"):
                    with watch("evaluation", f"the evaluation of step {now}", rescue=rescue, compiles=True):
                        evaluated = evaluate(state)
                    if evaluated:
                        telemetry.log(now, evaluated)
                        improved = checkpoints.improves(evaluated)
            last = last or enough()
            # Every process asks at every step, because all of them agree on the step to stop at.
            stopping = stop.requested()
            with watch("step", f"step {now}"):  # The clock's answer is that of all processes, which wait for it.
                due = saves.due(now)
            if now > start and (due or improved or last or stopping):
                save(now)
            if last or stopping:
                words = keep(now)
                if not last and jax.process_index() == 0:
                    heard = stop_signals.heard()
                    say(f"stopped by {heard.name if heard else 'a signal'}: {words}; {stop_signals.go_on(heard)}")
                return state, last
            rescue = (lambda now=now: keep(now)) if alone else None
            try:
                with telemetry.input_wait(), watch("read", f"reading the batch of step {now + 1}", rescue=rescue):
                    batch = next(batches)
            except Exception:
                if alone:
                    say(f"reading the batch of step {now + 1} failed: {keep(now)}")
                raise
            logged = (now + 1) % log_every == 0 or now + 1 == num_steps
            more: Metrics = {}
            due = (now + 1) % (log_every * MORE_METRICS_EVERY) == 0 or now + 1 in (log_every, num_steps)
            if due and more_metrics is not None:
                # It comes before the step, which donates the state.
                with watch("metrics", f"further metrics of step {now + 1}", compiles=True):
                    more = more_metrics(state, batch)
            with watch("step", f"step {now + 1}"):
                state, latest = step(state, batch)
            latest = {**latest, **more}
            telemetry.step()
            if logged:
                flush()
                # Metrics are fetched when the next ones are due: fetching them now would wait for the step that was
                # just dispatched.
                pending = (now + 1, latest)
    raise AssertionError("unreachable: the last step returns")


def _what_is_saved(step: int, checkpoints: Checkpoints, *, new: bool) -> str:
    if not step:
        return "no step was finished, so there is nothing to save"
    return f"step {step} {'is saved in' if new else 'is the last one and was saved before, in'} {checkpoints.directory}"


class Check:
    """Raises an error where training has diverged.

    Args:
        nonfinite: Numbers of updates that may be left out; None where none may be.
        learning_rate: Leaf of the learning rate, for the message.
    """

    def __init__(
        self,
        nonfinite: NonfiniteSettings | None = None,
        *,
        learning_rate: str = "config.optimizer.learning_rate",
    ):
        self._learning_rate = learning_rate
        self._budget = nonfinite if nonfinite is not None and nonfinite.action == "skip" else None

    def __call__(self, step: int, metrics: Metrics) -> None:
        """Raises a `DivergedError` where the metrics of a step are not finite, or too many updates were left out."""
        if self._budget is None:
            _check_finite(step, metrics, self._learning_rate)
            return
        # What is kept is finite, and the loss of an update that was left out need not be.
        kept = {name: value for name, value in metrics.items() if name == "param_norm"}
        _check_finite(step, kept, self._learning_rate)
        for name, leaf, most, words in (
            ("skipped_in_a_row", "most_in_a_row", self._budget.most_in_a_row, "in a row"),
            ("skipped", "most_in_all", self._budget.most_in_all, "in all"),
        ):
            if (count := int(metrics.get(name, 0))) > most:
                raise DivergedError(
                    f"training has diverged: by step {step}, {count} updates {words} were left out because loss or "
                    f"gradient was not finite, more than config.nonfinite.{leaf}={most}; checkpoints from before stay. "
                    f"Start anew in another --workdir with a lower {self._learning_rate}, or with a "
                    "config.optimizer.clip_norm"
                )


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has no NaN.
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _check_finite(step: int, metrics: Metrics, learning_rate: str) -> None:
    bad = {name: value for name in ("loss", "param_norm") if not math.isfinite(value := float(metrics.get(name, 0.0)))}
    if bad:
        found = ", ".join(f"train/{name} is {value}" for name, value in bad.items())
        raise DivergedError(
            f"training has diverged: {found} at step {step}; checkpoints from before stay. Start anew in another "
            f"--workdir with a lower {learning_rate}, or with a config.optimizer.clip_norm"
        )
