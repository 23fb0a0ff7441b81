"""Metrics of each kind of task, on validation to choose a model and on test to report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics import regression
from ecgjax.evaluation.metrics.multilabel import auprc_of, auroc_of, by_class
from ecgjax.evaluation.metrics.ranking import RankedScores, undefined_reason
from ecgjax.evaluation.metrics.weighting import Metric, estimate

#: Name of the metric by which models are chosen and compared, by kind of task; higher is better.
PRIMARY: Mapping[Kind, str] = {"binary": "AUROC", "multilabel": "macro AUROC", "quantity": "R²"}

#: The `reason` of a `DataError` that says why labels and settings give no model. Other errors are about damaged data.
NO_MODEL = "no_model"


def metrics(kind: Kind, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> dict[str, Metric]:
    """Returns the metrics of a kind of task by name, the primary one first.

    Args:
        kind: Kind of the task, `"binary"`, `"multilabel"` or `"quantity"`.
        targets: Targets, `[n]`, or `[n, classes]` for a multi-label task.
        outputs: Outputs of the shape of the targets: scores, or values in the quantity's unit.
        classes: Names of the columns of a multi-label task.

    Raises:
        DataError: Shapes differ, labels are not 0 or 1, or outputs are not finite.
    """
    if kind == "binary":
        ranked = RankedScores(targets, outputs)
        return {"AUROC": ranked.auroc, "AUPRC": ranked.auprc}
    if kind == "multilabel":
        aurocs, auprcs = (by_class(targets, outputs, classes=classes, metric=each) for each in (auroc_of, auprc_of))
        return {"macro AUROC": aurocs.macro, "macro AUPRC": auprcs.macro}
    return {
        "R²": regression.r_squared(targets, outputs),
        "Pearson's r": regression.pearson(targets, outputs),
        "RMSE": regression.rmse(targets, outputs),
        "MAE": regression.mae(targets, outputs),
    }


def estimates(kind: Kind, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> dict[str, float]:
    """Returns the values of `metrics` on the records as they are, NaN where undefined."""
    return {
        name: estimate(metric, len(targets))
        for name, metric in metrics(kind, targets, outputs, classes=classes).items()
    }


def primary(kind: Kind, targets: np.ndarray, outputs: np.ndarray, *, classes: Sequence[str] = ()) -> float:
    """Returns the value of the primary metric on the records as they are, NaN where undefined."""
    return estimate(metrics(kind, targets, outputs, classes=classes)[PRIMARY[kind]], len(targets))


def loss(kind: Kind, targets: np.ndarray, outputs: np.ndarray) -> float:
    """Returns the mean cross-entropy of log odds, in nats, or the mean squared error of a quantity."""
    targets, outputs = np.asarray(targets, np.float64), np.asarray(outputs, np.float64)
    if kind == "quantity":
        return float(np.mean((outputs - targets) ** 2))
    return float(-np.mean(special.log_expit(np.where(targets == 1, outputs, -outputs))))


def undefined(kind: Kind, targets: np.ndarray) -> str:
    """Returns the reason why the primary metric of these targets does not exist, or "" where it does."""
    if kind == "binary":
        return undefined_reason(targets)
    if kind == "multilabel":
        both = [column for column in np.asarray(targets).T if not undefined_reason(column)]
        return "" if both else f"no class of {np.shape(targets)[1]} has both labels in {len(targets)} records"
    if len(targets) == 0:
        return "no records"
    return "" if np.ptp(targets) > 0 else f"all {len(targets)} records have the same value"
