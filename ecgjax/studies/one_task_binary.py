"""The experiment on a binary task: a pretrained encoder and its baselines on the same labelled records.

1. `pretrained`: a linear probe on the embeddings of the frozen encoder;
2. `random`: the same probe on the same encoder at its initialisation, with batch norm recalibrated on training records.
   Random convolutions are good features, so pretraining has to do better than they do, not merely better than chance;
3. `supervised`: the same encoder, trained end to end with the labels alone;
4. `intervals`: logistic regression on what a cardiologist would measure, and `boosted`: boosted trees on the same;
5. `median_beat`: logistic regression on the heart rate and principal components of the median beat;
6. `demographics`: logistic regression on age and sex.

`nearest` predicts from nearest neighbours in the pretrained encoder's embeddings, without any training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.features.features import Read, interval_preprocessor
from ecgjax.evaluation.features.measurements import median_beat_preprocessor
from ecgjax.evaluation.features.model_inputs import (
    Classifier,
    FrozenEncoder,
    embedded,
    plain_features,
    supervised_scores,
)
from ecgjax.evaluation.metrics.subgroups import Subgroup
from ecgjax.studies.comparison import (
    REFERENCE,
    Comparison,
    Contender,
    compare,
    nearest_contender,
    network_contender,
    probe_contender,
)
from ecgjax.studies.contenders import boosted_contender
from ecgjax.studies.decision_curve import NetBenefit, net_benefits
from ecgjax.studies.neighbourhood import Neighbourhood, neighbourhoods
from ecgjax.studies.operating import Operating, by_group, operate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of the experiment.

    Attributes:
        comparison: Comparison of the models.
        scores: Scores of the test records, `f64[test records]`, by the model's name.
        embeddings: Embeddings of the test records, `f32[test records, dim]`, by encoder (`"pretrained"`, `"random"`).
        measurement_failures: Number of records that lack an interval or amplitude, by reason.
        operating: Results of every model, calibrated and at its threshold.
        net_benefits: Net benefits of every model, and of treating everybody.
        groups: Results of the pretrained encoder's probe in every group of patients.
        near: Retrieval among nearest neighbours in the embeddings of both encoders.
    """

    comparison: Comparison
    scores: Mapping[str, np.ndarray]
    embeddings: Mapping[str, np.ndarray]
    operating: tuple[Operating, ...]
    net_benefits: tuple[NetBenefit, ...]
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
    groups: Mapping[str, np.ndarray],
    treat_at: Sequence[float] = (),
    prevalence: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Runs the models on the same records and compares them.

    Args:
        data: Labelled records of the task.
        read: Function from record numbers to stored signals.
        sampling_rate_hz: Sampling rate of the signals, Hz.
        demographics: Age in years and sex (1 female, 0 male) of all records of the data set, `f32[records, 2]`, NaN
            where unknown.
        pretrained: Encoder under test.
        random: Encoder of the same architecture at its initialisation, with batch norm recalibrated.
        train_supervised: Function that trains the architecture from `seed` on `train_records` and `train_labels` (of
            `train_patients`), and selects on `val_records` and `val_labels`.
        bootstrap: Number of bootstrap resamples.
        shuffles: Number of label permutations in the control.
        seed: Seed of resamples, permutations and supervised training.
        groups: Names of the groups of the test records, `[n]`, by column; see `groups.group_columns`.
        treat_at: Probabilities from which one would treat, at which net benefit is reported.
        prevalence: Prevalence for which PPV and NPV are reported as well as for that of the test records; None for the
            latter alone.
        progress: Whether progress is reported.

    Raises:
        DataError: The probes or the bootstrap refuse the records.
    """
    embeddings = embedded({REFERENCE: pretrained, "random": random}, data, read=read, progress=progress)
    contenders: dict[str, Contender] = {
        REFERENCE: probe_contender(embeddings[REFERENCE], data, title="pretrained, linear probe"),
        "nearest": nearest_contender(embeddings[REFERENCE], data, title="pretrained, nearest neighbours"),
        "random": probe_contender(embeddings["random"], data, title="random initialisation, linear probe"),
    }
    val_scores, test_scores, selected = supervised_scores(
        train_supervised, data, read=read, seed=seed, progress=progress
    )
    contenders["supervised"] = network_contender(
        val_scores=val_scores, test_scores=test_scores, data=data, title="labels only, end to end", selected=selected
    )
    plain = plain_features(
        data, read=read, sampling_rate_hz=sampling_rate_hz, demographics=demographics, progress=progress
    )
    contenders["intervals"] = probe_contender(
        plain.intervals, data, title="intervals and amplitudes, logistic", preprocessor=interval_preprocessor()
    )
    contenders["boosted"] = boosted_contender(
        plain.intervals, data, title="intervals and amplitudes, boosted trees", seed=seed
    )
    contenders["median_beat"] = probe_contender(
        plain.median_beat,
        data,
        title="median beat and heart rate, logistic",
        preprocessor=median_beat_preprocessor(train_records=len(data.train.records)),
    )
    contenders["demographics"] = probe_contender(
        plain.demographics,
        data,
        title=f"{plain.demographics_name}, logistic",
        preprocessor=interval_preprocessor(),
    )
    comparison = compare(
        contenders,
        data,
        control_features=embeddings[REFERENCE],
        bootstrap=bootstrap,
        shuffles=shuffles,
        seed=seed,
        progress=progress,
    )
    draws = {"resamples": bootstrap, "seed": seed}
    operating = operate(contenders, data, prevalence=prevalence, **draws)
    of_test = {name: features.test for name, features in embeddings.items()}
    reference = next(model for model in operating if model.name == REFERENCE)
    return Outcome(
        comparison=comparison,
        operating=operating,
        net_benefits=net_benefits(operating, data, treat_at=treat_at, **draws),
        groups=by_group(reference, data, groups=groups, **draws),
        near=neighbourhoods(
            of_test,
            labels=data.test.labels,
            patients=data.test.patients,
            **draws,
        ),
        scores={name: contender.scores for name, contender in contenders.items()},
        embeddings=of_test,
        measurement_failures=plain.failures,
    )
