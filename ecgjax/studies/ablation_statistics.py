"""Arms of an ablation side by side: the same tasks from every arm's frozen encoder, summed up over seeds."""

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
    """What a probe on one encoder answered.

    Attributes:
        records: of training.
        positives: of them, of a class with most of a multi-label task; None of a quantity.
        val_metric: primary metric on validation of what was selected there.
        selected: what that was, in words.
        scores: `f32[test records]` or `f32[test records, classes]`.
    """

    records: int
    positives: int | None
    val_metric: float
    selected: str
    scores: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmRun:
    """An encoder of one arm and seed, probed.

    Attributes:
        arm: title.
        seed: of the run and of which labels were drawn.
        twin: title of the arm of the same encoder at random initialisation; "" of such an arm itself.
        config: digest of what it was trained and probed with.
        tasks: task → its scores.
        facts: numbers of the training, such as the objective at its beginning and end.
    """

    arm: str
    seed: int
    twin: str
    config: str
    tasks: Mapping[str, TaskScores]
    facts: Mapping[str, float]

    def save(self, path: Path) -> None:
        """Writes one NumPy archive, whole or not at all."""
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
        """Reads what `save` wrote.

        Raises:
            DataError: the file is damaged.
        """
        try:
            # Read whole: of a damaged archive NumPy would leave the file open.
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
    """One arm and task, or the difference of two arms there, over the seeds that have it.

    Attributes:
        mean: over seeds, with its interval over test patients.
        by_seed: seed → the primary metric on the test records, or its paired difference.
    """

    mean: Interval
    by_seed: Mapping[int, float]

    @property
    def seed_sd(self) -> float:
        """Standard deviation over seeds; NaN of a single one."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmAnswers:
    """A task in all arms.

    Attributes:
        task: as it was asked for.
        metric: name of the primary metric.
        of_arm: arm → answer.
        above_random: arm → difference from the same encoder at random initialisation.
        above_first: arm → difference from the first arm that was trained.
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
    """Sums up one task over seeds, all arms on the same resamples of the test patients.

    Args:
        runs: in the order of the table, all probed on the same test records.
        task: which.
        kind: of the task.
        targets: of the test records, `[n]` or `[n, classes]`.
        patients: `int[n]`, patient (group) code of each.
        classes: names of the columns of a multi-label task.
        resamples: of the bootstrap over patients.
        seed: of the resampling.
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
    """Averages signed sums of runs, one a seed, on the test records and on every resample."""
    by_seed = {seed: sum(sign * found.estimates[key] for sign, key in parts) for seed, parts in terms.items()}
    return Answer(mean=found.mean_of(list(terms.values())), by_seed=by_seed)


def arms_table(answers: Sequence[ArmAnswers]) -> Table:
    """Returns arms by tasks: mean over seeds, interval over patients, deviation over seeds."""
    return _table(answers, "of_arm", lambda answer: f"{answer.mean}{_scatter(answer)}")


def differences_table(answers: Sequence[ArmAnswers], which: str) -> Table:
    """Returns paired differences likewise; `which` is `"above_random"` or `"above_first"`."""
    return _table(answers, which, lambda answer: f"{answer.mean.signed()}{_scatter(answer)}")


def facts_table(runs: Sequence[ArmRun]) -> Table:
    """Returns numbers of the trainings, means over seeds."""
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
    """Draws every arm's difference from its random encoder, a panel a task.

    Bars are intervals over patients, small dots single seeds.
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
        axes.set_xlabel(f"{each.metric}: arm − random", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(arms)), arms, fontsize=8)
    panels[0].invert_yaxis()
    return drawn
