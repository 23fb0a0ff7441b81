"""Gradient-boosted trees on measurements, for any kind of task: a baseline from a table of intervals, without an
encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from data_pipelines.errors import DataError
from ecgjax.data.tasks import Kind
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.models import selection
from ecgjax.evaluation.models.linear import FrozenProbe

#: Numbers of leaves to choose from, and for each the number of trees up to which one is chosen.
_LEAVES = (4, 15)
_TREES = 150
_LEARNING_RATE = 0.05

#: Trees by the column of the targets that they predict.
_Models = Mapping[int, HistGradientBoostingClassifier | HistGradientBoostingRegressor]


def fit_boosted(
    kind: Kind,
    train_features: np.ndarray,
    train_targets: np.ndarray,
    *,
    val_features: np.ndarray,
    val_targets: np.ndarray,
    classes: Sequence[str] = (),
    seed: int,
) -> FrozenProbe:
    """Fits gradient-boosted trees whose size and number are chosen on validation; missing values take their own branch.

    Args:
        kind: Kind of the task, `"binary"`, `"multilabel"` or `"quantity"`.
        train_features: Features of the training records, `[n, d]`, NaN where missing.
        train_targets: Targets of the training records, `[n]`, or `[n, classes]`: there are trees for every class, all
            of one size and number. A class that training records lack a label of is always answered 0.
        val_features: Features of the validation records, `[m, d]`, of patients that train does not have.
        val_targets: Targets of the validation records, `[m]`, or `[m, classes]`.
        classes: Names of the columns of a multi-label task.
        seed: Seed of the trees.

    Raises:
        DataError: Train or validation does not define the task's metric.
    """
    for split, targets in (("train", train_targets), ("validation", val_targets)):
        if reason := selection.undefined(kind, targets):
            raise DataError(f"no trees can be fitted: {reason} in the {split} split", reason=selection.NO_MODEL)
    best: tuple[_Models, int, int] = ({}, 0, 0)
    best_value = -np.inf
    for leaves in _LEAVES:
        models = _fit(kind, train_features, train_targets, leaves=leaves, seed=seed)
        for trees, outputs in enumerate(_staged(kind, models, val_features, classes=len(classes)), start=1):
            value = selection.primary(kind, val_targets, outputs, classes=classes)
            if value > best_value:
                best, best_value = (models, trees, leaves), value
    models, trees, leaves = best
    return FrozenProbe(
        predict=lambda features: next(
            itertools.islice(_staged(kind, models, features, classes=len(classes)), trees - 1, None)
        ),
        val_metric=float(best_value),
        selected=f"{trees} trees of {leaves} leaves",
    )


def _fit(kind: Kind, features: np.ndarray, targets: np.ndarray, *, leaves: int, seed: int) -> _Models:
    kind_of_trees = HistGradientBoostingRegressor if kind == "quantity" else HistGradientBoostingClassifier

    def make() -> HistGradientBoostingRegressor | HistGradientBoostingClassifier:
        return kind_of_trees(
            max_leaf_nodes=leaves,
            max_iter=_TREES,
            learning_rate=_LEARNING_RATE,
            early_stopping=False,
            random_state=seed,
        )

    if kind != "multilabel":
        return {0: make().fit(features, targets)}
    columns = [column for column in range(targets.shape[1]) if not undefined_reason(targets[:, column])]
    return {column: make().fit(features, targets[:, column]) for column in columns}


def _staged(kind: Kind, models: _Models, features: np.ndarray, *, classes: int) -> Iterator[np.ndarray]:
    """Yields the outputs of the first tree of every class, then those of the first two, and so on."""
    if kind == "quantity":
        yield from models[0].staged_predict(features)
    elif kind == "binary":
        yield from (scores.ravel() for scores in models[0].staged_decision_function(features))
    else:
        for stage in zip(*(model.staged_decision_function(features) for model in models.values()), strict=True):
            out = np.zeros((len(features), classes))
            for column, scores in zip(models, stage, strict=True):
                out[:, column] = scores.ravel()
            yield out
