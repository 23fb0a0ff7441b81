"""The one experiment behind the table: a pretrained encoder and its baselines on the same labelled records.

1. `pretrained`: the frozen encoder, a linear probe on its embeddings;
2. `random`: the same encoder as initialised, batch norm recalibrated on training records, the same probe. Random
   convolutions are good features, so pretraining has to beat them and not chance;
3. `supervised`: the same encoder trained end to end with the labels alone;
4. `intervals`: logistic regression on what a cardiologist would measure, `boosted` trees on the same;
5. `median_beat`: logistic regression on principal components of the median beat, and the heart rate;
6. `demographics`: logistic regression on age and sex.

`nearest` are the pretrained encoder's nearest neighbours, without any training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from data_pipelines.median_beat import NAMES as MEASUREMENTS
from ecgjax.evaluation.baselines import (
    boosted_contender,
    demographic_features,
    median_beat_features,
    median_beat_preprocessor,
)
from ecgjax.evaluation.comparison import (
    REFERENCE,
    Comparison,
    Contender,
    compare,
    nearest_contender,
    network_contender,
    probe_contender,
)
from ecgjax.evaluation.features import (
    Read,
    SplitFeatures,
    interval_features,
    interval_preprocessor,
    map_records,
    split_features,
)
from ecgjax.evaluation.labels import ProbeData
from ecgjax.evaluation.neighbourhood import Neighbourhood, neighbourhoods
from ecgjax.evaluation.operating import Operating, by_group, operate
from ecgjax.evaluation.subgroups import Subgroup

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
        embeddings: encoder (`"pretrained"`, `"random"`) → `f32[test records, dim]`.
        measurement_failures: records by reason why intervals or amplitudes are missing.
        operating: every model calibrated and with a threshold.
        groups: the pretrained encoder's probe by sex and age band.
        near: what lies near in both encoders' embeddings.
    """

    comparison: Comparison
    scores: Mapping[str, np.ndarray]
    embeddings: Mapping[str, np.ndarray]
    operating: tuple[Operating, ...]
    groups: tuple[Subgroup, ...]
    near: tuple[Neighbourhood, ...]
    measurement_failures: Mapping[str, int]


def run_experiment(
    data: ProbeData,
    *,
    read: Read,
    sampling_rate_hz: int,
    demographics: np.ndarray,
    pretrained: FrozenEncoder,
    random: FrozenEncoder,
    train_supervised: Callable[..., Classifier],
    bootstrap: int,
    shuffles: int,
    seed: int,
    progress: bool = True,
) -> Outcome:
    """Runs the models on the same records and compares them.

    Args:
        data: the labelled records.
        read: reads stored signals.
        sampling_rate_hz: of the signals.
        demographics: age in years and sex (1 female, 0 male) of all records of the data set, `f32[records, 2]`, NaN
            where unknown.
        pretrained: the encoder under test.
        random: the same architecture at its initialisation, batch norm recalibrated.
        train_supervised: trains the architecture on `train_records`, `train_labels` (of `train_patients`), selecting
            on `val_records`, `val_labels`, from `seed`.
        bootstrap: number of resamples.
        shuffles: number of label permutations of the control.
        seed: of resamples, permutations and supervised training.
        progress: whether to say what is going on.

    Raises:
        DataError: as the probe and the bootstrap.
    """
    embed: dict[str, Any] = {"read": read, "batch_size": _BATCH, "progress": progress}
    embeddings = split_features(pretrained.embed, data, title="embeddings, pretrained", **embed)
    of_random = split_features(random.embed, data, title="embeddings, random", **embed)
    contenders: dict[str, Contender] = {
        REFERENCE: probe_contender(embeddings, data, title="pretrained, linear probe"),
        "nearest": nearest_contender(embeddings, data, title="pretrained, nearest neighbours"),
        "random": probe_contender(of_random, data, title="random initialisation, linear probe"),
    }
    network = train_supervised(
        read=read,
        train_records=data.train.records,
        train_labels=data.train.labels,
        train_patients=data.train.patients,
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
    intervals, beats, failures = interval_features(
        data, read=read, sampling_rate_hz=sampling_rate_hz, progress=progress
    )
    contenders["intervals"] = probe_contender(
        intervals, data, title="intervals and amplitudes, logistic", preprocessor=interval_preprocessor()
    )
    contenders["boosted"] = boosted_contender(
        intervals, data, title="intervals and amplitudes, boosted trees", seed=seed
    )
    contenders["median_beat"] = probe_contender(
        median_beat_features(beats, intervals, rr_column=MEASUREMENTS.index("rr")),
        data,
        title="median beat and heart rate, logistic",
        preprocessor=median_beat_preprocessor(train_records=len(data.train.records)),
    )
    parts = {"train": data.train, "val": data.val, "test": data.test}
    of_patients = SplitFeatures(**{name: demographics[part.records] for name, part in parts.items()})
    known, name = demographic_features(of_patients, data.task)
    contenders["demographics"] = probe_contender(
        known, data, title=f"{name}, logistic", preprocessor=interval_preprocessor()
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
    draws = {"resamples": bootstrap, "seed": seed}
    operating = operate(contenders, data, **draws)
    of_test = {"pretrained": embeddings.test, "random": of_random.test}
    reference = next(model for model in operating if model.name == REFERENCE)
    return Outcome(
        comparison=comparison,
        operating=operating,
        groups=by_group(reference, data, demographics=of_patients.test, **draws),
        near=neighbourhoods(
            of_test,
            labels=data.test.labels,
            patients=data.test.patients,
            **draws,
        ),
        scores={name: contender.scores for name, contender in contenders.items()},
        embeddings=of_test,
        measurement_failures=failures,
    )
