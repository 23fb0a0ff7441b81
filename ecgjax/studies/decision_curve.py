"""What deciding by a model is worth: net benefit beside treating everybody and treating nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.metrics.bootstrap import Interval, bootstrap_metrics
from ecgjax.evaluation.metrics.operating_points import net_benefit
from ecgjax.studies.operating import RESAMPLES, Operating

#: Key of the row of treating everybody, which is no model's.
TREAT_ALL = "treat_all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetBenefit:
    """Net benefit of a model, or of treating everybody; treating nobody is worth 0.

    Attributes:
        name: of the model, or `TREAT_ALL`.
        title: likewise.
        benefits: probability from which one would treat → net benefit of a test record, with intervals over patients.
        over_all: likewise, less that of treating everybody, paired; none of treating everybody itself.
    """

    name: str
    title: str
    benefits: Mapping[float, Interval]
    over_all: Mapping[float, Interval]


def net_benefits(
    models: Sequence[Operating], data: ProbeData, *, treat_at: Sequence[float], resamples: int, seed: int
) -> tuple[NetBenefit, ...]:
    """Measures the net benefit of models on the test records, at the records' own prevalence.

    Args:
        models: from `operating.operate`, whose probabilities are calibrated on validation.
        data: the labelled records.
        treat_at: probabilities from which one would treat, in [0, 1): what a false positive costs decides, and no data.
        resamples: of the bootstrap over patients, `RESAMPLES` at most, the same for all.
        seed: of the resampling.

    Returns:
        One a model, and at last that of treating everybody; none without `treat_at`.
    """
    if not treat_at:
        return ()
    labels = data.test.labels
    probabilities = {model.name: model.probabilities for model in models} | {TREAT_ALL: np.ones(len(labels))}
    titles = {model.name: model.title for model in models} | {TREAT_ALL: "treat everybody"}
    found = bootstrap_metrics(
        {
            f"{name}\t{threshold}": net_benefit(labels, values, threshold=threshold)
            for name, values in probabilities.items()
            for threshold in treat_at
        },
        patients=data.test.patients,
        resamples=min(resamples, RESAMPLES),
        seed=seed,
    )
    return tuple(
        NetBenefit(
            name=name,
            title=title,
            benefits={threshold: found.interval(f"{name}\t{threshold}") for threshold in treat_at},
            over_all={
                threshold: found.difference(f"{name}\t{threshold}", f"{TREAT_ALL}\t{threshold}")
                for threshold in treat_at
                if name != TREAT_ALL
            },
        )
        for name, title in titles.items()
    )
