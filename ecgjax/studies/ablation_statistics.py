"""Statistics of an ablation: every arm answers the same tasks, and its answers are summarised over seeds."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from data_pipelines.errors import DataError
from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics.bootstrap import Bootstrap, Interval, bootstrap_metrics
from ecgjax.evaluation.models import selection
from ecgjax.pages.json_values import plain
from ecgjax.pages.page import Table
from ecgjax.system.files import replacing


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskScores:
    """Result of a linear probe for one task.

    Attributes:
        records: Number of training records.
        positives: Number of positive training records: for a multi-label task, of the class that has most; None for a
            quantity.
        val_metric: Primary metric of the selected probe on the validation records.
        selected: Description of the selected probe, such as `"C = 0.001 of 13"`.
        scores: Scores of the test records, `f32[test records]` or `f32[test records, classes]`.
    """

    records: int
    positives: int | None
    val_metric: float
    selected: str
    scores: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmRun:
    """Encoder of one arm and seed, with the results of its probes.

    Attributes:
        arm: Title of the arm.
        seed: Seed of the run and of the draw of labels.
        twin: Title of the arm with the same encoder at random initialisation; empty for such an arm itself.
        config: Digest of the settings that the encoder was trained and probed with.
        tasks: Result of each task's probe, by the task's name.
        facts: Numbers that describe the training, such as the loss at its beginning and end, by their names.
    """

    arm: str
    seed: int
    twin: str
    config: str
    tasks: Mapping[str, TaskScores]
    facts: Mapping[str, float]

    def save(self, path: Path) -> None:
        """Writes one NumPy archive; an interruption leaves no partial file."""
        told = {
            **{name: getattr(self, name) for name in ("arm", "seed", "twin", "config", "facts")},
            "tasks": {name: {**vars(task), "scores": None} for name, task in self.tasks.items()},
        }
        arrays = {f"scores{number}": task.scores for number, task in enumerate(self.tasks.values())}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, told=np.frombuffer(json.dumps(plain(told)).encode(), np.uint8), allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> ArmRun:
        """Reads an archive that `save` wrote.

        Raises:
            DataError: The file is damaged.
        """
        try:
            # The bytes are read first because NumPy leaves the file open if the archive is damaged.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                told: dict[str, Any] = json.loads(file["told"].tobytes())
                tasks = {
                    name: TaskScores(**{**values, "scores": file[f"scores{number}"]})
                    for number, (name, values) in enumerate(told.pop("tasks").items())
                }
            facts = {name: math.nan if value is None else value for name, value in told.pop("facts").items()}
            return cls(tasks=tasks, facts=facts, **told)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: this result is damaged ({error}); remove it to make it again") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """Metric of one arm on one task, or the paired difference of two arms, over the seeds that have it.

    Attributes:
        mean: Mean over seeds, with its interval over test patients.
        by_seed: Metric on the test records, or its paired difference, by seed.
    """

    mean: Interval
    by_seed: Mapping[int, float]

    @property
    def seed_sd(self) -> float:
        """Standard deviation over seeds; NaN if there is only one seed."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmAnswers:
    """Metrics of all arms on one task, and their paired differences.

    Attributes:
        task: Name of the task, as the user wrote it.
        metric: Name of the primary metric.
        of_arm: Metric of each arm, by the arm's title.
        above_random: Difference of each arm from the same encoder at random initialisation, by the arm's title.
        above_first: Difference of each arm from the first arm that was trained, by the arm's title.
    """

    task: str
    metric: str
    of_arm: Mapping[str, Answer]
    above_random: Mapping[str, Answer]
    above_first: Mapping[str, Answer]


def sum_up(
    runs: Sequence[ArmRun],
    task: str,
    *,
    kind: Kind,
    targets: np.ndarray,
    patients: np.ndarray,
    classes: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> ArmAnswers:
    """Summarises one task over seeds, using the same resamples of the test patients for all arms.

    Args:
        runs: Runs in the order of the table, all probed on the same test records.
        task: Name of the task.
        kind: Kind of the task, `"binary"`, `"multilabel"` or `"quantity"`.
        targets: Labels of the test records, `[n]` or `[n, classes]`.
        patients: Patient (group) code of each test record, `int[n]`.
        classes: Names of the label columns of a multi-label task.
        resamples: Number of bootstrap resamples of the patients.
        seed: Seed of the resampling.
    """
    primary = selection.PRIMARY[kind]
    metrics = {
        _key(run.arm, run.seed): selection.metrics(kind, targets, run.tasks[task].scores, classes=classes)[primary]
        for run in runs
    }
    found = bootstrap_metrics(metrics, patients=patients, resamples=resamples, seed=seed, needs=f"a {primary}")
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.arm, []).append(run.seed)
    twins = {run.arm: run.twin for run in runs if run.twin}
    first = next(iter(twins), "")

    def differences(others: Mapping[str, str]) -> dict[str, Answer]:
        shared = {(arm, other): sorted({*seeds[arm]} & {*seeds.get(other, ())}) for arm, other in others.items()}
        return {
            arm: _over_seeds({s: ((1, _key(arm, s)), (-1, _key(other, s))) for s in both}, found)
            for (arm, other), both in shared.items()
            if both
        }

    return ArmAnswers(
        task=task,
        metric=primary,
        of_arm={arm: _over_seeds({s: ((1, _key(arm, s)),) for s in own}, found) for arm, own in seeds.items()},
        above_random=differences(twins),
        above_first=differences({arm: first for arm in twins if arm != first}),
    )


