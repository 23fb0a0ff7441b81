"""A network trained with labels, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax import Array

from ecgjax.training.steps import TrainState

#: Number of rows that each call on the device predicts.
_PREDICTED_AT_ONCE = 128


class Network:
    """A trained encoder with a head.

    Args:
        outputs: Jitted function `(params, stats, int16[batch, time, 8]) → f32[batch, outputs]`.
        state: Trained parameters and statistics.
        offset: Numbers that are subtracted from the log odds, `f64[outputs]`, because training saw another prevalence.
        vector: Whether the answers are one number a record.
        val_metric: Primary metric on validation at the step that was chosen.
        step: Step that was chosen, from 1; 0 where the probe that a head began at was best.
        selected: Description of what the step was chosen by.
    """

    def __init__(
        self,
        outputs: Callable[..., Array],
        state: TrainState,
        *,
        offset: np.ndarray,
        vector: bool,
        val_metric: float,
        step: int,
        selected: str,
    ):
        self._outputs, self._state, self._offset, self._vector = outputs, state, offset, vector
        self.val_metric, self.step, self.selected = val_metric, step, selected

    def scores(self, signals: np.ndarray) -> np.ndarray:
        """Returns predictions for recordings, `int16[n, time, 8]` in µV.

        Returns:
            Predictions, `f64[n]` or `f64[n, classes]`: log odds at the training records' own prevalence, or values of a
            quantity.
        """
        return shaped(predict(self._outputs, self._state, signals), self._vector, self._offset)


def predict(outputs: Callable[..., Array], state: TrainState, signals: np.ndarray) -> np.ndarray:
    """Returns outputs, `f64[n, outputs]`; the last batch is filled up so that one compiled program serves all."""
    out = []
    for start in range(0, len(signals), _PREDICTED_AT_ONCE):
        part = signals[start : start + _PREDICTED_AT_ONCE]
        padded = np.zeros((_PREDICTED_AT_ONCE, *signals.shape[1:]), np.int16)
        padded[: len(part)] = part
        out.append(np.asarray(outputs(state.params, state.stats, padded), np.float64)[: len(part)])
    return np.concatenate(out)


def shaped(outputs: np.ndarray, vector: bool, offset: np.ndarray) -> np.ndarray:
    """Returns outputs less the offset, `f64[n, outputs]`, or `f64[n]` where the answers are one number a record."""
    values = outputs - offset
    return values[:, 0] if vector else values
