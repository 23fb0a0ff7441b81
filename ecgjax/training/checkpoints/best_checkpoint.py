"""The best checkpoint of a run: the measure that says which it is, and the policy that keeps it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ecgjax.errors import ConfigError
from ecgjax.training.checkpoints.checkpoint_settings import CheckpointSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The measure by which a checkpoint is the best of a run.

    Attributes:
        metric: Full name of a metric of the evaluation, such as `eval/loss`.
        mode: `"min"` where less is better, `"max"` where more is.
    """

    metric: str
    mode: str

    def check(self, metrics: Collection[str]) -> None:
        """Raises a `ConfigError` where the metric is not among those of the evaluation, given by their full names."""
        if self.metric not in metrics:
            raise ConfigError(
                f"config.checkpoint.best={self.metric!r} is no metric of the evaluation; there are: "
                f"{', '.join(sorted(metrics))}"
            )

    def value(self, evaluation: Mapping[str, float | None]) -> float:
        """Returns the metric's value; NaN where it is not finite.

        Raises:
            ConfigError: The evaluation has no such metric.
        """
        self.check(evaluation)
        value = evaluation[self.metric]
        return math.nan if value is None or not math.isfinite(value) else value

    def best_of(self, values: Iterable[float]) -> float:
        """Returns the best of some values."""
        return min(values) if self.mode == "min" else max(values)


def best_by(settings: CheckpointSettings) -> Best | None:
    """Returns the measure that `config.checkpoint` names, or None where it names none.

    Args:
        settings: Settings of the checkpoints.

    Raises:
        ConfigError: The measure is no metric of an evaluation.
    """
    if not settings.best:
        return None
    if not settings.best.startswith("eval/"):
        raise ConfigError(
            f"config.checkpoint.best={settings.best!r} must be a metric of the evaluation, such as eval/loss; "
            "docs/running.md has all, each under eval/"
        )
    return Best(metric=settings.best, mode=settings.best_mode)


class BestStep:
    """The best of the checkpoints whose state was evaluated.

    Args:
        best: Measure by which one is the best; None for none.
    """

    def __init__(self, best: Best | None):
        self._best = best
        self._values: dict[int, float] = {}

    def note(self, step: int, evaluation: Mapping[str, float | None] | None) -> None:
        """Notes the metrics of a checkpoint's evaluation; None, or metrics without the measure's, are passed over."""
        if self._best is not None and evaluation and self._best.metric in evaluation:
            self._values[step] = self._best.value(evaluation)

    def forget(self, step: int) -> None:
        """Forgets a checkpoint that was not written after all."""
        self._values.pop(step, None)

    def of(self, steps: Sequence[int]) -> int | None:
        """Returns the best of some steps, the earlier of two that are equal; None where none was evaluated."""
        values = {
            step: self._values[step] for step in sorted(steps) if not math.isnan(self._values.get(step, math.nan))
        }
        if self._best is None or not values:
            return None
        best = self._best.best_of(values.values())
        return next(step for step, value in values.items() if value == best)

    def with_value(self, steps: Sequence[int]) -> tuple[int, float] | None:
        """Returns the best of some steps and its value, or None where none was evaluated."""
        step = self.of(steps)
        return None if step is None else (step, self._values[step])

    def is_beaten_by(self, evaluation: Mapping[str, float | None], steps: Sequence[int]) -> bool:
        """Returns whether a state with these metrics is better than the best of some steps.

        Raises:
            ConfigError: The evaluation lacks the metric of the measure.
        """
        if self._best is None:
            return False
        value, best = self._best.value(evaluation), self.with_value(steps)
        if math.isnan(value):
            return False
        return best is None or (value != best[1] and self._best.best_of((value, best[1])) == value)


class KeepBest:
    """Orbax's policy that keeps the best checkpoint.

    Args:
        best_of: Function from steps to the best of them, or None.
    """

    def __init__(self, best_of: Callable[[Sequence[int]], int | None]):
        self._best_of = best_of

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        """Returns which checkpoints are kept."""
        best = self._best_of([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step == best for checkpoint in checkpoints]
