"""A network trained with labels, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax import Array

from ecgjax.training.steps import TrainState

#: Rows a call on the device when predicting.
_PREDICTED_AT_ONCE = 128


class Network:
    """An encoder with a head, trained.

    Args:
        outputs: jitted `(params, stats, int16[batch, time, 8]) → f32[batch, outputs]`.
        state: its parameters and statistics.
        offset: `f64[outputs]` taken from the log odds, which training saw at another prevalence.
        vector: whether the answers are one number a record.
        val_metric: primary metric on validation at the step that was chosen.
        step: that step, from 1; 0 where the probe that a head began at was best.
        selected: what it was chosen by, in words.
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
        """Predicts for recordings `int16[n, time, 8]`, µV.

        Returns:
            `f64[n]`, or `f64[n, classes]`: log odds at the training records' own prevalence, or values of a quantity.
        """
        return shaped(predict(self._outputs, self._state, signals), self._vector, self._offset)


def predict(outputs: Callable[..., Array], state: TrainState, signals: np.ndarray) -> np.ndarray:
    """Returns `f64[n, outputs]`, the last batch filled up so that one program serves all."""
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
