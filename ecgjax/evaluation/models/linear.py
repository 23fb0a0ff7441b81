"""Probes of frozen features for any kind of task: a linear model, or nearest neighbours.

All hyperparameters are chosen on validation records by the primary metric of the kind. The test records are not used in
any choice: they are scored once, by the model that was chosen on validation.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.base import TransformerMixin
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


def fit_linear(examples: Examples, *, preprocessor: TransformerMixin | None = None) -> FittedModel:
    """Fits a linear probe: logistic regression (one for each class), or ridge regression for a quantity.

    Args:
        examples: Labelled features.
        preprocessor: Unfitted scikit-learn transformer, fitted here on the training records alone; by default each
            feature is scaled to zero mean and unit standard deviation, and must be finite.

    Returns:
        The model that is best on validation.

    Raises:
        DataError: Features are not finite, or the targets of the training or validation records do not define the
            primary metric.
    """
    examples.check()
    if preprocessor is None:
        preprocessor = StandardScaler()
        check_finite(np.concatenate([examples.train, examples.val]), "numbers of embeddings")
    # float64 is affordable, since embeddings are few; in float32 lbfgs stops early on badly scaled directions.
    train = preprocessor.fit_transform(np.asarray(examples.train, np.float64))
    val = preprocessor.transform(np.asarray(examples.val, np.float64))
    fitted = (_logistic if examples.kind.log_odds else _ridge)(examples, train, val)
    # What is predicted of a yes or no is scaled in the features' own precision, as it always was: a result that was
    # published is to be found again to the last bit.
    precision = None if examples.kind.yes_or_no else np.float64
    return FittedModel(
        predict=lambda features: fitted.predict(preprocessor.transform(np.asarray(features, precision))),
        val_metric=fitted.val_metric,
        selected=fitted.selected,
    )


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
    targets, strengths = examples.targets.reshape(len(train), -1), sorted(examples.kind.strengths)
    columns = [column for column in range(targets.shape[1]) if not undefined_reason(targets[:, column])]
    # From strong to weak each fit starts at the one before, which reaches the same optima in a fraction of the
    # iterations.
    models = {
        column: LogisticRegression(solver="lbfgs", max_iter=examples.kind.iterations, warm_start=True)
        for column in columns
    }

    def scores(models: dict[int, LogisticRegression], features: np.ndarray) -> np.ndarray:
        out = np.zeros((len(features), targets.shape[1]))
        for column, model in models.items():
            out[:, column] = model.decision_function(features)
        return out.reshape(len(features), *examples.targets.shape[1:])

    best, best_value, best_c = models, -np.inf, strengths[0]
    for c in strengths:
        for column, model in models.items():
            with warnings.catch_warnings():
                # Fits of separable labels do not converge at weak regularisation, and validation chooses the strength.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=c).fit(train, targets[:, column])
        if (value := examples.value(scores(models, val))) > best_value:
            best, best_value, best_c = copy.deepcopy(models), value, c
    edge = "" if strengths[0] < best_c < strengths[-1] else ", at the edge of the sweep"
    selected = f"C = {best_c:.2g} of {len(strengths)}{edge}"
    return FittedModel(predict=lambda features: scores(best, features), val_metric=best_value, selected=selected)


def _ridge(examples: Examples, train: np.ndarray, val: np.ndarray) -> FittedModel:
    """Solves ridge regression for all penalties from one singular value decomposition.

    Args:
        examples: Labelled features.
        train: Preprocessed features of the training records, `f64[n, d]`.
        val: Preprocessed features of the validation records, `f64[m, d]`.
    """
    mean = examples.targets.mean()
    u, s, vt = np.linalg.svd(train, full_matrices=False)
    along = u.T @ (examples.targets - mean)
    # The penalty is relative to the mean squared error, so that it means the same for few records and for many.
    weights = np.stack([vt.T @ (s / (s * s + penalty * len(train)) * along) for penalty in _PENALTIES])
    values = [examples.value(val @ w + mean) for w in weights]
    # Of equal values the strongest penalty is kept, which comes first. The metric of a kind may be undefined for some
    # outputs, and the largest of values with NaN is NaN.
    best = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
    return FittedModel(
        predict=lambda features: features @ weights[best] + mean,
        val_metric=float(values[best]),
        selected=f"penalty = {_PENALTIES[best]:.2g} of {len(_PENALTIES)}",
    )
