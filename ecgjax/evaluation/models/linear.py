"""Probes of a frozen encoder for any task: a linear model or nearest neighbours on cached embeddings.

All hyperparameters are chosen on validation records by the task's primary metric (`selection.PRIMARY`).
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.retrieval import nearest_neighbours
from ecgjax.evaluation.metrics.weighting import check_finite
from ecgjax.evaluation.models import selection
from ecgjax.evaluation.models.logistic import fit_linear_probe

#: Numbers of neighbours to choose from; those larger than the number of training records are left out.
NEIGHBOURS: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)

#: Inverse strengths C of a multi-label probe, one for all classes. They are coarser than those of a single label,
#: because each strength takes a fit for every class.
_STRENGTHS: tuple[float, ...] = tuple(float(c) for c in np.logspace(-5, 1, 7))

#: Ridge penalties on the squared weights of standardised features, per training record, strongest first.
_PENALTIES: tuple[float, ...] = tuple(float(a) for a in np.logspace(3, -5, 17))

_MAX_ITERATIONS = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenProbe:
    """A fitted probe.

    Attributes:
        predict: Function of features `[n, d]` that returns log odds, scores or values of a quantity, `f64[n]` or
            `f64[n, classes]`.
        val_metric: Primary metric on validation of the chosen hyperparameters.
        selected: Description of the chosen hyperparameters, such as `"C = 0.001 of 13"`.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    val_metric: float
    selected: str


def fit_linear(
    kind: Kind,
    train_features: np.ndarray,
    train_targets: np.ndarray,
    *,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    classes: Sequence[str] = (),
) -> FrozenProbe:
    """Fits a linear probe: logistic regression, for each class of a multi-label task, or ridge regression of a
    quantity.

    Args:
        kind: Kind of the task, `"binary"`, `"multilabel"` or `"quantity"`.
        train_features: Features of the training records, `[n, d]`.
        train_targets: Targets of the training records, `[n]`, or `[n, classes]`.
        val_features: Features of the validation records, `[m, d]`, of patients that train does not have.
        val_targets: Targets of the validation records, `[m]`, or `[m, classes]`.
        classes: Names of the columns of a multi-label task.

    Raises:
        DataError: Features are not finite, or the targets of train or validation do not define the task's metric.
    """
    if kind == "binary":
        probe = fit_linear_probe(train_features, train_targets, val_features=val_features, val_labels=val_targets)
        return FrozenProbe(
            predict=probe.scores, val_metric=probe.val_auroc, selected=f"C = {probe.c:.2g} of {len(probe.sweep)}"
        )
    _check(kind, train_targets, val_targets, np.concatenate([train_features, val_features]))
    scaler = StandardScaler().fit(np.asarray(train_features, np.float64))
    train, val = (scaler.transform(np.asarray(x, np.float64)) for x in (train_features, val_features))
    if kind == "multilabel":
        fitted = _one_versus_rest(train, train_targets, val=val, val_targets=val_targets, classes=classes)
    else:
        fitted = _ridge(train, train_targets, val=val, val_targets=val_targets)
    return dataclasses.replace(
        fitted, predict=lambda features: fitted.predict(scaler.transform(np.asarray(features, np.float64)))
    )


def fit_nearest(
    kind: Kind,
    train_features: np.ndarray,
    train_targets: np.ndarray,
    *,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    classes: Sequence[str] = (),
    ks: Sequence[int] = NEIGHBOURS,
) -> FrozenProbe:
    """Predicts the mean over the k nearest training records by cosine, with k chosen on validation.

    Arguments and errors are those of `fit_linear`; of equal metrics the largest k of `ks` is kept.
    """
    _check(kind, train_targets, val_targets, np.concatenate([train_features, val_features]))
    possible = [k for k in ks if k <= len(train_features)]
    if not possible:
        raise DataError(f"none of k = {', '.join(map(str, ks))} neighbours is among {len(train_features)} records")
    predicted = nearest_neighbours(train_features, train_targets, queries=val_features, ks=possible)
    values = {k: selection.primary(kind, val_targets, scores, classes=classes) for k, scores in predicted.items()}
    best = max(possible, key=lambda k: (values[k], k))
    return FrozenProbe(
        predict=lambda features: nearest_neighbours(train_features, train_targets, queries=features, ks=[best])[best],
        val_metric=values[best],
        selected=f"k = {best} of {len(possible)}",
    )


def _one_versus_rest(
    train: np.ndarray,
    targets: np.ndarray,
    *,
    val: np.ndarray,
    val_targets: np.ndarray,
    classes: Sequence[str],
) -> FrozenProbe:
    """Fits a logistic regression for each class, with one strength for all. A class that training records lack a label
    of scores 0.
    """
    fitted = [column for column in range(targets.shape[1]) if not undefined_reason(targets[:, column])]
    models = {
        column: LogisticRegression(solver="lbfgs", max_iter=_MAX_ITERATIONS, warm_start=True) for column in fitted
    }

    def scores(models: dict[int, LogisticRegression], features: np.ndarray) -> np.ndarray:
        out = np.zeros((len(features), targets.shape[1]))
        for column, model in models.items():
            out[:, column] = model.decision_function(features)
        return out

    best, best_value, best_c = models, -np.inf, _STRENGTHS[0]
    for c in _STRENGTHS:
        for column, model in models.items():
            with warnings.catch_warnings():
                # Fits of separable labels do not converge at weak regularisation, which validation then does not choose
                # anyway.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=c).fit(train, targets[:, column])
        if (value := selection.primary("multilabel", val_targets, scores(models, val), classes=classes)) > best_value:
            best, best_value, best_c = copy.deepcopy(models), value, c
    return FrozenProbe(
        predict=lambda features: scores(best, features),
        val_metric=best_value,
        selected=f"C = {best_c:.2g} of {len(_STRENGTHS)}",
    )


def _ridge(train: np.ndarray, targets: np.ndarray, *, val: np.ndarray, val_targets: np.ndarray) -> FrozenProbe:
    """Solves ridge regression for all penalties from one singular value decomposition."""
    mean = targets.mean()
    u, s, vt = np.linalg.svd(train, full_matrices=False)
    along = u.T @ (targets - mean)
    # The penalty is relative to the mean squared error, so that it means the same for few records and for many.
    weights = np.stack([vt.T @ (s / (s * s + penalty * len(train)) * along) for penalty in _PENALTIES])
    values = [selection.primary("quantity", val_targets, val @ w + mean) for w in weights]
    best = int(np.argmax(values))
    return FrozenProbe(
        predict=lambda features: features @ weights[best] + mean,
        val_metric=float(values[best]),
        selected=f"penalty = {_PENALTIES[best]:.2g} of {len(_PENALTIES)}",
    )


def _check(kind: Kind, train_targets: np.ndarray, val_targets: np.ndarray, features: np.ndarray) -> None:
    for split, targets in (("train", train_targets), ("validation", val_targets)):
        if reason := selection.undefined(kind, targets):
            raise DataError(
                f"no probe is possible: {reason} in the {split} split; give it more labels or more folds. "
                f"{SPREAD_LABELS}",
                reason=selection.NO_MODEL,
            )
    check_finite(features, "numbers of embeddings")
