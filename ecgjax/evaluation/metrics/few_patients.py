"""Intervals of yes-or-no labels where a bootstrap has none: of too few patients, and of shares that are 0 or 1."""

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
    "AUROC": (1, 0),
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

#: Metrics that are a share of the records with one label, so that its patients are the number that was tried.
_SHARES = ("sensitivity", "specificity", "false-positive rate")


def without_few(interval: Interval, metric: str, labels: np.ndarray, *, patients: np.ndarray) -> Interval:
    """Returns the interval that a bootstrap's stands for, where it has none of its own.

    A bootstrap of three patients draws from three values, and one of patients who are all found draws nothing but
    "found": the interval has no width, though the next patient may be missed. Bounds are therefore withheld where the
    metric rests on fewer than `MIN_PATIENTS` patients. Where every resample says 0 or 1, a share of one label's
    records has the exact interval of as many patients as were tried (Clopper and Pearson 1934), and other metrics have
    none. An AUROC has an interval of its own (`clustered_auroc.interval_of_few`).

    Args:
        interval: Interval over resamples of the patients; not of a difference.
        metric: Name of the metric, such as `"sensitivity at 0.9"`.
        labels: Labels of the measured records, `[n]`, 0 or 1.
        patients: Patient (group) code of each of these, `int[n]`.
    """
    interval = without_too_few(interval, metric, labels, patients=patients)
    rests_on = _labels_of(metric)
    if math.isnan(interval.low) or not rests_on or interval.low < interval.high or interval.estimate not in (0, 1):
        return interval
    if base_of(metric)[0] not in _SHARES:
        return _withheld(interval, f"it is {interval.estimate:g} in every resample")
    # The share at which as many patients in a row are alike by chance, as often as the interval leaves out on one side.
    tried = len(np.unique(patients[labels == rests_on[0]]))
    surely = ((1 - interval.confidence) / 2) ** (1 / tried)
    low, high = (surely, 1.0) if interval.estimate == 1 else (0.0, 1 - surely)
    return dataclasses.replace(interval, low=low, high=high)


def without_too_few(interval: Interval, metric: str, labels: np.ndarray, *, patients: np.ndarray) -> Interval:
    """Returns a metric's interval, or a difference's, without bounds where it rests on fewer than `MIN_PATIENTS`.

    Args:
        interval: Interval over resamples of the patients.
        metric: Name of the metric, such as `"AUROC"`.
        labels: Labels of the measured records, `[n]`, 0 or 1.
        patients: Patient (group) code of each of these, `int[n]`.
    """
    for label in () if math.isnan(interval.low) else _labels_of(metric):
        number = len(np.unique(patients[labels == label]))
        if number < MIN_PATIENTS:
            return _withheld(interval, f"patients with {_WORDS[label]} record: {number}, fewer than {MIN_PATIENTS}")
    return interval


def _labels_of(metric: str) -> tuple[int, ...]:
    return (1, 0) if metric.startswith(_OF_PREVALENCE) else _LABELS.get(base_of(metric)[0], ())


def _withheld(interval: Interval, reason: str) -> Interval:
    return dataclasses.replace(interval, low=math.nan, high=math.nan, reason=reason)


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
