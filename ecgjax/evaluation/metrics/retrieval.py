"""Neighbours by cosine in the space of embeddings: retrieval, and k-nearest-neighbour classes and values.

Embeddings of equal similarity have no order: whatever depends on their order is averaged over all orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics.weighting import check_finite

# Number of similarities computed at a time, 128 MB of float64; larger galleries have fewer queries in a block.
_SIMILARITIES_AT_ONCE = 2**24

#: Similarities closer than this count as equal: rounding differs with the position in a matrix product.
_TIE = 1e-9


class Retrieval(NamedTuple):
    """Success of records in retrieving other records of their code.

    A query is a record that has another record of its code.

    Attributes:
        recall: Recall by k, `f64[queries]`: whether one of the k nearest is right (its expectation where similarities
            tie).
        reciprocal_rank: Reciprocal rank of the first right record, `f64[queries]` (its expectation where similarities
            tie); the mean is the MRR.
        queries: Numbers of the records that were queries, `int64[queries]`; the others have no other record of their
            code.
    """

    recall: dict[int, np.ndarray]
    reciprocal_rank: np.ndarray
    queries: np.ndarray


def retrieval(
    embeddings: np.ndarray, codes: np.ndarray, *, ks: Sequence[int] = (1, 5, 10), apart: np.ndarray | None = None
) -> Retrieval:
    """Retrieves, for each record, the records of its code among all records.

    Args:
        embeddings: Embeddings of the records, `[n, dim]`.
        codes: Codes of the records, `[n]`: patients (same patient) or labels (same label).
        ks: Numbers k of nearest records for which recall is computed.
        apart: Values of the records, `[n]`; records of equal value are no candidates for each other. These are patients
            when labels are looked for, so that a patient's other record does not count as finding the diagnosis.

    Raises:
        DataError: Lengths differ, a k is below 1, or an embedding is not finite or is zero.
    """
    if min(ks) < 1:
        raise DataError(f"recall is of the nearest 1 or more records, not of {min(ks)}")
    unit = unit_length(embeddings)
    codes = np.asarray(codes)
    apart = np.arange(len(codes)) if apart is None else np.asarray(apart)
    if not len(unit) == len(codes) == len(apart):
        raise DataError(f"{len(unit)} embeddings, {len(codes)} codes and {len(apart)} values to keep apart")
    queries, ranks = [], []
    hits: dict[int, list[np.ndarray]] = {k: [] for k in ks}
    for rows, similarity in _similarities(unit, unit):
        candidate = apart[rows][:, None] != apart
        right = candidate & (codes[rows][:, None] == codes)
        asked = right.any(axis=1)
        similarity, candidate, right = similarity[asked], candidate[asked], right[asked]
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        above = np.sum(candidate & (similarity > best + _TIE), axis=1)
        tied = candidate & (np.abs(similarity - best) <= _TIE)
        number, right_ones = tied.sum(axis=1), (tied & right).sum(axis=1)
        queries.append(rows[asked])
        ranks.append(_expected_reciprocal_rank(above, number, right_ones))
        for k in ks:
            hits[k].append(1 - _all_miss(np.clip(k - above, 0, number), number, right_ones))
    return Retrieval(
        recall={k: np.concatenate(parts) if parts else np.zeros(0) for k, parts in hits.items()},
        reciprocal_rank=np.concatenate(ranks) if ranks else np.zeros(0),
        queries=np.concatenate(queries) if queries else np.zeros(0, np.int64),
    )


def nearest_neighbours(
    gallery: np.ndarray, values: np.ndarray, *, queries: np.ndarray, ks: Sequence[int]
) -> dict[int, np.ndarray]:
    """Predicts values as the mean over the k nearest embeddings of a gallery (training records).

    For values of 0 and 1 the mean is a score of the class, for several such columns it gives scores of all classes, and
    for quantities it is a regression.

    Args:
        gallery: Embeddings of training records, `[n, dim]`.
        values: Labels or quantities of the training records, `[n]` or `[n, columns]`.
        queries: Embeddings to predict for, `[m, dim]`.
        ks: Numbers of neighbours, to be chosen from on validation; at most n.

    Returns:
        Predictions by k, `f64[m]` or `f64[m, columns]`. Neighbours that are as far as the k-th have equal weights,
        which sum to the number of places left by the nearer ones.

    Raises:
        DataError: Lengths differ, a k is not possible, a value or an embedding is not finite, or an embedding is zero.
    """
    unit, asked = unit_length(gallery), unit_length(queries)
    values = np.asarray(values, np.float64)
    check_finite(values, "values of neighbours")
    if len(values) != len(unit):
        raise DataError(f"{len(values)} values for {len(unit)} embeddings")
    if min(ks) < 1 or max(ks) > len(unit):
        raise DataError(f"of {len(unit)} records 1 to {len(unit)} can be nearest, not {min(ks)} to {max(ks)}")
    columns = values.reshape(len(values), -1)
    found = {k: np.empty((len(asked), columns.shape[1])) for k in ks}
    for rows, similarity in _similarities(asked, unit):
        for k in ks:
            kth = np.partition(similarity, len(unit) - k, axis=1)[:, len(unit) - k, None]
            inside = similarity > kth + _TIE
            tied = np.abs(similarity - kth) <= _TIE
            share = (k - inside.sum(axis=1)) / tied.sum(axis=1)
            found[k][rows] = (inside @ columns + share[:, None] * (tied @ columns)) / k
    return {k: predicted.reshape(len(asked), *values.shape[1:]) for k, predicted in found.items()}


def nearest_records(
    embeddings: np.ndarray, *, queries: np.ndarray, apart: np.ndarray, k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds the records nearest to each of a few records by cosine.

    Args:
        embeddings: Embeddings of the records, `[n, dim]`.
        queries: Row numbers of the records to find neighbours of, `int[m]`.
        apart: Values of the records, `[n]`, such as patients; records of equal value are no neighbours of each other.
        k: Number of neighbours of each; fewer where there are not so many others. Of equal similarities the lower row
            comes first.

    Returns:
        For each query the rows of its neighbours, the nearest first, `int64[≤ k]`, and their cosines, `f64[≤ k]`.

    Raises:
        DataError: An embedding is not finite or is zero.
    """
    unit, apart = unit_length(embeddings), np.asarray(apart)
    found = []
    for query in queries:
        others = np.flatnonzero(apart != apart[query])
        cosine = unit[others] @ unit[query]
        # Cosines are rounded: rows that are equal to the bit can differ in the last place of a matrix product.
        order = greatest(np.round(cosine / _TIE), k)
        found.append((others[order], cosine[order]))
    return found


