"""Predictions (answers) of a model for a task."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.metrics.ranking import RankedScores
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.evaluation.models.fitted import Examples, FittedModel
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.system.files import replacing

Loaded = TypeVar("Loaded")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Predictions of a model that was fitted on training records and chosen on validation, one for each record.

    Attributes:
        outputs: Log odds, or values of a quantity, for the test records, `[n]` or `[n, classes]`; None where labels
            allow no model. In a cross-validation outputs of different folds come from different models and are
            comparable only within a fold.
        reason: Reason why there are no outputs; empty where there are.
        selected: Description of what was selected on validation, such as `"C = 0.001 of 13"`.
        val_metric: Primary metric on validation of what was selected; NaN without a model.
        val_outputs: Outputs for the validation records; None where they are not kept.
        records: Number of training records, in a cross-validation the mean over folds.
        positives: Number of positive training records: of the class that has most, or in a cross-validation of the fold
            that has fewest; None for a quantity.
        folds: Fold of each test record, `int64[n]`; None outside of a cross-validation.
        chosen: Chosen inverse L2 strength C of each fold; empty for models without one.
        unchosen: Number of folds with too few labels to choose by, which have the strongest regularisation.
        thresholds: Probabilities from which on the answer is yes, one for each output, of a model that brings its own
            and whose outputs are calibrated; NaN where it has none. None where both are chosen on validation.
    """

    outputs: np.ndarray | None
    reason: str = ""
    selected: str = ""
    val_metric: float = math.nan
    val_outputs: np.ndarray | None = None
    records: float = 0
    positives: int | None = None
    folds: np.ndarray | None = None
    chosen: tuple[float, ...] = ()
    unchosen: int = 0
    thresholds: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Writes the predictions of a cross-validation as one NumPy archive, either completely or not at all."""
        words = {name: getattr(self, name) for name in ("chosen", "unchosen", "records", "positives", "reason")}
        arrays = {"folds": self.folds, "scores": self.outputs}
        save_archive(path, words, {name: values for name, values in arrays.items() if values is not None})

    @classmethod
    def load(cls, path: Path) -> Answers:
        """Reads an archive that `save` wrote, and returns its predictions.

        Raises:
            DataError: The file is damaged.
        """

        def make(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Answers:
            chosen = tuple(words.pop("chosen"))
            return cls(outputs=arrays.get("scores"), folds=arrays["folds"], chosen=chosen, **words)

        return load_archive(path, make)


def save_archive(path: Path, words: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes plain values and arrays as one NumPy archive; an interruption leaves no partial file.

    Args:
        path: Path of the archive; its folder is made if it is missing.
        words: Values that JSON can hold.
        arrays: Arrays by name.
    """
    # NumPy would add a suffix to a path, but writes an open file as it is named.
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, told=np.frombuffer(json.dumps(words).encode(), np.uint8), allow_pickle=False, **arrays)


def load_archive(path: Path, make: Callable[[dict[str, Any], dict[str, np.ndarray]], Loaded]) -> Loaded:
    """Reads an archive that `save_archive` wrote.

    Args:
        path: Path of the archive.
        make: Function from the plain values and the arrays by name to what they describe.

    Raises:
        DataError: The file is damaged, or lacks what `make` needs.
    """
    try:
        # NumPy leaves the file open if the archive is damaged, and so it is opened here.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return make(json.loads(arrays.pop("told").tobytes()), arrays)
    except (EOFError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: this result is damaged ({error}); remove it to make it again") from error


def examples_of(features: SplitFeatures, data: ProbeData) -> Examples:
    """Returns training and validation features with the labels of their records.

    Args:
        features: Features of the records of `data`.
        data: Labelled records of a task.
    """
    return Examples(
        kind=kind_of(data.task), train=features.train, targets=data.train.labels, val=features.val,
        val_targets=data.val.labels, classes=data.classes,
    )  # fmt: skip


def answers_of(model: FittedModel, features: SplitFeatures, data: ProbeData) -> Answers:
    """Returns the predictions of a fitted model for the validation and the test records.

    Args:
        model: Fitted model.
        features: Features of the records of `data`.
        data: Labelled records of a task.
    """
    return Answers(
        outputs=model.predict(features.test),
        val_outputs=model.predict(features.val),
        val_metric=model.val_metric,
        selected=model.selected,
        records=len(data.train.records),
        positives=kind_of(data.task).positives(data.train.labels),
    )


def fold_mean_auroc(labels: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> Metric:
    """Returns the mean over folds of the AUROC within each, as a metric.

    Scores of different folds come from different models, and a pooled AUROC would compare them with each other (Forman
    and Scholz 2010). The mean is undefined where a fold lacks a label: a mean over whichever folds have both would be
    another metric in every resample.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        scores: Scores, `[n]`, larger for a more likely positive.
        folds: Fold of each record, `int[n]`.
    """
    rows = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    ranked = [RankedScores(labels[own], scores[own]) for own in rows]

    def metric(weights: np.ndarray) -> np.ndarray:
        weights = np.atleast_2d(weights)
        return np.mean([each.auroc(weights[:, own]) for each, own in zip(ranked, rows, strict=True)], axis=0)

    return metric
