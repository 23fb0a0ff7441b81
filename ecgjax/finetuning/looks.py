"""Looks at validation during a training with labels: their history, and the weights of the best one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ecgjax.training.steps import Weights


@dataclasses.dataclass(frozen=True)
class Look:
    """Evaluation of a state on validation records.

    Attributes:
        step: Number of training steps before it.
        metric: Primary metric of the task; minus infinity where outputs were not finite.
        value: Value that the choice of the step maximises; minus infinity where outputs were not finite.
        loss: Loss of the task, without the metric term.
    """

    step: int
    metric: float
    value: float
    loss: float


class Looks:
    """Keeps the best of the states that were evaluated, and a copy of its weights.

    Of equal values the first is kept. Everything but the weights can be written as JSON and read back to the last bit,
    so that a training that is interrupted makes the same choice.
    """

    def __init__(self) -> None:
        #: Weights of the best look; None before a look gave a number.
        self.weights: Weights | None = None
        #: Best look; None before a look gave a number.
        self.best: Look | None = None
        #: Number of looks since the best one.
        self.since_best = 0
        #: All looks in order.
        self.history: list[Look] = []

    @property
    def trained(self) -> bool:
        """Whether a look after a training step gave a number. That of the probe, at step 0, does not count."""
        return any(each.step > 0 and each.value > -math.inf for each in self.history)

    def see(self, look: Look, weights: Weights) -> None:
        """Adds a look, and keeps its weights if it is better than all before.

        Args:
            look: Evaluation of the weights.
            weights: Weights that were evaluated; they are copied, because a step destroys its state.
        """
        self.history.append(look)
        if look.value > (-math.inf if self.best is None else self.best.value):
            self.best, self.weights, self.since_best = look, jax.tree.map(jnp.copy, weights), 0
        else:
            self.since_best += 1

    def exhausted(self, patience: int) -> bool:
        """Returns whether training ends here.

        Args:
            patience: Number of looks without a better one after which it does; 0 for never.
        """
        trained = bool(self.history) and self.history[-1].step > 0
        return trained and 0 < patience <= self.since_best

    def to_json(self) -> dict[str, Any]:
        """Returns everything but the weights, as JSON can hold it: numbers that are not finite are texts."""
        best = None if self.best is None else self.best.step
        history = [[each.step, *map(_written, (each.metric, each.value, each.loss))] for each in self.history]
        return {"best": best, "since_best": self.since_best, "history": history}

    @classmethod
    def from_json(cls, written: Mapping[str, Any], weights: Weights | None) -> Looks:
        """Returns the looks that `to_json` wrote.

        Args:
            written: Value of `to_json`.
            weights: Weights of the best look; None where there is none.
        """
        looks = cls()
        looks.history = [Look(int(step), *map(float, numbers)) for step, *numbers in written["history"]]
        looks.best = next((each for each in looks.history if each.step == written["best"]), None)
        looks.since_best, looks.weights = int(written["since_best"]), weights
        return looks


def _written(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)