def greatest(similarity: np.ndarray, k: int) -> np.ndarray:
    """Returns the places of the k greatest similarities along the last axis, the greatest first.

    Args:
        similarity: Similarities, `[…, n]`; −inf for what is no candidate.
        k: Number of places; all where there are fewer.

    Returns:
        Places, `int64[…, min(k, n)]`; of equal similarities the lower place comes first.
    """
    return np.argsort(-similarity, axis=-1, kind="stable")[..., :k]


def unit_length(embeddings: np.ndarray) -> np.ndarray:
    """Scales embeddings to length 1.

    Args:
        embeddings: Embeddings, `[n, dim]`.

    Returns:
        Embeddings of length 1, `f64[n, dim]`.

    Raises:
        DataError: An embedding is not finite or is zero.
    """
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2:
        raise DataError(f"embeddings must be records × dimensions, not {embeddings.shape}")
    check_finite(embeddings, "numbers of embeddings")
    norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if zero := np.count_nonzero(norm == 0):
        raise DataError(f"{zero} of {len(embeddings)} embeddings are zero, which have no direction")
    return embeddings / norm


def _similarities(queries: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields blocks of queries: their row numbers, `int64[block]`, and cosines with the gallery, `f64[block, n]`."""
    block = max(1, _SIMILARITIES_AT_ONCE // max(1, len(gallery)))
    for start in range(0, len(queries), block):
        rows = np.arange(start, min(start + block, len(queries)))
        yield rows, queries[rows] @ gallery.T


def _all_miss(places: np.ndarray, number: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the probability that a random draw from a group of tied records contains no right one, `f64[…]`.

    Args:
        places: Number of records drawn, without replacement.
        number: Number of records of the group.
        right: Number of right records of the group.
    """
    wrong = number - right
    possible = places <= wrong
    drawn = np.where(possible, places, 0)

    def log_choose(n: np.ndarray) -> np.ndarray:
        return special.gammaln(n + 1) - special.gammaln(drawn + 1) - special.gammaln(n - drawn + 1)

    chance = np.exp(log_choose(wrong) - log_choose(number))
    # Logarithms round, but where nothing is drawn the probability is exactly 1.
    return np.where(possible, np.where(drawn == 0, 1.0, chance), 0.0)


def _expected_reciprocal_rank(above: np.ndarray, number: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the expected reciprocal rank of the first right record over all orders of the tied group, `f64[queries]`.

    Args:
        above: Number of candidates before the tied group, `int64[queries]`.
        number: Number of records of the tied group, `int64[queries]`.
        right: Number of right records of the tied group, `int64[queries]`.
    """
    # Each case is computed once, since a collapsed encoder ties all records, in the same way for every query.
    cases, which = np.unique(np.stack([above, number, right], axis=1), axis=0, return_inverse=True)
    out = np.empty(len(cases))
    for case, (before, group, hits) in enumerate(cases):
        places = np.arange(group - hits + 1)
        # The first right member follows `places` wrong ones: all of those miss, and the next does not.
        missed = _all_miss(places, np.full(len(places), group), np.full(len(places), hits))
        out[case] = np.sum((missed - np.append(missed[1:], 0.0)) / (before + 1 + places))
    return out[which.reshape(-1)]
