"""Nested cross-validation of a frozen representation: inner folds choose the strength, outer folds are scored.

Every record is scored once, by a model that does not depend on the record's patient in any way: not by its weights, nor
by the scaling or the principal components before it, nor by the choice of the strength on folds of the other patients
(Varma and Simon 2006: a result is optimistic if the strength is chosen on the folds that are reported).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

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
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import NO_MODEL

#: Function of the number of training records that returns an unfitted scikit-learn transformer.
MakePreprocessor = Callable[[int], TransformerMixin]

_MAX_ITERATIONS = 2000

_NOTHING_TO_CHOOSE_BY = "too few patients of one label to choose a model by"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NestedFit:
    """A fitted model, and the losses that its strength was chosen by.

    Attributes:
        scores: Function of features `[n, d]` that returns log odds, `f64[n]`.
        c: Inverse L2 strength C, as in scikit-learn.
        losses: Mean cross-entropy over the inner folds of every strength tried, in nats; empty where there were no
            inner folds to choose by.
    """

    scores: Callable[[np.ndarray], np.ndarray]
    c: float
    losses: tuple[float, ...]


def patient_folds(labels: np.ndarray, patients: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """Divides patients into folds, with as equal shares of positives as the patients allow.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        patients: Patient (or group) code of each record, `int[n]`.
        folds: Number of folds, at least 2.
        seed: Seed of the division.

    Returns:
        The fold of each record, `int64[n]`; all records of a patient are in the same fold.

    Raises:
        DataError: Fewer patients have a positive record, or a negative one, than there are folds.
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


class FoldAnswers(NamedTuple):
    """Predictions for one fold.

    Attributes:
        outputs: Log odds of the records of the fold, `[n]`.
        chosen: Chosen strength C of a logistic regression; None for other models.
        reason: Reason why nothing could be chosen, or why there are no predictions; empty where something was chosen.
        trained: Number of records that the model was trained with; None for all training records.
    """

    outputs: np.ndarray | None
    chosen: float | None = None
    reason: str = ""
    trained: int | None = None


#: Function of the training records and of the records of a fold, both `int64[...]`, that answers the latter.
AnswerFold = Callable[[np.ndarray, np.ndarray], FoldAnswers]


def cross_validate(
    answer: AnswerFold,
    labels: np.ndarray,
    *,
    patients: np.ndarray,
    patient_ids: np.ndarray,
    folds: np.ndarray,
    fraction: float = 1.0,
    seed: int = 0,
) -> Answers:
    """Predicts every record by a model that was trained and chosen without the fold of the record's patient.

    Args:
        answer: Function that trains on some records and predicts a fold, such as `nested_logistic` returns.
        labels: Labels, `[n]`, 0 or 1.
        patients: Patient (or group) code of each record, `int[n]`.
        patient_ids: Patient id of each record, `str[n]`, by which a fraction of the patients is drawn
            (`labels.draw_patients`).
        folds: Fold of each record, `int[n]`, from `patient_folds`.
        fraction: Share of the training patients of every fold to train with; the patients of a smaller share are among
            those of a larger one.
        seed: Seed of the draw of patients.

    Returns:
        The predictions; without outputs, and with the reason, if a fold allows no model.

    Raises:
        DataError: A label is not 0 or 1, or lengths differ.
    """
    labels, _ = check_binary(labels, folds)
    scores, records, positives = np.empty(len(labels), np.float32), [], []
    chosen, unchosen, reason = [], 0, ""
    for fold in range(int(folds.max()) + 1):
        train = np.flatnonzero(folds != fold)
        drawn = draw_patients(patients[train], patient_ids=patient_ids[train], fraction=fraction, seed=seed)
        train, held_out = train[drawn], np.flatnonzero(folds == fold)
        positives.append(int(labels[train].sum()))
        reason = undefined_reason(labels[train])
        found = FoldAnswers(None, reason=reason) if reason else answer(train, held_out)
        records.append(len(train) if found.trained is None else found.trained)
        if found.outputs is None:
            reason = f"fold {fold + 1}: {found.reason}"
            break
        scores[held_out] = found.outputs
        unchosen += bool(found.reason)
        chosen += [] if found.chosen is None else [found.chosen]
    return Answers(
        outputs=None if reason else scores, folds=folds, chosen=tuple(chosen), unchosen=unchosen,
        records=float(np.mean(records)), positives=min(positives), reason=reason,
    )  # fmt: skip


def nested_logistic(
    features: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    patients: np.ndarray,
    strengths: Sequence[float],
    inner_folds: int,
    make_preprocessor: MakePreprocessor,
    seed: int = 0,
) -> AnswerFold:
    """Returns a function that predicts a fold by logistic regression, with a strength that is chosen on inner folds.

    Args:
        features: Features, `[n, d]`, of every model to choose from, by the lowest loss on the inner folds; of equal
            losses, and where nothing can be chosen, the first is kept.
        labels: Labels, `[n]`, 0 or 1.
        patients: Patient (or group) code of each record, `int[n]`.
        strengths: Inverse L2 strengths C to choose from.
        inner_folds: Number of folds of the training patients to choose by; there are fewer where too few patients have
            a label.
        make_preprocessor: Function that makes the transformer that is fitted on training records before the regression.
        seed: Seed of the inner folds.
    """

    # With matrices this small a second thread makes every fit slower, on busy cores fifty times.
    @threadpool_limits.wrap(limits=1)
    def answer(train: np.ndarray, held_out: np.ndarray) -> FoldAnswers:
        fits = [
            fit_nested(
                own[train], labels[train], patients=patients[train], strengths=strengths, inner_folds=inner_folds,
                make_preprocessor=make_preprocessor, seed=seed,
            )
            for own in features
        ]  # fmt: skip
        fit, own = min(zip(fits, features, strict=True), key=lambda each: min(each[0].losses, default=0.0))
        return FoldAnswers(fit.scores(own[held_out]), fit.c, "" if fit.losses else _NOTHING_TO_CHOOSE_BY)

    return answer


