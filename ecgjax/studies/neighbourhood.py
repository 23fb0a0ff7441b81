"""Retrieval in the embedding space: whether records of one patient, or of one label, are near each other."""

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
    """Retrieval metrics of the test records with one encoder and one kind of match.

    Attributes:
        encoder: Name of the encoder.
        sought: Kind of match, `"same patient"` or `"positive finds positive"`.
        queries: Number of query records, which are those with at least one match.
        metrics: `"recall@1"`, `"recall@5"` and `"MRR"` with intervals over patients, by name; empty without queries.
    """

    encoder: str
    sought: str
    queries: int
    metrics: Mapping[str, Interval]


def neighbourhoods(
    embeddings: Mapping[str, np.ndarray], *, labels: np.ndarray | None, patients: np.ndarray, resamples: int, seed: int
) -> tuple[Neighbourhood, ...]:
    """Retrieves, for each test record, others of its patient, and for each positive record, other patients' positives.

    Args:
        embeddings: Embeddings of the test records, `[n, dim]`, by encoder.
        labels: Labels of the test records, `[n]` of 0 and 1; None if there are no positives to look for.
        patients: Patient (group) code of each record, `int[n]`.
        resamples: Number of bootstrap resamples of the patients.
        seed: Seed of the resampling.
    """
    out = []
    # Negative records are too many to be looked for: each gets a code of its own and so has no match.
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
