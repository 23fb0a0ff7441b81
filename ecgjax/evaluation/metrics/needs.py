"""What records must have for a metric to be defined, in words for whoever reads that it is not."""

from __future__ import annotations

from collections.abc import Mapping

#: Needs by the metric's name without what comes behind " at ", " of " or " there".
_NEEDS: Mapping[str, str] = {
    "AUROC": "positive and negative records",
    "AUPRC": "a positive record",
    "F1": "a record that is positive or called positive",
    "sensitivity": "a positive record",
    "specificity": "a negative record",
    "PPV": "a record at or above the threshold",
    "NPV": "a record below the threshold",
    "slope": "positive and negative records with probabilities that overlap",
    "intercept": "positive and negative records",
    "macro AUROC": "positive and negative records of every class",
    "macro AUPRC": "a positive record of every class",
    "macro F1": "a record of every class that is positive or called positive",
    "R²": "values that differ",
    "Pearson's r": "values and predictions that differ",
}

#: Needs of a share at another prevalence, which follows from sensitivity and specificity.
_AT_PREVALENCE = {name: f"positive and negative records, and {_NEEDS[name]}" for name in ("PPV", "NPV")}


def base_of(metric: str) -> tuple[str, bool]:
    """Returns a metric's name without what comes behind " at " or " there", and whether an " at " was there.

    Args:
        metric: Name of the metric, such as `"NPV at 0.1"`.
    """
    name, at, _ = metric.removesuffix(" there").partition(" at ")
    return name, bool(at)


def needed_for(metric: str, otherwise: str = "records") -> str:
    """Returns what records must have for a metric to be defined, as a noun phrase.

    Args:
        metric: Name of the metric, such as `"NPV at 0.1"`.
        otherwise: Phrase for a metric that is not known here.
    """
    name, at = base_of(metric)
    if at and name in _AT_PREVALENCE:
        return _AT_PREVALENCE[name]
    return _NEEDS.get(name.partition(" of ")[0], otherwise)
