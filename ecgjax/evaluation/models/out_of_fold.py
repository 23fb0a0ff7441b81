"""Scores of a cross-validation: each record is scored by the model of the fold that it was left out of."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.ranking import RankedScores
from ecgjax.evaluation.metrics.weighting import Metric
from ecgjax.system.files import replacing


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Scores of all records of a question.

    Attributes:
        scores: Log odds, `f32[n]`; None where a fold could not be trained. Scores of different folds come from
            different models and are comparable only within a fold.
        folds: Fold of each record, `int64[n]`, from 0 to the number of folds − 1.
        chosen: Chosen strength C of each fold.
        unchosen: Number of folds with too few labels to choose by, which have the strongest regularisation.
        records: Mean number of training records of a fold.
        positives: Fewest positive training records of a fold.
        reason: Reason why there are no scores; empty where there are.
    """

    scores: np.ndarray | None
    folds: np.ndarray
    chosen: tuple[float, ...]
    unchosen: int
    records: float
    positives: int
    reason: str = ""

    def save(self, path: Path) -> None:
        """Writes one NumPy archive, either completely or not at all."""
        told = {name: getattr(self, name) for name in ("chosen", "unchosen", "records", "positives", "reason")}
        arrays = {"folds": self.folds} if self.scores is None else {"folds": self.folds, "scores": self.scores}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, told=np.frombuffer(json.dumps(told).encode(), np.uint8), allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> OutOfFold:
        """Reads an archive that `save` wrote.

        Raises:
            DataError: The file is damaged.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                told: dict[str, Any] = json.loads(arrays["told"].tobytes())
                told["chosen"] = tuple(told["chosen"])
                scores = arrays.get("scores")
                return cls(scores=scores, folds=arrays["folds"], **told)
        except (EOFError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: damaged scores ({error}); remove the file to make them again") from error


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
