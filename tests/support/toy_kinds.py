"""Kinds of questions that no module of the code knows of: what a user would add."""

import types

import numpy as np

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.evaluation.metrics import regression
from ecgjax.evaluation.metrics.ranking import RankedScores, undefined_reason
from ecgjax.evaluation.models.kinds import QuestionKind


class Trend(QuestionKind):
    """A value whose order matters, and not its size."""

    primary, needs, log_odds = "correlation", "values that differ", False

    def metrics(self, targets, outputs, *, classes=()):
        return {"correlation": regression.pearson(targets, outputs), "MAE": regression.mae(targets, outputs)}

    def undefined(self, targets):
        return "" if np.ptp(targets) > 0 else "no value differs"


class Pooled(QuestionKind):
    """Several classes, of which all answers are ranked together."""

    primary, needs = "pooled AUROC", "an answer of each sign"
    strengths = (1e-3, 0.1)

    def metrics(self, targets, outputs, *, classes=()):
        ranked = RankedScores(np.ravel(targets), np.ravel(outputs))
        return {"pooled AUROC": lambda weights: ranked.auroc(np.repeat(weights, np.shape(targets)[1], axis=1))}

    def undefined(self, targets):
        return undefined_reason(np.ravel(targets))


TOYS = {"trend": Trend(), "pooled": Pooled()}


def toy_data(kind, labels, *, sides, classes=()):
    """Returns labelled records of a question of any kind, two records a patient."""
    parts = {
        name: LabelledRecords(records=rows, labels=labels[rows], patients=rows // 2, unlabelled=0)
        for name, rows in sides.items()
    }
    task = types.SimpleNamespace(kind=kind, title=f"a {kind}", label="x")
    return ProbeData(
        task=task, **parts, label_fraction=1.0, seed=0, train_available=parts["train"], excluded={}, classes=classes
    )
