"""Gradient-boosted trees on measurements, for any kind of task: a baseline from a table of intervals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.models.fitted import Examples, FittedModel

#: Numbers of leaves to choose from, and for each the number of trees up to which one is chosen.
_LEAVES = (4, 15)
_TREES = 150
_LEARNING_RATE = 0.05

#: Smallest number of records in a leaf, and the share of the records that it is where these are few.
_LEAF_RECORDS, _LEAF_SHARE = 20, 0.1

#: Trees by the column of the targets that they predict.
_Models = Mapping[int, HistGradientBoostingClassifier | HistGradientBoostingRegressor]


def fit_boosted(examples: Examples, *, seed: int) -> FittedModel:
    """Fits gradient-boosted trees whose size and number are chosen on validation; missing values are allowed.

    With several classes, each class has trees of its own, all of one size and number. If the training records lack a
    label of a class, its prediction is always 0.

    Args:
        examples: Labelled features, NaN where missing.
        seed: Seed of the trees.

    Raises:
        DataError: The labels of the training or the validation records do not define the primary metric.
    """
    examples.check()
    best: tuple[_Models, int, int] = ({}, 0, 0)
    best_value = -np.inf
    for leaves in _LEAVES:
        models = _fit(examples, leaves=leaves, seed=seed)
        for trees, outputs in enumerate(_staged(examples, models, examples.val), start=1):
            # Of equal values the smaller model is kept, which comes first.
            if (value := examples.value(outputs)) > best_value:
                best, best_value = (models, trees, leaves), value
    models, trees, leaves = best
    return FittedModel(
        predict=lambda features: next(itertools.islice(_staged(examples, models, features), trees - 1, None)),
        val_metric=float(best_value),
        selected=f"{trees} trees of {leaves} leaves",
    )


def _fit(examples: Examples, *, leaves: int, seed: int) -> _Models:
    log_odds, columns = examples.kind.log_odds, examples.targets.reshape(len(examples.targets), -1).T
    trees = HistGradientBoostingClassifier if log_odds else HistGradientBoostingRegressor
    settings = {"max_leaf_nodes": leaves, "max_iter": _TREES, "learning_rate": _LEARNING_RATE, "random_state": seed}
    # Forty records cannot be divided into leaves of twenty, and trees would know nothing where labels are few.
    smallest = min(_LEAF_RECORDS, max(1, int(_LEAF_SHARE * len(examples.targets))))
    return {
        number: trees(**settings, min_samples_leaf=smallest, early_stopping=False).fit(examples.train, column)
        for number, column in enumerate(columns)
        if not (log_odds and undefined_reason(column))
    }


def _staged(examples: Examples, models: _Models, features: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the outputs of the first tree of every column, of the first two, and so on, in the shape of the targets.

    Args:
        examples: Labelled features.
        models: Trees by the column of the targets that they predict.
        features: Features to predict for, `[n, d]`.
    """
    stages = (
        (model.staged_decision_function if examples.kind.log_odds else model.staged_predict)(features)
        for model in models.values()
    )
    for stage in zip(*stages, strict=True):
        shape = (len(features), *examples.targets.shape[1:])
        out = np.zeros((len(features), int(np.prod(shape[1:]))))
        for column, outputs in zip(models, stage, strict=True):
            out[:, column] = outputs.ravel()
        yield out.reshape(shape)
