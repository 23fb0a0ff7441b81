"""Retrieval in the embedding space: whether records of one patient, or of one label, are near each other.

A query is a test record that has a match, which is another record of the same patient or label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.metrics.retrieval import retrieval
from ecgjax.evaluation.metrics.weighting import mean
from ecgjax.evaluation.results import Key, measured

_KS = (1, 5)

SAME_PATIENT, POSITIVE = "same patient", "positive finds positive"


class Sought(NamedTuple):
    """A retrieval.

    Attributes:
        encoder: Name of the encoder whose embeddings are searched.
        match: What counts as a match, `SAME_PATIENT` or `POSITIVE`.
        queries: Number of test records that have a match.
    """

    encoder: str
    match: str
    queries: int


def neighbourhoods(
    embeddings: Mapping[str, np.ndarray],
    *,
    task: str,
    labels: np.ndarray | None,
    patients: np.ndarray,
    resamples: int,
    seed: int,
) -> tuple[dict[Key, Interval], list[Sought]]:
    """Retrieves, for each test record, others of its patient, and for each positive one, positives of other patients.

    Args:
        embeddings: Embeddings of the test records, `[n, dim]`, by encoder.
        task: Task in one line, which becomes part of the results' keys.
        labels: Labels of the test records, `[n]` of 0 and 1; None if there are no positives to look for.
        patients: Patient (group) code of each record, `int[n]`.
        resamples: Number of bootstrap resamples of the patients.
        seed: Seed of the resampling.

    Returns:
        `"recall@1"`, `"recall@5"` and `"MRR"` of every encoder and match, which is the key's `part`; and what was
        looked for, also where no record has a match.
    """
    rows: dict[Key, Interval] = {}
    looked_for = []
    for encoder, values in embeddings.items():
        found = {SAME_PATIENT: retrieval(values, patients, ks=_KS)}
        if labels is not None:
            # Negative records are too many to be looked for: each gets a code of its own and so has no match.
            positives = np.where(labels == 1, -1, np.arange(len(labels)))
            found[POSITIVE] = retrieval(values, positives, ks=_KS, apart=patients)
        for match, each in found.items():
            looked_for.append(Sought(encoder, match, len(each.queries)))
            if len(each.queries):
                hits = {f"recall@{k}": recall for k, recall in each.recall.items()} | {"MRR": each.reciprocal_rank}
                metrics = {Key(encoder, name, task, part=match): mean(hit) for name, hit in hits.items()}
                own = patients[each.queries]
                rows |= measured(metrics, patients=own, resamples=resamples, seed=seed, needs="a query")
    return rows, looked_for
