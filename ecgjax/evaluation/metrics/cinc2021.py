"""The score of the PhysioNet/CinC Challenge 2021, which weights confusions between diagnoses by their harm to patients.

Source: `evaluate_model.py` and the final `weights.csv` (26 classes) of https://github.com/physionetchallenges/evaluation-2021;
Reyna et al., "Will Two Do? Varying Dimensions in Electrocardiography", Computing in Cardiology 48 (2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.metadata.snomed import SCORED_CLASSES
from ecgjax.evaluation.metrics.weighting import Metric

#: Class that a model without any information answers; such a model scores 0.
NORMAL = "NSR"

#: Position of each class on a line that reproduces the challenge's weights. The weight of answering one class for
#: another is .5 minus their distance, and that of the right class is 1: these 26 numbers and `OFF_THE_LINE` give all
#: 676 weights of the published table.
POSITIONS: Mapping[str, float] = {
    "AF": 0.0,
    "AFL": 0.0,
    "BBB": 0.025,
    "Brady": 0.2,
    "CLBBB|LBBB": 0.025,
    "CRBBB|RBBB": 0.1,
    "IAVB": 0.2,
    "IRBBB": 0.2,
    "LAD": 0.15,
    "LAnFB": 0.15,
    "LPR": 0.2,
    "LQRSV": 0.075,
    "LQT": 0.05,
    "NSIVCB": 0.15,
    "NSR": 0.25,
    "PAC|SVPB": 0.1625,
    "PR": 0.125,
    "PRWP": 0.075,
    "PVC|VPB": 0.125,
    "QAb": -0.1,
    "RAD": 0.15,
    "SA": 0.2,
    "SB": 0.2,
    "STach": 0.125,
    "TAb": 0.0,
    "TInv": 0.0,
}

#: Weights of pairs of classes at one position that the table nevertheless does not treat as the same class.
OFF_THE_LINE: Mapping[tuple[str, str], float] = {("BBB", "CLBBB|LBBB"): 0.475, ("LQRSV", "PRWP"): 0.475}


def unscored(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes of the challenge's score that are not given; the score needs all of them.

    Args:
        classes: Names of classes.
    """
    return tuple(name for name in SCORED_CLASSES if name not in classes)


def challenge_weights(classes: Sequence[str] = SCORED_CLASSES) -> np.ndarray:
    """Returns the challenge's weights, `f64[classes, classes]`, in rows the true and in columns the predicted class.

    Args:
        classes: Names of classes, in the order of rows and columns.

    Raises:
        DataError: The challenge did not score a class.
    """
    if unknown := [name for name in classes if name not in POSITIONS]:
        raise DataError(f"the challenge did not score {', '.join(unknown)}; it scored: {', '.join(POSITIONS)}")
    position = np.array([POSITIONS[name] for name in classes])
    # The table has four decimals; rounding to them removes the error of the subtraction.
    weights = np.round(0.5 - np.abs(position[:, None] - position), 4)
    np.fill_diagonal(weights, 1.0)
    for (one, other), weight in OFF_THE_LINE.items():
        if one in classes and other in classes:
            i, j = classes.index(one), classes.index(other)
            weights[i, j] = weights[j, i] = weight
    return weights


def challenge_score(labels: np.ndarray, answers: np.ndarray, *, classes: Sequence[str] = SCORED_CLASSES) -> Metric:
    """Returns the challenge's score as a metric: 1 for perfect predictions, 0 for predicting sinus rhythm every time.

    The credit of a record is the sum of the weights over all pairs of a labelled and a predicted class, divided by the
    number of classes that are labelled or predicted. The sum over records is then rescaled so that the two models named
    above score 1 and 0. Equivalent codes must be one class already, as they are in `SCORED_CLASSES`. As in the
    challenge's code, the score is 0 where both models are equal.

    Args:
        labels: Labels, `[n, classes]`, 0 or 1.
        answers: Predictions, `[n, classes]`, 0 or 1: decisions, not scores.
        classes: Names of the columns, with `NORMAL` among them; classes left out are not scored.

    Raises:
        DataError: Shapes, classes or values do not fit.
    """
    labels, answers = np.asarray(labels), np.asarray(answers)
    if labels.ndim != 2 or labels.shape != answers.shape or labels.shape[1] != len(classes):
        raise DataError(
            f"labels {labels.shape} and answers {answers.shape} must be records × classes, of {len(classes)} classes"
        )
    for name, values in (("labels", labels), ("answers", answers)):
        if not np.isin(values, (0, 1)).all():
            raise DataError(f"{name} of the challenge's score must be 0 or 1")
    if len(set(classes)) != len(classes) or NORMAL not in classes:
        raise DataError(f"the challenge's score needs every class once, and {NORMAL!r} among them")
    weights = challenge_weights(classes)
    labels = labels.astype(np.float64)
    normal = np.zeros_like(labels)
    normal[:, list(classes).index(NORMAL)] = 1.0
    columns = np.stack([_credit(weights, labels, given) for given in (answers, labels, normal)], axis=1)

    def metric(sample: np.ndarray) -> np.ndarray:
        observed, right, inactive = (np.asarray(sample, np.float64) @ columns).T
        span = right - inactive
        return np.divide(observed - inactive, span, out=np.zeros_like(span), where=span != 0)

    return metric


def _credit(weights: np.ndarray, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the credit for the predictions of each record, `f64[n]`.

    Args:
        weights: Weights, `f64[classes, classes]`.
        labels: Labels, `f64[n, classes]`, 0 or 1.
        answers: Predictions, `[n, classes]`, 0 or 1.
    """
    answers = answers.astype(np.float64)
    number = np.maximum(np.maximum(labels, answers).sum(axis=1), 1.0)
    return np.sum((labels @ weights) * answers, axis=1) / number
