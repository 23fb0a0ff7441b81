"""Probes of frozen features for any kind of task: a linear model, or nearest neighbours.

Hyperparameters are chosen on validation records by the primary metric of the kind. The strength of a linear model may
also be fixed, or chosen on folds of the labelled training records alone (`Strength`). The test records are not used in
any choice: they are scored once, by the model that was chosen.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.retrieval import nearest_neighbours
from ecgjax.evaluation.metrics.weighting import check_finite
from ecgjax.evaluation.models.fitted import Examples, FittedModel

#: Numbers of neighbours to choose from; those larger than the number of training records are left out.
NEIGHBOURS: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)

#: Ridge penalties on the squared weights of standardised features, per training record, strongest first.
_PENALTIES: tuple[float, ...] = tuple(float(a) for a in np.logspace(3, -5, 17))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Strength:
    """What decides the regularisation of a linear model; the best on the validation records by default.

    Attributes:
        fixed: Inverse L2 strength C, as in scikit-learn; that of a ridge regression is 1 / (penalty · records). None to
            choose it.
        folds: Fold of each training record, `int64[n]`, on which it is chosen by the mean loss; None to choose it on
            the validation records.
    """

    fixed: float | None = None
    folds: np.ndarray | None = None

    def fewest(self, records: int) -> int:
        """Returns the smallest number of records that a model is fitted on, of a number of training records."""
        largest = 0 if self.folds is None else int(np.bincount(self.folds).max())
        return records - largest if largest < records else records


#: Function of features, `[m, d]`, that returns the outputs of a linear model.
_Outputs = Callable[[np.ndarray], np.ndarray]

#: Models of one training set by strength, strongest regularisation first.
_Path = Sequence[tuple[float, _Outputs]]


def fit_linear(
    examples: Examples, *, preprocessor: TransformerMixin | None = None, strength: Strength | None = None
) -> FittedModel:
    """Fits a linear probe: logistic regression (one for each class), or ridge regression for a quantity.

    Args:
        examples: Labelled features.
        preprocessor: Unfitted scikit-learn transformer, fitted here on the training records alone; by default each
            feature is scaled to zero mean and unit standard deviation, and must be finite.
        strength: What decides the regularisation; the best on the validation records by default.

    Returns:
        The model whose strength was chosen.

    Raises:
        DataError: Features are not finite, or the targets of the training or validation records do not define the
            primary metric.
    """
    examples.check()
    strength = strength or Strength()
    if preprocessor is None:
        preprocessor = StandardScaler()
        check_finite(np.concatenate([examples.train, examples.val]), "numbers of embeddings")
    # float64 is affordable, since embeddings are few; in float32 lbfgs stops early on badly scaled directions.
    train = preprocessor.fit_transform(np.asarray(examples.train, np.float64))
    val = preprocessor.transform(np.asarray(examples.val, np.float64))
    if strength.fixed is None and strength.folds is None:
        fitted = (_logistic if examples.kind.log_odds else _ridge)(examples, train, val)
    else:
        fitted = _with_strength(examples, strength, preprocessor, train, val)
    # What is predicted of a yes or no is scaled in the features' own precision, as it always was: a result that was
    # published is to be found again to the last bit.
    precision = None if examples.kind.yes_or_no else np.float64
    return dataclasses.replace(
        fitted, predict=lambda features: fitted.predict(preprocessor.transform(np.asarray(features, precision)))
    )


def _with_strength(
    examples: Examples, strength: Strength, preprocessor: TransformerMixin, train: np.ndarray, val: np.ndarray
) -> FittedModel:
    """Fits the model whose strength is fixed, or has the lowest loss on folds of the training records.

    Args:
        examples: Labelled features.
        strength: What decides the regularisation.
        preprocessor: Transformer, of which an unfitted copy is fitted without each fold.
        train: Preprocessed features of the training records, `f64[n, d]`.
        val: Preprocessed features of the validation records, `f64[m, d]`.
    """
    log_odds, values = examples.kind.log_odds, _strengths(examples)
    if strength.fixed is not None:
        values = [strength.fixed if log_odds else 1 / (strength.fixed * len(train))]
    best, loss, told = 0, math.nan, ""
    if strength.folds is not None:
        best, loss = _on_folds(examples, preprocessor, strength.folds, values)
        told = f"lowest loss on {len(np.unique(strength.folds))} folds of the labelled training patients"
        told = "the strongest: too few labelled patients to choose by" if math.isnan(loss) else told
    ((_, outputs),) = _models(examples, train, examples.targets, [values[best]])
    metric = examples.value(outputs(val))
    selected = f"{'C' if log_odds else 'penalty'} = {values[best]:.2g} of {len(values)}, {told}"
    return FittedModel(
        predict=outputs,
        val_metric=metric,
        selected=selected if strength.fixed is None else f"C = {strength.fixed:.2g}, fixed",
        criterion=metric if strength.folds is None else -loss,
    )


def _strengths(examples: Examples) -> list[float]:
    """Returns the strengths C of a logistic regression, or the penalties of a ridge, strongest regularisation first."""
    return sorted(examples.kind.strengths) if examples.kind.log_odds else list(_PENALTIES)


def _on_folds(
    examples: Examples, preprocessor: TransformerMixin, folds: np.ndarray, values: Sequence[float]
) -> tuple[int, float]:
    """Chooses a strength by the mean loss over folds of the training records; of equal losses the strongest.

    The preprocessor is fitted anew without each fold.

    Args:
        examples: Labelled features.
        preprocessor: Unfitted transformer.
        folds: Fold of each training record, `int64[n]`.
        values: Strengths C, or penalties of a ridge, strongest regularisation first.

    Returns:
        The number of the strength and its loss; 0 and NaN where no fold leaves targets to fit.
    """
    kind, losses = examples.kind, []
    for fold in np.unique(folds):
        inner, held_out = folds != fold, folds == fold
        if kind.undefined(examples.targets[inner]):
            continue
        scaler = clone(preprocessor)
        train = scaler.fit_transform(np.asarray(examples.train[inner], np.float64))
        other = scaler.transform(np.asarray(examples.train[held_out], np.float64))
        targets = examples.targets
        path = _models(examples, train, targets[inner], values)
        losses.append([kind.loss(targets[held_out], outputs(other)) for _, outputs in path])
    if not losses:
        return 0, math.nan
    mean = np.mean(losses, axis=0)
    best = int(np.argmin(mean))
    return best, float(mean[best])


def _models(examples: Examples, train: np.ndarray, targets: np.ndarray, values: Sequence[float]) -> _Path:
    """Returns the linear models of some training records by strength, in the order of the strengths.

    Args:
        examples: Kind of the task.
        train: Preprocessed features of the training records, `f64[n, d]`.
        targets: Targets of these records, `[n]` or `[n, classes]`.
        values: Strengths C, or penalties for each training record of a ridge.
    """
    if not examples.kind.log_odds:
        weights, mean = _ridge_weights(train, targets, values)
        return [(value, functools.partial(_values, own, mean)) for value, own in zip(values, weights, strict=True)]
    path: list[tuple[float, _Outputs]] = []
    models = _regressions(examples, targets)
    for value in values:
        _fit_all(models, train, targets, value)
        path.append((value, functools.partial(_log_odds, copy.deepcopy(models), shape=targets.shape)))
    return path


def fit_nearest(examples: Examples, *, ks: Sequence[int] = NEIGHBOURS) -> FittedModel:
    """Predicts the mean over the k nearest training records by cosine, with k chosen on validation.

    Args:
        examples: Labelled features.
        ks: Numbers of neighbours to choose from; of equal metrics the largest is kept.

    Returns:
        The model.

    Raises:
        DataError: Features are not finite, the targets of the training or validation records do not define the primary
            metric, or there are fewer training records than the smallest k.
    """
    examples.check()
    train, targets = examples.train, examples.targets
    check_finite(np.concatenate([train, examples.val]), "numbers of embeddings")
    possible = [k for k in ks if k <= len(train)]
    if not possible:
        raise DataError(f"none of k = {', '.join(map(str, ks))} neighbours is among {len(train)} records")
    predicted = nearest_neighbours(train, targets, queries=examples.val, ks=possible)
    values = {k: examples.value(scores) for k, scores in predicted.items()}
    best = max(possible, key=lambda k: (values[k], k))
    return FittedModel(
        predict=lambda features: nearest_neighbours(train, targets, queries=features, ks=[best])[best],
        val_metric=values[best],
        selected=f"k = {best} of {len(possible)}",
        criterion=values[best],
    )


def _logistic(examples: Examples, train: np.ndarray, val: np.ndarray) -> FittedModel:
    """Fits a logistic regression for each class, with one strength for all.

    If the training records lack a label of a class, its score is always 0. Of strengths with equal metrics the
    strongest regularisation is kept.

    Args:
        examples: Labelled features.
        train: Preprocessed features of the training records, `f64[n, d]`.
        val: Preprocessed features of the validation records, `f64[m, d]`.
    """
    strengths = _strengths(examples)
    # From strong to weak each fit starts at the one before, which reaches the same optima in a fraction of the
    # iterations.
    models = _regressions(examples, examples.targets)
    shape = examples.targets.shape
    best, best_value, best_c = models, -np.inf, strengths[0]
    for c in strengths:
        _fit_all(models, train, examples.targets, c)
        if (value := examples.value(_log_odds(models, val, shape=shape))) > best_value:
            best, best_value, best_c = copy.deepcopy(models), value, c
    edge = "" if strengths[0] < best_c < strengths[-1] else ", at the edge of the sweep"
    selected = f"C = {best_c:.2g} of {len(strengths)}{edge}"
    return FittedModel(
        predict=lambda features: _log_odds(best, features, shape=shape),
        val_metric=best_value,
        selected=selected,
        criterion=best_value,
    )


def _regressions(examples: Examples, targets: np.ndarray) -> dict[int, LogisticRegression]:
    """Returns an unfitted logistic regression for each column of the targets that has both labels, by column."""
    columns = targets.reshape(len(targets), -1).T
    return {
        number: LogisticRegression(solver="lbfgs", max_iter=examples.kind.iterations, warm_start=True)
        for number, column in enumerate(columns)
        if not undefined_reason(column)
    }


def _fit_all(models: dict[int, LogisticRegression], train: np.ndarray, targets: np.ndarray, c: float) -> None:
    targets = targets.reshape(len(train), -1)
    for column, model in models.items():
        with warnings.catch_warnings():
            # Fits of separable labels do not converge at weak regularisation, which is then not chosen.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=c).fit(train, targets[:, column])


def _log_odds(models: dict[int, LogisticRegression], features: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the log odds of every column, `f64[m, …]`, 0 for a column without a model.

    Args:
        models: Fitted models by column.
        features: Preprocessed features, `f64[m, d]`.
        shape: Shape of the training targets, `[n]` or `[n, classes]`.
    """
    out = np.zeros((len(features), math.prod(shape[1:])))
    for column, model in models.items():
        out[:, column] = model.decision_function(features)
    return out.reshape(len(features), *shape[1:])


