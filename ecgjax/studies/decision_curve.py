"""Net benefit of deciding by a model, compared with treating everybody and treating nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.metrics.bootstrap import Interval, bootstrap_metrics
from ecgjax.evaluation.metrics.operating_points import net_benefit
from ecgjax.studies.operating import RESAMPLES, Operating

#: Name of the row for treating everybody, which stands beside the models' names.
TREAT_ALL = "treat_all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetBenefit:
    """Net benefit of a model, or of treating everybody; that of treating nobody is 0.

    Attributes:
        name: Name of the model, or `TREAT_ALL`.
        title: Title of the model in tables.
        benefits: Net benefit per test record with its interval over patients, by the probability from which one would
            treat.
        over_all: Paired difference from the net benefit of treating everybody, by the same probabilities; empty for
            treating everybody itself.
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
        models: Models from `operating.operate`, with probabilities calibrated on validation.
        data: Labelled records of the task.
        treat_at: Probabilities in [0, 1) from which one would treat. They follow from the cost of a false positive, not
            from the data.
        resamples: Number of bootstrap resamples of the patients, the same for all models; at most `RESAMPLES` are
            drawn.
        seed: Seed of the resampling.

    Returns:
        Net benefit of each model, followed by that of treating everybody; nothing if `treat_at` is empty.
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
