"""Nested cross-validation of a frozen representation: folds of patients, a strength chosen inside, scores from outside.

Every record is scored once, by a model of which nothing has seen its patient: not the weights, not the scaling or the
principal components before them, and not the choice of the strength, which is made by folds of the patients that are
left (Varma and Simon 2006: chosen on the very folds that are reported, the result is optimistic).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from data_pipelines.errors import DataError
from ecgjax.data.labels import draw_patients
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.metrics.weighting import check_binary
from ecgjax.evaluation.models.out_of_fold import OutOfFold

#: Number of training records → unfitted scikit-learn transformer.
MakePreprocessor = Callable[[int], TransformerMixin]

_MAX_ITERATIONS = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class NestedFit:
    """A model and how its strength was chosen.

    Attributes:
        scores: features `[n, d]` → log odds `f64[n]`.
        c: inverse L2 strength, as in scikit-learn.
        losses: mean cross-entropy over the inner folds of every strength tried, in nats; none where there was nothing
            to choose by.
    """

    scores: Callable[[np.ndarray], np.ndarray]
    c: float
    losses: tuple[float, ...]


def patient_folds(labels: np.ndarray, patients: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """Divides patients among folds, positives as evenly as their patients allow.

    Args:
        labels: `[n]` of 0 and 1.
        patients: `int[n]`, patient (group) code of each record.
        folds: how many, at least 2.
        seed: of the division.

    Returns:
        `int64[n]`, the fold of each record; all records of a patient have the same.

    Raises:
        DataError: fewer patients with a positive, or with a negative, record than folds.
    """
    for value, name in ((1, "positive"), (0, "negative")):
        number = len(np.unique(patients[labels == value]))
        if number < folds:
            raise DataError(f"{number} patients with a {name} record are too few for {folds} folds; ask for fewer")
    division = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    fold_of = np.empty(len(labels), np.int64)
    for fold, (_, held_out) in enumerate(division.split(np.zeros(len(labels)), labels, patients)):
        fold_of[held_out] = fold
    return fold_of


# Of matrices this small a second thread makes every fit slower, on busy cores fifty times.
@threadpool_limits.wrap(limits=1)
def cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    patients: np.ndarray,
    patient_ids: np.ndarray,
    folds: np.ndarray,
    strengths: Sequence[float],
    inner_folds: int,
    make_preprocessor: MakePreprocessor,
    fraction: float = 1.0,
    seed: int = 0,
) -> OutOfFold:
    """Scores every record by a logistic regression that was trained and chosen without its patient's fold.

    Args:
        features: `[n, d]`.
        labels: `[n]` of 0 and 1.
        patients: `int[n]`, patient (group) code of each record.
        patient_ids: `str[n]`, by which a fraction of the patients is drawn (`labels.draw_patients`).
        folds: `int[n]`, from `patient_folds`.
        strengths: inverse L2 strengths C to choose from.
        inner_folds: folds of the training patients to choose by, fewer where too few have a label.
        make_preprocessor: makes what is fitted on training records before the regression.
        fraction: share of the training patients of every fold to train with, a smaller one being part of a larger.
        seed: of the draw and of the inner folds.

    Raises:
        DataError: a label is not 0 or 1, or lengths differ.
    """
    labels, _ = check_binary(labels, folds)
    scores, unchosen, records, positives = np.empty(len(labels), np.float32), 0, [], []
    chosen: list[float] = []
    for fold in range(int(folds.max()) + 1):
        train = np.flatnonzero(folds != fold)
        drawn = draw_patients(patients[train], patient_ids=patient_ids[train], fraction=fraction, seed=seed)
        train, held_out = train[drawn], np.flatnonzero(folds == fold)
        records.append(len(train))
        positives.append(int(labels[train].sum()))
        if reason := undefined_reason(labels[train]):
            return OutOfFold(
                scores=None, folds=folds, chosen=tuple(chosen), unchosen=unchosen, records=float(np.mean(records)),
                positives=min(positives), reason=f"fold {fold + 1}: {reason}",
            )  # fmt: skip
        fit = fit_nested(
            features[train],
            labels[train],
            patients=patients[train],
            strengths=strengths,
            inner_folds=inner_folds,
            make_preprocessor=make_preprocessor,
            seed=seed,
        )
        scores[held_out] = fit.scores(features[held_out])
        chosen.append(fit.c)
        unchosen += not fit.losses
    return OutOfFold(
        scores=scores, folds=folds, chosen=tuple(chosen), unchosen=unchosen, records=float(np.mean(records)),
        positives=min(positives),
    )  # fmt: skip


def fit_nested(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    patients: np.ndarray,
    strengths: Sequence[float],
    inner_folds: int,
    make_preprocessor: MakePreprocessor,
    seed: int = 0,
) -> NestedFit:
    """Chooses a strength by the cross-entropy on inner folds of patients, and trains with it on all records.

    What scikit-learn's `GridSearchCV` does over a pipeline, but for fitting what stands before the regression once a
    fold and not once a strength, and for starting each strength at the one before. The cross-entropy exists where a
    fold has no positive record; an AUROC would not.

    Args:
        features: `[n, d]`.
        labels: `[n]` of 0 and 1, both of which there are.
        patients: `int[n]`, patient (group) code of each record.
        strengths: inverse L2 strengths C; of equal losses the strongest regularisation is kept. It is also taken where
            fewer than two patients have one of the labels, so that nothing can be chosen.
        inner_folds: how many, fewer where fewer patients have one of the labels.
        make_preprocessor: makes what is fitted on training records before the regression.
        seed: of the inner folds.
    """
    strengths = sorted(strengths)
    losses = []
    for train, held_out in _inner_splits(labels, patients, folds=inner_folds, seed=seed):
        path = _Path(features[train], labels[train], make_preprocessor)
        losses.append([path.loss(c, features[held_out], labels[held_out]) for c in strengths])
    mean = np.mean(losses, axis=0) if losses else np.zeros(0)
    best = strengths[int(np.argmin(mean))] if len(mean) else strengths[0]
    model = _Path(features, labels, make_preprocessor)
    return NestedFit(scores=model.fit(best), c=best, losses=tuple(mean.tolist()))


def _inner_splits(
    labels: np.ndarray, patients: np.ndarray, *, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns train and held-out rows of the inner folds whose training records have both labels."""
    folds = min(folds, *(len(np.unique(patients[labels == value])) for value in (0, 1)))
    if folds < 2:
        return []
    fold_of = patient_folds(labels, patients, folds=folds, seed=seed)
    splits = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(folds)]
    return [(train, held_out) for train, held_out in splits if len(held_out) and not undefined_reason(labels[train])]


