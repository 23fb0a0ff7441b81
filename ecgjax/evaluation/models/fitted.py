"""Labelled features that a model is fitted on, and the fitted model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.prepared.fold_labels import SPREAD_LABELS
from ecgjax.evaluation.models.kinds import NO_MODEL, QuestionKind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Records to train on, and records of other patients to choose hyperparameters by.

    Attributes:
        kind: Kind of the task.
        train: Features of the training records, `[n, d]`.
        targets: Targets of the training records, `[n]` or `[n, classes]`.
        val: Features of the validation records, `[m, d]`.
        val_targets: Targets of the validation records, `[m]` or `[m, classes]`.
        classes: Names of the columns of the targets where a record has several labels.
    """

    kind: QuestionKind
    train: np.ndarray
    targets: np.ndarray
    val: np.ndarray
    val_targets: np.ndarray
    classes: Sequence[str] = ()

    def check(self) -> None:
        """Raises an error for labels with which nothing can be fitted or chosen.

        Raises:
            DataError: The targets of the training or of the validation records do not define the primary metric.
        """
        for side, targets in (("train", self.targets), ("validation", self.val_targets)):
            if reason := self.kind.undefined(targets):
                raise DataError(
                    f"no model can be fitted: {reason} in the {side} split. Raise config.probe.label_fraction, ask "
                    f"another question, or give the split more folds. {SPREAD_LABELS}",
                    reason=NO_MODEL,
                )

    def value(self, outputs: np.ndarray) -> float:
        """Returns the primary metric of outputs for the validation records."""
        return self.kind.value(self.val_targets, outputs, classes=self.classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedModel:
    """A model that was fitted on training records and chosen on validation.

    Attributes:
        predict: Function of features `[n, d]` that returns log odds, scores or values of a quantity, `f64[n]` or
            `f64[n, classes]`.
        val_metric: Primary metric on validation of the chosen hyperparameters, which is hence optimistic.
        selected: Description of the chosen hyperparameters, such as `"C = 0.001 of 13"`.
        criterion: Value that the choice maximised, by which models of one task can be chosen among: `val_metric`, or
            minus the loss on the folds that the hyperparameters were chosen on. NaN where nothing was chosen.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    val_metric: float
    selected: str
    criterion: float = math.nan
