"""What the experiments of all kinds of task take alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np

from ecgjax.evaluation.features.features import Read
from ecgjax.evaluation.features.model_inputs import Classifier, FrozenEncoder


class Compared(TypedDict):
    """Models to compare, and how.

    Attributes:
        read: Function from record numbers to stored signals.
        sampling_rate_hz: Samples a second of the signals.
        demographics: Age in years and sex (1 female, 0 male) of all records, `f32[records, 2]`, NaN where unknown.
        pretrained: Encoder under test.
        random: Encoder of the same architecture at its initialisation, batch norm recalibrated.
        train_supervised: Function that trains the architecture with labels alone.
        groups: Column → names of groups of the test records, `[n]`.
        bootstrap: Number of resamples.
        seed: Seed of resamples, permutations and supervised training.
        progress: Whether to say what is going on.
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
