"""Whether records of one patient, or of one label, lie near each other in the space of embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ecgjax.evaluation.metrics.bootstrap import Interval, bootstrap_metrics
from ecgjax.evaluation.metrics.retrieval import Retrieval, retrieval
from ecgjax.evaluation.metrics.weighting import mean

_KS = (1, 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """How well test records find each other.

    Attributes:
        encoder: which one, in words.
        sought: `"same patient"`, or `"positive finds positive"`.
        queries: records that have somebody to find.
        metrics: `"recall@1"`, `"recall@5"` and `"MRR"`, with intervals over patients; none without queries.
    """

    encoder: str
    sought: str
    queries: int
    metrics: Mapping[str, Interval]


def neighbourhoods(
    embeddings: Mapping[str, np.ndarray], *, labels: np.ndarray | None, patients: np.ndarray, resamples: int, seed: int
) -> tuple[Neighbourhood, ...]:
    """Asks every test record for others of its patient, and every positive one for other patients' positives.

    Args:
        embeddings: encoder → `[n, dim]` of the test records.
        labels: `[n]` of 0 and 1; None where there are no positives to find.
        patients: `int[n]`, patient (group) code of each record.
        resamples: of the bootstrap over patients.
        seed: of the resampling.
    """
    out = []
    # Negatives, of which there are many, are nobody to look for: each has a code of its own.
    positives = None if labels is None else np.where(labels == 1, -1, np.arange(len(labels)))
    for encoder, values in embeddings.items():
        sought = {"same patient": retrieval(values, patients, ks=_KS)}
        if positives is not None:
            sought["positive finds positive"] = retrieval(values, positives, ks=_KS, apart=patients)
        out += [
            _summary(found, encoder=encoder, sought=name, patients=patients, resamples=resamples, seed=seed)
            for name, found in sought.items()
        ]
    return tuple(out)


def _summary(
    found: Retrieval, *, encoder: str, sought: str, patients: np.ndarray, resamples: int, seed: int
) -> Neighbourhood:
    values = {f"recall@{k}": hits for k, hits in found.recall.items()} | {"MRR": found.reciprocal_rank}
    metrics: dict[str, Interval] = {}
    if len(found.queries):
        spread = bootstrap_metrics(
            {name: mean(each) for name, each in values.items()},
            patients=patients[found.queries],
            resamples=resamples,
            seed=seed,
        )
        metrics = {name: spread.interval(name) for name in values}
    return Neighbourhood(encoder=encoder, sought=sought, queries=len(found.queries), metrics=metrics)
