"""A network trained with labels, and its predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jax import Array

from ecgjax.evaluation.features.features import in_batches
from ecgjax.training.steps import Weights

#: Number of rows that each call on the device predicts.
_PREDICTED_AT_ONCE = 128


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A trained encoder with a head.

    Attributes:
        outputs: Jitted function `(params, stats, int16[batch, time, 8]) → f32[batch, outputs]`.
        state: Trained parameters and statistics, or their moving average.
        offset: Numbers that are subtracted from the log odds, `f64[outputs]`, because balanced batches or weights train
            at another prevalence.
        vector: Whether predictions are one number for each record, `[n]`, and not `[n, classes]`.
        val_metric: Primary metric on validation at the step that was chosen.
        value: Value that the choice of the step maximised, of `Look.value`.
        step: Step that was chosen, from 1; 0 where the probe that a head began at was best.
        selected: Description of the chosen step and of how it was chosen.
    """

    outputs: Callable[..., Array]
    state: Weights
    offset: np.ndarray
    vector: bool
    val_metric: float
    value: float
    step: int
    selected: str

    def scores(self, signals: np.ndarray) -> np.ndarray:
        """Predicts recordings.

        Args:
            signals: Recordings in µV, `int16[n, time, 8]`.

        Returns:
            Predictions, `f64[n]` or `f64[n, classes]`: log odds at the training records' own prevalence, or values of a
            quantity.
        """
        return shaped(predict(self.outputs, self.state, signals), self.vector, self.offset)


def predict(outputs: Callable[..., Array], state: Weights, signals: np.ndarray) -> np.ndarray:
    """Returns outputs of a network, `f64[n, outputs]`; the last batch is padded, so that the program compiles once.

    Args:
        outputs: Jitted function, as `Network.outputs`.
        state: Parameters and statistics.
        signals: Recordings in µV, `int16[n, time, 8]`.
    """
    found = in_batches(lambda part: outputs(state.params, state.stats, part), signals, size=_PREDICTED_AT_ONCE)
    return found.astype(np.float64)


def shaped(outputs: np.ndarray, vector: bool, offset: np.ndarray) -> np.ndarray:
    """Returns outputs minus the offset, `f64[n, outputs]`; `f64[n]` if predictions are one number for each record.

    Args:
        outputs: Outputs, `f64[n, outputs]`.
        vector: Whether predictions are one number for each record.
        offset: Numbers to subtract, `f64[outputs]`.
    """
    values = outputs - offset
    return values[:, 0] if vector else values
