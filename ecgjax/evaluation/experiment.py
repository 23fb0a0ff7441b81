"""The one experiment behind the table: a pretrained encoder and three baselines on the same labelled records.

1. `pretrained`: the frozen encoder, a linear probe on its embeddings;
2. `random`: the same encoder as initialised, batch norm recalibrated on training records, the same probe. Random
   convolutions are good features, so pretraining has to beat them and not chance;
3. `supervised`: the same encoder trained end to end with the labels alone;
4. `intervals`: logistic regression on what a cardiologist would measure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ecgjax.evaluation.comparison import (
    REFERENCE,
    Comparison,
    Contender,
    compare,
    network_contender,
    probe_contender,
)
from ecgjax.evaluation.features import Read, interval_features, interval_preprocessor, map_records, split_features
from ecgjax.evaluation.labels import ProbeData

#: Records embedded at a time.
_BATCH = 256


class FrozenEncoder(Protocol):
    """An encoder in inference mode."""

    def embed(self, signals: np.ndarray) -> np.ndarray:
        """Returns `f32[n, d]` for `int16[n, time, lead]`, row by row."""


class Classifier(Protocol):
    """A network trained on labels."""

    def scores(self, signals: np.ndarray) -> np.ndarray:
        """Returns `f32[n]`, larger for the positive class, for `int16[n, time, lead]`, row by row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the experiment gives.

    Attributes:
        comparison: the table.
        scores: model name → `f64[test records]`.
        measurement_failures: records by reason why intervals or amplitudes are missing.
    """

    comparison: Comparison
    scores: Mapping[str, np.ndarray]
    measurement_failures: Mapping[str, int]


def run_experiment(
    data: ProbeData,
    *,
    read: Read,
    sampling_rate_hz: int,
    pretrained: FrozenEncoder,
    random: FrozenEncoder,
    train_supervised: Callable[..., Classifier],
    bootstrap: int,
    shuffles: int,
    seed: int,
    progress: bool = True,
) -> Outcome:
    """Runs the four models on the same records and compares them.

    Args:
        data: the labelled records.
        read: reads stored signals.
        sampling_rate_hz: of the signals.
        pretrained: the encoder under test.
        random: the same architecture at its initialisation, batch norm recalibrated.
        train_supervised: trains the architecture on `train_records`, `train_labels`, selecting on `val_records`,
            `val_labels`, from `seed`.
        bootstrap: number of resamples.
        shuffles: number of label permutations of the control.
        seed: of resamples, permutations and supervised training.
        progress: whether to say what is going on.

    Raises:
        DataError: as the probe and the bootstrap.
    """
    embed: dict[str, Any] = {"read": read, "batch_size": _BATCH, "progress": progress}
    embeddings = split_features(pretrained.embed, data, title="embeddings, pretrained", **embed)
    contenders: dict[str, Contender] = {
        REFERENCE: probe_contender(embeddings, data, title="pretrained, linear probe"),
        "random": probe_contender(
            split_features(random.embed, data, title="embeddings, random", **embed),
            data,
            title="random initialisation, linear probe",
        ),
    }
    network = train_supervised(
        read=read,
        train_records=data.train.records,
        train_labels=data.train.labels,
        val_records=data.val.records,
        val_labels=data.val.labels,
        seed=seed,
    )
    val_scores, test_scores = (
        np.asarray(map_records(network.scores, part.records, title=f"scores, labels only, {name}", **embed), np.float64)
        for name, part in (("validation", data.val), ("test", data.test))
    )
    contenders["supervised"] = network_contender(
        val_scores=val_scores, test_scores=test_scores, data=data, title="labels only, end to end"
    )
    intervals, failures = interval_features(data, read=read, sampling_rate_hz=sampling_rate_hz, progress=progress)
    contenders["intervals"] = probe_contender(
        intervals, data, title="intervals and amplitudes, logistic", preprocessor=interval_preprocessor()
    )
    comparison = compare(
        contenders,
        data,
        control_features=embeddings,
        bootstrap=bootstrap,
        shuffles=shuffles,
        seed=seed,
        progress=progress,
    )
    return Outcome(
        comparison=comparison,
        scores={name: contender.scores for name, contender in contenders.items()},
        measurement_failures=failures,
    )
