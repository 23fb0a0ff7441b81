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
    """What the experiment gives.

    Attributes:
        comparison: the table.
        scores: model name → `f64[test records]`.
        embeddings: encoder (`"pretrained"`, `"random"`) → `f32[test records, dim]`.
        measurement_failures: records by reason why intervals or amplitudes are missing.
        operating: every model calibrated and with a threshold.
        net_benefits: of every model, and of treating everybody.
        groups: the pretrained encoder's probe in every group of patients.
        near: what lies near in both encoders' embeddings.
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
        groups: column → names of groups of the test records, `[n]`, see `grouping`.
        treat_at: probabilities from which one would treat, at which net benefit is told.
        prevalence: at which PPV and NPV are told beside those at the test records' own; None for these alone.
        progress: whether to say what is going on.

    Raises:
        DataError: as the probe and the bootstrap.
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
