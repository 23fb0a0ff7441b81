"""Metrics in groups of patients, which are compared with those of all other records."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.system.counted import counted
from ecgjax.data.groups import MISSING
from ecgjax.data.labels import MIN_EVENTS
from ecgjax.evaluation.metrics.ranking import RankedScores
from ecgjax.evaluation.metrics.weighting import Metric, check_probabilities, ratio


def in_order(group: str) -> tuple[bool, bool, float, str]:
    """Returns the key by which names of groups are sorted: numeric bands ascend, others by name, `MISSING` last."""
    number = re.match(r"-?\d+(\.\d+)?(e[+-]?\d+)?", group)
    # False comes before True: bands from below stand first, and what is missing last.
    return group == MISSING, not group.startswith("below "), float(number[0]) if number else 0.0, group


def members(columns: Mapping[str, np.ndarray], *, number: int) -> dict[tuple[str, str], np.ndarray]:
    """Returns which records are in each group, `bool[n]`, by column and group.

    Args:
        columns: Name of each record's group, `[n]`, by column, made by `groups.categories` or `groups.bands`.
        number: Number of records.

    Returns:
        Groups in the order of the columns, bands from below, others by name, `MISSING` last.

    Raises:
        DataError: A column has another number of values.
    """
    for name, values in columns.items():
        if len(values) != number:
            raise DataError(f"{len(values)} values of {name} for {number} labels")
    return {
        (column, group): np.asarray(values == group)
        for column, values in ((name, np.asarray(values, object)) for name, values in columns.items())
        for group in sorted(set(values), key=in_order)
    }


def too_few_events(labels: np.ndarray, *, least: int = MIN_EVENTS) -> str:
    """Returns why a group of records is not evaluated, or "" where it has enough positives and negatives.

    Args:
        labels: Labels of the group's records, `[n]` of 0 and 1.
        least: Least number of positives, and of negatives.
    """
    events = int(labels.sum())
    if events < least:
        return f"{counted(events, 'event')}, fewer than {least}"
    if len(labels) - events < least:
        return f"{counted(len(labels) - events, 'record')} without an event, fewer than {least}"
    return ""


def decision_metrics(
    labels: np.ndarray, probabilities: np.ndarray, mask: np.ndarray, *, threshold: float
) -> dict[str, Metric]:
    """Returns the metrics of decisions on some records by name, as functions of weights on all records.

    The threshold is chosen, and the probabilities are calibrated, on the validation records of all patients, since in
    the clinic a group has no threshold of its own either.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        probabilities: Probabilities of the positive class, `[n]`.
        mask: Records to measure, `bool[n]`.
        threshold: Probability from which a record is called positive.

    Raises:
        DataError: `weighting.check_probabilities` raises it.
    """
    labels, probabilities = check_probabilities(labels, probabilities)
    called, positive = probabilities >= threshold, labels == 1
    ranked, records = RankedScores(labels[mask], probabilities[mask]), np.flatnonzero(mask)
    return {
        "AUROC": lambda weights: ranked.auroc(weights[:, records]),
        "sensitivity": ratio(mask & called & positive, mask & positive),
        "false-positive rate": ratio(mask & called & ~positive, mask & ~positive),
        "mean probability minus frequency": ratio(mask * (probabilities - labels), mask),
    }
