"""Metrics of a model in each group of patients at one threshold: which groups have more misses or more false alarms.

The threshold is chosen, and the probabilities are calibrated, on validation for everybody: in the clinic a group has no
threshold of its own either.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.data.groups import MISSING
from ecgjax.data.labels import MIN_EVENTS
from ecgjax.evaluation.metrics.bootstrap import Interval, bootstrap_metrics
from ecgjax.evaluation.metrics.clustered_auroc import interval_of_few
from ecgjax.evaluation.metrics.ranking import RankedScores
from ecgjax.evaluation.metrics.weighting import Metric, check_probabilities, ratio

#: Metrics that are compared between a group and all other records, with their descriptions.
GAPS: Mapping[str, str] = {
    "sensitivity": "share of positives that are found",
    "false_positive_rate": "share of negatives that are called positive",
    "calibration": "mean probability less frequency of positives",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Metrics of a model in one group.

    Attributes:
        column: Name of the column that the groups are made by, such as `"sex"`.
        group: Name of the group, such as `"female"`, or `MISSING`.
        records, patients, events: Numbers of records, patients and events; events are positive records.
        metrics: Estimates and intervals by name, `"auroc"` and the names of `GAPS`.
        gaps: Paired differences of this group from all other records by name of `GAPS`.
        reason: Reason why there are no metrics; empty where there are.
    """

    column: str
    group: str
    records: int
    patients: int
    events: int
    metrics: Mapping[str, Interval]
    gaps: Mapping[str, Interval]
    reason: str = ""


def in_order(group: str) -> tuple[bool, bool, float, str]:
    """Returns the key by which groups are sorted: bands from below, others by name, `MISSING` last."""
    number = re.match(r"-?\d+(\.\d+)?(e[+-]?\d+)?", group)
    return group == MISSING, not group.startswith("below "), float(number[0]) if number else 0.0, group


def subgroups(
    labels: np.ndarray,
    probabilities: np.ndarray,
    columns: Mapping[str, np.ndarray],
    *,
    patients: np.ndarray,
    threshold: float,
    min_events: int = MIN_EVENTS,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """Evaluates a model in every group of every column.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        probabilities: Probabilities of the positive class, `[n]`.
        columns: Names of the groups of the records, `[n]`, by column, made by `groups.categories` or `groups.bands`.
        patients: Patient (group) code of each record, `int[n]`.
        threshold: Probability from which a record is called positive.
        min_events: Least number of positives, and of negatives, that a group must have to be evaluated, and the other
            records to be compared with.
        resamples: Number of resamples of the bootstrap over patients, the same resamples for all groups.
        seed: Seed of the resampling.

    Returns:
        Groups in the order of the columns, bands from below, others by name, `MISSING` last.

    Raises:
        DataError: Lengths differ, or `weighting.check_probabilities` refuses the labels or probabilities.
    """
    labels, probabilities = check_probabilities(labels, probabilities)
    patients = np.asarray(patients)
    for name, values in {"patients": patients, **columns}.items():
        if len(values) != len(labels):
            raise DataError(f"{len(values)} values of {name} for {len(labels)} labels")
    members = {
        (column, group): np.asarray(values == group)
        for column, values in ((name, np.asarray(values, object)) for name, values in columns.items())
        for group in sorted(set(values), key=in_order)
    }
    lacking = {key: _too_few(labels[mask], min_events) for key, mask in members.items()}
    metrics: dict[str, Metric] = {}
    for key, mask in members.items():
        if not lacking[key]:
            metrics |= {_name(key, name): metric for name, metric in _metrics(labels, probabilities, mask, threshold)}
            if not _too_few(labels[~mask], min_events):
                rest = _metrics(labels, probabilities, ~mask, threshold)
                metrics |= {_name(key, name, rest=True): metric for name, metric in rest if name in GAPS}
    found = bootstrap_metrics(
        metrics, patients=patients, resamples=resamples, seed=seed, needs="both classes in the group"
    )
    out = []
    for key, mask in members.items():
        names = [] if lacking[key] else ["auroc", *GAPS]
        own = {name: found.interval(_name(key, name)) for name in names}
        if names:
            own["auroc"] = interval_of_few(own["auroc"], labels[mask], probabilities[mask], patients=patients[mask])
        gaps = [name for name in names if _name(key, name, rest=True) in metrics]
        out.append(
            Subgroup(
                column=key[0],
                group=key[1],
                records=int(mask.sum()),
                patients=len(np.unique(patients[mask])),
                events=int(labels[mask].sum()),
                metrics=own,
                gaps={name: found.difference(_name(key, name), _name(key, name, rest=True)) for name in gaps},
                reason=lacking[key],
            )
        )
    return tuple(out)


def _name(key: tuple[str, str], metric: str, *, rest: bool = False) -> str:
    return "\t".join((*key, metric, "rest" if rest else "group"))


def _too_few(labels: np.ndarray, least: int) -> str:
    events = int(labels.sum())
    if events < least:
        return f"{events} events, fewer than {least}"
    if len(labels) - events < least:
        return f"{len(labels) - events} records without an event, fewer than {least}"
    return ""


def _metrics(
    labels: np.ndarray, probabilities: np.ndarray, mask: np.ndarray, threshold: float
) -> list[tuple[str, Metric]]:
    called, positive = probabilities >= threshold, labels == 1
    ranked, records = RankedScores(labels[mask], probabilities[mask]), np.flatnonzero(mask)
    return [
        ("auroc", lambda weights: ranked.auroc(weights[:, records])),
        ("sensitivity", ratio(mask & called & positive, mask & positive)),
        ("false_positive_rate", ratio(mask & called & ~positive, mask & ~positive)),
        ("calibration", ratio(mask * (probabilities - labels), mask)),
    ]
