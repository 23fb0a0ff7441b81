"""Arguments that the experiments on all kinds of tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np

from ecgjax.evaluation.features.features import Read
from ecgjax.evaluation.features.model_inputs import Classifier, FrozenEncoder


class Compared(TypedDict):
    """Arguments that say which models are compared, and how.

    Attributes:
        read: Function from record numbers to stored signals.
        sampling_rate_hz: Sampling rate of the signals, Hz.
        demographics: Age in years and sex (1 female, 0 male) of all records, `f32[records, 2]`, NaN where unknown.
        pretrained: Encoder under test.
        random: Encoder of the same architecture at its initialisation, with batch norm recalibrated.
        train_supervised: Function that trains the architecture with labels alone.
        groups: Names of the groups of the test records, `[n]`, by column.
        bootstrap: Number of bootstrap resamples.
        seed: Seed of resamples, permutations and supervised training.
        progress: Whether progress is reported.
    """

    read: Read
    sampling_rate_hz: int
    demographics: np.ndarray
    pretrained: FrozenEncoder
    random: FrozenEncoder
    train_supervised: Callable[..., Classifier]
    groups: Mapping[str, np.ndarray]
    bootstrap: int
    seed: int
    progress: bool