class _Path:
    """Logistic regressions of one training set, from strong regularisation to weak, each starting at the one before."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, make_preprocessor: MakePreprocessor):
        self._preprocessor = make_preprocessor(len(features))
        # float64: lbfgs in float32 stops early on badly scaled directions.
        self._features = self._preprocessor.fit_transform(np.asarray(features, np.float64))
        self._labels = labels
        self._model = LogisticRegression(solver="lbfgs", max_iter=_MAX_ITERATIONS, warm_start=True)

    def fit(self, c: float) -> Callable[[np.ndarray], np.ndarray]:
        """Trains with a strength; returns features → log odds, of this strength until the next is trained."""
        with warnings.catch_warnings():
            # Separable labels do not converge at weak strengths, which the inner folds then do not choose.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.set_params(C=c).fit(self._features, self._labels)
        return lambda features: self._model.decision_function(self._transform(features))

    def loss(self, c: float, features: np.ndarray, labels: np.ndarray) -> float:
        """Trains with a strength; returns the mean cross-entropy on other records, in nats."""
        self.fit(c)
        return float(log_loss(labels, self._model.predict_proba(self._transform(features)), labels=[0, 1]))

    def _transform(self, features: np.ndarray) -> np.ndarray:
        return self._preprocessor.transform(np.asarray(features, np.float64))