def _key(arm: str, seed: int) -> str:
    return f"{arm} {seed}"


def _over_seeds(terms: Mapping[int, Sequence[tuple[int, str]]], found: Bootstrap) -> Answer:
    """Averages a signed sum of runs' metrics over seeds, on the test records and on every resample."""
    by_seed = {seed: sum(sign * found.estimates[key] for sign, key in parts) for seed, parts in terms.items()}
    return Answer(mean=found.mean_of(list(terms.values())), by_seed=by_seed)


def arms_table(answers: Sequence[ArmAnswers]) -> Table:
    """Returns the table of arms by tasks: mean over seeds, interval over patients, standard deviation over seeds."""
    return _table(answers, "of_arm", lambda answer: f"{answer.mean}{_scatter(answer)}")


def differences_table(answers: Sequence[ArmAnswers], which: str) -> Table:
    """Returns the table of paired differences by arms and tasks, with the same entries as `arms_table`.

    Args:
        answers: Answers of all arms, one entry per task.
        which: Name of the difference, `"above_random"` or `"above_first"`.
    """
    return _table(answers, which, lambda answer: f"{answer.mean.signed()}{_scatter(answer)}")


def facts_table(runs: Sequence[ArmRun]) -> Table:
    """Returns the table of numbers that describe the trainings, averaged over seeds."""
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    rows = []
    for arm in dict.fromkeys(run.arm for run in runs if run.twin):
        own = [run for run in runs if run.arm == arm]
        values = [[run.facts[name] for run in own if name in run.facts] for name in names]
        rows.append((arm, str(len(own)), *(f"{np.mean(v):.4g}" if v else "" for v in values)))
    return Table(header=("arm", "seeds", *names), rows=rows)


def _scatter(answer: Answer) -> str:
    return f" ± {answer.seed_sd:.3f}" if len(answer.by_seed) > 1 else ""


def _table(answers: Sequence[ArmAnswers], which: str, text: Callable[[Answer], str]) -> Table:
    arms = list(dict.fromkeys(arm for each in answers for arm in getattr(each, which)))
    rows = [
        (arm, *(text(getattr(each, which)[arm]) if arm in getattr(each, which) else "" for each in answers))
        for arm in arms
    ]
    return Table(header=("arm", *(f"{each.task} ({each.metric})" for each in answers)), rows=rows)


def figure(answers: Sequence[ArmAnswers]) -> Figure:
    """Draws every arm's difference from its random encoder, with one panel per task.

    Bars are intervals over patients, and small dots are single seeds.
    """
    arms = list(dict.fromkeys(arm for each in answers for arm in each.above_random))
    width = 3.2 + 2.4 * len(answers)
    drawn = Figure(figsize=(width, 1.5 + 0.32 * len(arms)), layout="constrained")
    panels = np.atleast_1d(drawn.subplots(1, len(answers), sharey=True))
    for axes, each in zip(panels, answers, strict=True):
        for row, arm in enumerate(arms):
            if (answer := each.above_random.get(arm)) is None:
                continue
            mean = answer.mean
            axes.plot([mean.low, mean.high], [row, row], color="#b3202c", linewidth=1.6)
            axes.plot(list(answer.by_seed.values()), [row + 0.18] * len(answer.by_seed), ".", color="#888888", ms=4)
            axes.plot(mean.estimate, row, "o", color="#b3202c", ms=5)
        axes.axvline(0, color="#555555", linewidth=0.8)
        axes.set_title(each.task, fontsize=10)
        axes.set_xlabel(f"{each.metric}: arm minus random", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(arms)), arms, fontsize=8)
    panels[0].invert_yaxis()
    return drawn