def _ridge(examples: Examples, train: np.ndarray, val: np.ndarray) -> FittedModel:
    """Solves ridge regression for all penalties from one singular value decomposition.

    Args:
        examples: Labelled features.
        train: Preprocessed features of the training records, `f64[n, d]`.
        val: Preprocessed features of the validation records, `f64[m, d]`.
    """
    weights, mean = _ridge_weights(train, examples.targets, _PENALTIES)
    values = [examples.value(val @ w + mean) for w in weights]
    # Of equal values the strongest penalty is kept, which comes first. The metric of a kind may be undefined for some
    # outputs, and the largest of values with NaN is NaN.
    best = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
    return FittedModel(
        predict=lambda features: features @ weights[best] + mean,
        val_metric=float(values[best]),
        selected=f"penalty = {_PENALTIES[best]:.2g} of {len(_PENALTIES)}",
        criterion=float(values[best]),
    )


def _values(weights: np.ndarray, mean: float, features: np.ndarray) -> np.ndarray:
    return features @ weights + mean


def _ridge_weights(train: np.ndarray, targets: np.ndarray, penalties: Sequence[float]) -> tuple[np.ndarray, float]:
    """Returns the weights of every penalty, `f64[penalties, d]`, and the mean of the targets."""
    mean = targets.mean()
    u, s, vt = np.linalg.svd(train, full_matrices=False)
    along = u.T @ (targets - mean)
    # The penalty is relative to the mean squared error, so that it means the same for few records and for many.
    weights = np.stack([vt.T @ (s / (s * s + penalty * len(train)) * along) for penalty in penalties])
    return weights, mean
