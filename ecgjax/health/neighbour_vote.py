"""The vote of nearest neighbours, on the host in float64."""

from __future__ import annotations

import math

import numpy as np

from ecgjax.data.tasks import QuantityTask
from ecgjax.evaluation.metrics.multilabel import auroc_of, macro_of
from ecgjax.evaluation.metrics.regression import r_squared
from ecgjax.evaluation.metrics.retrieval import nearest_neighbours
from ecgjax.evaluation.metrics.weighting import estimate
from ecgjax.health.asked_records import AskedRecords


def vote(asked: AskedRecords, embeddings: np.ndarray, readable: np.ndarray) -> float:
    """Returns how well the nearest training records answer for validation records.

    The answer is the mean of the labels of the nearest by cosine; those that are as near as the last of them share its
    place. No patient votes for a record of its own, because no patient lies on both sides.

    Args:
        asked: Records and labels.
        embeddings: Embeddings of `asked.records`, `f32[n, dim]`.
        readable: Mask of the records that could be read, `bool[n]`; the others take no part.

    Returns:
        AUROC of a yes or no, its mean over several classes, or R² of a quantity. It is NaN where an embedding is zero
        or not finite, and where what can be read is too little to vote, or has not both answers.
    """
    parts = np.split(np.arange(len(embeddings)), [len(asked.bank.records)])
    (bank, votes), (queries, truth) = (
        (embeddings[rows][readable[rows]], side.labels[readable[rows]])
        for rows, side in zip(parts, (asked.bank, asked.queries), strict=True)
    )
    k = asked.neighbours
    if len(bank) < k or not len(queries) or not (_have_directions(bank) and _have_directions(queries)):
        return math.nan
    scores = nearest_neighbours(bank, votes, queries=queries, ks=[k])[k]
    if isinstance(asked.task, QuantityTask):
        return estimate(r_squared(truth, scores), len(truth))
    columns, scores = truth.reshape(len(truth), -1), scores.reshape(len(truth), -1)
    metrics = [auroc_of(labels, scored) for labels, scored in zip(columns.T, scores.T, strict=True)]
    return estimate(macro_of(metrics), len(truth))


def _have_directions(embeddings: np.ndarray) -> bool:
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    return bool((np.isfinite(lengths) & (lengths > 0)).all())
