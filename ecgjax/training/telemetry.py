"""Metrics of a run: TensorBoard, `metrics.jsonl`, a progress bar, and the speed in `perf/…`."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from tqdm import tqdm

from data_pipelines.system.blocked_output import give_up_blocked_output
from data_pipelines.system.visible_text import visible
from ecgjax.processes.signs_of_life import SignsOfLife
from ecgjax.settings.sections import Tree, flat
from ecgjax.system.terminal import say, warn
from ecgjax.training import devices
from ecgjax.training.gradient_norms import TERMS, far_apart
from ecgjax.training.run_log import event_file
from ecgjax.training.run_log.metric_writer import GrowingFile, MetricWriter
from ecgjax.training.run_log.metrics_file import METRICS_FILE, drop_after
from ecgjax.training.run_time.stopwatch import Stopwatch
from ecgjax.training.run_time.stragglers import Pace, straggler_of
from ecgjax.training.trackers.tracking import Tracking

#: Effective rank below which embeddings have collapsed, or are about to.
COLLAPSED_RANK = 2.0

TENSORBOARD_DIR = "tensorboard"


class Telemetry:
    """Context manager that writes a run's metrics; only the first process writes.

    `metrics.jsonl` has one strict JSON object a line, with `step`; a value that is not finite is `null`. A run that
    resumes at step s first drops the lines after s, and one that starts at 0 drops all, so that the file reads as an
    uninterrupted run's.

    Nothing here can end, stop or hold up a run: what a disk does not take is kept and written later, or lost, counted
    and said at the end (`metric_writer`).

    Args:
        workdir: Directory of the run.
        total_steps: Number of steps of the whole run.
        examples_per_step: Number of recordings of the global batch.
        flops_per_step: FLOP of a step on all devices together; None where unknown, without which there is no
            `perf/flops_per_sec` and no `perf/mfu`.
        start_step: Number of updates already done.
        progress: Whether a progress bar is drawn (only ever on a terminal).
        stopwatch: Stopwatch of the run's time, whose shares are logged with the speed; None for none.
        marks: Metrics that every line of training has.
        learning_rate: Function from the number of an update, from 0, to its learning rate; None to log none.
        trackers: Names of the services that are told the metrics from `describe` on.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        total_steps: int,
        examples_per_step: int,
        flops_per_step: float | None = None,
        start_step: int = 0,
        progress: bool = True,
        stopwatch: Stopwatch | None = None,
        marks: Mapping[str, float] = MappingProxyType({}),
        learning_rate: Callable[[int], float] | None = None,
        trackers: Sequence[str] = (),
    ):
        self._stopwatch, self._marks, self._learning_rate = stopwatch, marks, learning_rate
        self._examples, self._flops, self._peak = examples_per_step, flops_per_step, devices.peak_flops()
        self._writes = jax.process_index() == 0
        self._clock = time.perf_counter
        # Time and step since which speed is measured; at that time every step up to it was done, not only dispatched.
        self._since, self._since_step = self._clock(), start_step
        self._dispatched = self._start = start_step
        self._waited = 0.0
        if not self._writes:
            return
        drop_after(workdir, start_step)
        self._workdir, self._trackers = Path(workdir), tuple(trackers)
        self._tracking: Tracking | None = None
        self._finished = False
        folder = self._workdir
        # The header of the events hides what an interrupted run wrote after the step that this one resumes from.
        begin = event_file.header(from_step=start_step + 1)
        events = GrowingFile(event_file.event_path(folder / TENSORBOARD_DIR), header=begin)
        self._writer = MetricWriter([GrowingFile(folder / METRICS_FILE), events])
        self._bar = tqdm(
            total=total_steps, initial=start_step, unit="step", dynamic_ncols=True, disable=None if progress else True
        )
        self._total = total_steps
        self._collapsed = self._one_gradient = False
        self._straggler: int | None = None

    def __enter__(self) -> Telemetry:
        if self._stopwatch is not None:
            self._stopwatch.train_from(self._dispatched)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writes:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._writer.close()
            if self._tracking is not None:
                self._tracking.close(finished=self._finished, failed=kind is not None)
            give_up_blocked_output()

    @contextlib.contextmanager
    def input_wait(self) -> Iterator[None]:
        """Counts the time spent inside as waiting for input."""
        start = self._clock()
        with self._spending("input"):
            yield
        self._waited += self._clock() - start

    @contextlib.contextmanager
    def pause(self, kind: str = "evaluate") -> Iterator[None]:
        """Excludes the time spent inside from the speed of steps.

        Evaluation and saving run inside, which wait for every step dispatched.

        Args:
            kind: Kind of what is done inside, "evaluate" or "save".
        """
        with self._spending(kind):
            yield
        self._since, self._since_step, self._waited = self._clock(), self._dispatched, 0.0

    def step(self) -> None:
        """Counts one more dispatched step, and moves the progress bar."""
        self._dispatched += 1
        if self._stopwatch is not None:
            self._stopwatch.step()
        if self._writes:
            with contextlib.suppress(OSError):
                self._bar.update()

    def _spending(self, kind: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._stopwatch is None else self._stopwatch.spending(kind)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes metrics to the file, to TensorBoard and to the terminal.

        Where `train/…` is among them, the speed since the last such call is added as `perf/…` and `mem/…`.

        Args:
            step: Number of finished updates that the metrics belong to.
            metrics: Metrics by full name, each a number or an array of one element.
        """
        # All metrics are fetched at once, which waits for the devices once and not for each number.
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        if any(name.startswith("train/") for name in values):
            values |= {**self._speed(step), **self._marks}
        if not self._writes:
            return
        if any(name.startswith("train/") for name in values):
            values |= self._rate(step, values)
        # JSON has no NaN: what Python writes for it, other readers refuse.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": step, **finite}, allow_nan=False) + "\n"
        known = {name: value for name, value in finite.items() if value is not None}
        self._writer.put([line.encode(), event_file.scalars(step, known)])
        if self._tracking is not None:
            self._tracking.log(step, known)
        self._say(step, values)
        self._warn_of_collapse(step, values.get("train/effective_rank", math.nan))
        self._warn_of_one_gradient(step, values)

    def finished(self) -> None:
        """Notes that the run has come to its end: nothing stopped it."""
        self._finished = True

    def describe(self, leaves: Tree) -> None:
        """Writes the resolved config to TensorBoard, as a text of the step that this start begins at, and to trackers.

        Args:
            leaves: Every leaf of the config, as nested mappings.
        """
        if self._writes:
            text = json.dumps(leaves, indent=2, sort_keys=True)
            self._writer.put([None, event_file.code_text(self._start, "config", text)])
            if self._trackers:
                self._tracking = Tracking(self._trackers, self._workdir, leaves=flat(leaves))

    def show(self, name: str, pictures: Sequence[bytes]) -> None:
        """Writes pictures to TensorBoard, at the step that this start begins at.

        Args:
            name: Name of the pictures, to which their numbers are added.
            pictures: Pictures as PNG.
        """
        if self._writes and pictures:
            named = {f"{name}/{number}": picture for number, picture in enumerate(pictures)}
            self._writer.put([None, event_file.pictures(self._start, named)])

    def _rate(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Returns the learning rate of the latest update that was made by a step."""
        if self._learning_rate is None:
            return {}
        try:
            # Updates that were left out as not finite have not moved the schedule on.
            made = step - int(values.get("train/skipped", 0))
            return {"train/learning_rate": self._learning_rate(max(0, made - 1))}
        except Exception as error:  # Whatever it is, metrics are not worth a run.
            self._learning_rate = None
            warn(f"the learning rate cannot be logged ({visible(str(error))}); training goes on without that number")
            return {}

    def _warn_of_collapse(self, step: int, effective_rank: float) -> None:
        """Warns once when embeddings collapse, and again if they do so after they had recovered."""
        if math.isnan(effective_rank):
            return
        collapsed = effective_rank < COLLAPSED_RANK
        if collapsed and not self._collapsed:
            warn(
                f"at step {step} the embeddings vary in {effective_rank:.2f} directions only "
                f"(train/effective_rank below {COLLAPSED_RANK:g}): they are collapsing. Lower the learning rate, look "
                "for views that are too easy to tell apart, or use a loss with more negatives"
            )
        self._collapsed = collapsed

    def _warn_of_one_gradient(self, step: int, values: Mapping[str, float]) -> None:
        """Warns once where the gradient of objective or task is many times that of the other."""
        norms = [values.get(f"train/grad_norm_{name}", math.nan) for name in TERMS]
        if self._one_gradient or not all(map(math.isfinite, norms)):
            return
        if told := far_apart(*norms):
            self._one_gradient = True
            warn(f"at step {step} {told}")

    def _speed(self, step: int) -> dict[str, float]:
        steps = step - self._since_step
        if steps <= 0:
            return {}
        # This step's metrics have just been fetched, so that the step is done; later steps may be dispatched already.
        now = self._clock()
        seconds = max(now - self._since, 1e-9)
        speed = {
            "perf/step_ms": 1e3 * seconds / steps,
            "perf/ecgs_per_sec": steps * self._examples / seconds,
            "perf/input_wait_frac": min(1.0, self._waited / seconds),
            **devices.memory_metrics(),
        }
        if self._flops is not None:
            speed["perf/flops_per_sec"] = steps * self._flops / seconds
            if self._peak is not None:
                speed["perf/mfu"] = speed["perf/flops_per_sec"] / self._peak
        if self._stopwatch is not None:
            speed |= self._stopwatch.metrics()
        waited_ms = 1e3 * self._waited / steps
        speed |= self._compare(Pace(step, waited_ms, speed["perf/step_ms"]))
        self._since, self._since_step, self._waited = now, step, 0.0
        return speed

    def _compare(self, own: Pace) -> dict[str, float]:
        """Tells the other processes how long this one waits for input, and returns which of them waits longest."""
        signs = SignsOfLife.current()
        if signs is None:
            return {}
        signs.note(own.text())
        slowest = straggler_of(signs.notes(), own=own) if self._writes else None
        if slowest is None:
            return {}
        if slowest.is_told and self._straggler != slowest.process:
            warn(
                f"process {slowest.process} ({visible(signs.host_of(slowest.process))}) waits "
                f"{slowest.pace.input_ms:.1f} ms of every step for its input, the median process "
                f"{slowest.median_ms:.1f} ms, and all wait for it: look at the disk and the processors of that machine"
            )
        self._straggler = slowest.process if slowest.is_told else None
        return slowest.metrics()

    def _say(self, step: int, values: Mapping[str, float]) -> None:
        names = ("train/loss", "eval/loss", "eval/knn_auroc", "eval/knn_r2", "perf/ecgs_per_sec")
        shown = {name: values[name] for name in names if name in values}
        text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if self._bar.disable:
            say(f"step {step}/{self._total}  {text}")
        else:
            with contextlib.suppress(OSError):
                self._bar.set_postfix_str(text)