def chosen_on_a_fold(
    answers: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray | None],
    labels: np.ndarray,
    *,
    patients: np.ndarray,
    inner_folds: int,
    seed: int = 0,
) -> AnswerFold:
    """Returns a function that predicts a fold by a model chosen on the first inner fold and trained on the others.

    Args:
        answers: Function of the rows to train on, to choose by and to predict, all `int64[...]`, that returns log odds
            of the last, or None.
        labels: Labels, `[n]`, 0 or 1.
        patients: Patient (or group) code of each record, `int[n]`.
        inner_folds: Number of folds of the training patients; there are fewer where too few patients have a label.
        seed: Seed of the inner folds.
    """

    def answer(train: np.ndarray, held_out: np.ndarray) -> FoldAnswers:
        for inner, val in _inner_splits(labels[train], patients[train], folds=inner_folds, seed=seed):
            if undefined_reason(labels[train[val]]):
                continue
            try:
                return FoldAnswers(answers(train[inner], train[val], held_out), trained=len(inner))
            except DataError as error:
                if error.reason != NO_MODEL:
                    raise
                return FoldAnswers(None, reason=str(error))
        return FoldAnswers(None, reason=_NOTHING_TO_CHOOSE_BY)

    return answer


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
    """Chooses a strength by the cross-entropy on inner folds of patients, and fits a model with it to all records.

    This does the same as scikit-learn's `GridSearchCV` over a pipeline, except that the preprocessor is fitted once for
    each fold and not for each strength, and that each strength starts at the solution of the one before. The
    cross-entropy exists where a fold has no positive record; an AUROC would not.

    Args:
        features: Features, `[n, d]`.
        labels: Labels, `[n]`, 0 or 1, with both present.
        patients: Patient (or group) code of each record, `int[n]`.
        strengths: Inverse L2 strengths C to choose from; of equal losses the strongest regularisation is kept. It is
            also taken where fewer than two patients have one of the labels, so that nothing can be chosen.
        inner_folds: Number of inner folds; there are fewer where fewer patients have one of the labels.
        make_preprocessor: Function that makes the transformer that is fitted on training records before the regression.
        seed: Seed of the inner folds.
    """
    strengths = sorted(strengths)
    losses = []
    for train, held_out in _inner_splits(labels, patients, folds=inner_folds, seed=seed):
        path = _Path(features[train], labels[train], make_preprocessor)
        losses.append(path.losses(strengths, features[held_out], labels[held_out]))
    mean = np.mean(losses, axis=0) if losses else np.zeros(0)
    best = strengths[int(np.argmin(mean))] if len(mean) else strengths[0]
    model = _Path(features, labels, make_preprocessor)
    return NestedFit(scores=model.fit(best), c=best, losses=tuple(mean.tolist()))


def _inner_splits(
    labels: np.ndarray, patients: np.ndarray, *, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns rows to train on and held-out rows, `int64[…]` each, of inner folds whose training rows have both labels.

    Args:
        labels: Labels, `[n]`, 0 or 1.
        patients: Patient code of each record, `int[n]`.
        folds: Number of folds; there are fewer where fewer patients have one of the labels, and none below two.
        seed: Seed of the folds.
    """
    folds = min(folds, *(len(np.unique(patients[labels == value])) for value in (0, 1)))
    if folds < 2:
        return []
    fold_of = patient_folds(labels, patients, folds=folds, seed=seed)
    splits = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(folds)]
    return [(train, held_out) for train, held_out in splits if len(held_out) and not undefined_reason(labels[train])]


class _Path:
    """Logistic regressions of one training set, each of which starts at the solution of the one fitted before."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, make_preprocessor: MakePreprocessor):
        self._preprocessor = make_preprocessor(len(features))
        # The features are float64 because lbfgs in float32 stops early on badly scaled directions.
        self._features = self._preprocessor.fit_transform(np.asarray(features, np.float64))
        self._labels = labels
        self._model = LogisticRegression(solver="lbfgs", max_iter=_MAX_ITERATIONS, warm_start=True)

    def fit(self, c: float) -> Callable[[np.ndarray], np.ndarray]:
        """Fits with a strength, and returns a function from features, `[n, d]`, to log odds, `f64[n]`.

        The function is valid until the next fit.

        Args:
            c: Inverse L2 strength C.
        """
        with warnings.catch_warnings():
            # Fits of separable labels do not converge at weak regularisation, which the inner folds then do not choose.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.set_params(C=c).fit(self._features, self._labels)
        return lambda features: self._model.decision_function(self._transform(features))

    def losses(self, strengths: Sequence[float], features: np.ndarray, labels: np.ndarray) -> list[float]:
        """Fits with each strength in turn, and returns the mean cross-entropy of each on other records, in nats.

        Args:
            strengths: Inverse L2 strengths C.
            features: Features of the other records, `[m, d]`.
            labels: Labels of the other records, `[m]`, 0 or 1.
        """
        transformed = self._transform(features)
        found = []
        for c in strengths:
            self.fit(c)
            found.append(float(log_loss(labels, self._model.predict_proba(transformed), labels=[0, 1])))
        return found

    def _transform(self, features: np.ndarray) -> np.ndarray:
        return self._preprocessor.transform(np.asarray(features, np.float64))
