"""Patients too few for an interval: whose number limits a metric of yes-or-no labels, and what is said of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from data_pipelines.system.counted import counted
from ecgjax.data.labels import MIN_EVENTS
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.clustered_auroc import MIN_PATIENTS
from ecgjax.evaluation.metrics.needs import base_of

_WORDS = {1: "a positive", 0: "a negative"}

#: Labels of the patients that a metric rests on, by the metric's name without what comes behind " at " or " there".
_LABELS = {
    "AUPRC": (1,),
    "F1": (1,),
    "sensitivity": (1,),
    "PPV": (1,),
    "specificity": (0,),
    "NPV": (0,),
    "false-positive rate": (0,),
    "slope": (1, 0),
    "intercept": (1, 0),
}

#: Metrics that rest on both labels where a prevalence is given, since they follow from sensitivity and specificity.
_OF_PREVALENCE = ("PPV at", "NPV at")


def without_few(interval: Interval, metric: str, labels: np.ndarray, *, patients: np.ndarray) -> Interval:
    """Returns a bootstrap's interval, without its bounds where the metric rests on fewer than `MIN_PATIENTS` patients.

    A bootstrap of three patients draws from three values: where all three are found, every resample says 1, and the
    interval has no width. An AUROC has an interval of its own (`clustered_auroc.interval_of_few`).

    Args:
        interval: Interval over resamples of the patients.
        metric: Name of the metric, such as `"sensitivity at 0.9"`.
        labels: Labels of the measured records, `[n]`, 0 or 1.
        patients: Patient (group) code of each of these, `int[n]`.
    """
    name, _ = base_of(metric)
    rests_on = (1, 0) if metric.startswith(_OF_PREVALENCE) else _LABELS.get(name, ())
    for label in rests_on:
        number = len(np.unique(patients[labels == label]))
        if number < MIN_PATIENTS and not math.isnan(interval.low):
            reason = f"patients with {_WORDS[label]} record: {number}, fewer than {MIN_PATIENTS}"
            return dataclasses.replace(interval, low=math.nan, high=math.nan, reason=reason)
    return interval


def too_few_to_rank(labels: np.ndarray, *, patients: np.ndarray) -> str:
    """Returns how many patients have the rarer label, where they are too few to say which model is better.

    That is where intervals are withheld, or fewer than `MIN_EVENTS` records have one of the labels.

    Args:
        labels: Labels of the tested records, `[n]` of 0 and 1.
        patients: Patient (group) code of each record, `int[n]`.
    """
    label = min((1, 0), key=lambda each: np.count_nonzero(labels == each))
    number = len(np.unique(patients[labels == label]))
    if number >= MIN_PATIENTS and np.count_nonzero(labels == label) >= MIN_EVENTS:
        return ""
    return f"{counted(number, 'patient')} with {_WORDS[label]} record"
