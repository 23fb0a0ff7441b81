"""Retrieval and nearest neighbours against brute force over orders, and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from data_pipelines.errors import DataError
from ecgjax.evaluation.metrics import retrieval as nearest
from ecgjax.evaluation.metrics.retrieval import nearest_neighbours, retrieval


def on_circle(degrees):
    angle = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def by_orders(embeddings, codes, apart, k):
    """Mean over all orders that sorting by similarity allows: recall at k and reciprocal rank of each query."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = {}
    for query in range(len(codes)):
        others = [i for i in range(len(codes)) if apart[i] != apart[query]]
        if not any(codes[i] == codes[query] for i in others):
            continue
        similarity = {i: round(float(unit[i] @ unit[query]), 9) for i in others}
        groups = [[i for i in others if similarity[i] == s] for s in sorted(set(similarity.values()), reverse=True)]
        recalls, ranks = [], []
        for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
            order = [i for group in orders for i in group]
            rank = 1 + next(n for n, i in enumerate(order) if codes[i] == codes[query])
            recalls.append(rank <= k)
            ranks.append(1 / rank)
        found[query] = (np.mean(recalls), np.mean(ranks))
    return found


@pytest.mark.parametrize("k", [1, 2, 3, 10])
@pytest.mark.parametrize("keep_apart", [False, True])
def test_retrieval_averages_over_the_orders_of_ties(k, keep_apart):
    embeddings = on_circle([0, 10, 10, 10, 20, 20, 90, 10, 0])
    codes = np.array([1, 1, 2, 2, 1, 3, 4, 3, 2])
    apart = np.array([0, 1, 2, 2, 0, 3, 4, 5, 6]) if keep_apart else np.arange(9)
    expected = by_orders(embeddings, codes, apart, k)
    found = retrieval(embeddings, codes, ks=(k,), apart=apart)
    assert found.queries.tolist() == list(expected)
    assert 6 not in expected, "nobody else has its code"
    np.testing.assert_allclose(found.recall[k], [recall for recall, _ in expected.values()], atol=1e-9)
    np.testing.assert_allclose(found.reciprocal_rank, [rank for _, rank in expected.values()], atol=1e-9)


def test_a_collapsed_encoder_retrieves_by_chance():
    codes = np.repeat(np.arange(50), 2)
    found = retrieval(np.ones((100, 4)), codes, ks=(1, 99))
    np.testing.assert_allclose(found.recall[1], 1 / 99, rtol=1e-9)
    np.testing.assert_allclose(found.recall[99], 1.0)
    np.testing.assert_allclose(found.reciprocal_rank, np.mean(1 / np.arange(1, 100)), rtol=1e-9)


def test_retrieval_does_not_depend_on_blocks_or_lengths(monkeypatch):
    rng = np.random.default_rng(0)
    embeddings, codes = rng.normal(size=(40, 8)), rng.integers(0, 10, 40)
    whole = retrieval(embeddings, codes)
    monkeypatch.setattr(nearest, "_SIMILARITIES_AT_ONCE", 120)
    parts = retrieval(embeddings * rng.uniform(0.1, 9, (40, 1)), codes)
    np.testing.assert_array_equal(parts.queries, whole.queries)
    np.testing.assert_allclose(parts.reciprocal_rank, whole.reciprocal_rank)
    for k in (1, 5, 10):
        np.testing.assert_allclose(parts.recall[k], whole.recall[k])


def test_nobody_to_find():
    found = retrieval(on_circle([0, 10]), np.array([1, 2]))
    assert (len(found.queries), len(found.recall[1])) == (0, 0)
    assert len(found.reciprocal_rank) == 0


def test_neighbours_equal_scikit_learn():
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(60, 6)), rng.normal(size=(25, 6))
    labels, values = rng.integers(0, 2, 60), rng.normal(size=60)
    found = nearest_neighbours(gallery, np.stack([labels, values], axis=1), queries=queries, ks=(1, 7, 60))
    for k, predicted in found.items():
        options = {"n_neighbors": k, "metric": "cosine", "algorithm": "brute"}
        classes = KNeighborsClassifier(**options).fit(gallery, labels).predict_proba(queries)[:, 1]
        np.testing.assert_allclose(predicted[:, 0], classes, atol=1e-12)
        regressed = KNeighborsRegressor(**options).fit(gallery, values).predict(queries)
        np.testing.assert_allclose(predicted[:, 1], regressed, atol=1e-12)
    assert nearest_neighbours(gallery, values, queries=queries, ks=(3,))[3].shape == (25,)


def test_neighbours_that_tie_share_the_places_left():
    # From 0 degrees: 5 is nearest, then four tie at ±10 for the two places left.
    found = nearest_neighbours(
        on_circle([5, 10, -10, 10, -10, 90]), np.array([1.0, 1, 0, 0, 1, 0]), queries=on_circle([0]), ks=(3, 5)
    )
    assert found[3] == pytest.approx([(1 + 2 * 0.5) / 3])
    assert found[5] == pytest.approx([3 / 5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: retrieval(x, np.arange(2)), "2 codes"),
        (lambda x: retrieval(x, np.arange(3), ks=(0,)), "nearest 1 or more"),
        (lambda x: retrieval(x * [[1], [0], [1]], np.arange(3)), "1 of 3 embeddings are zero"),
        (lambda x: retrieval(x * [[1], [math.nan], [1]], np.arange(3)), "2 of 6 numbers of embeddings are not finite"),
        (lambda x: nearest_neighbours(x, np.arange(3), queries=x, ks=(4,)), "1 to 3 can be nearest, not 4 to 4"),
        (lambda x: nearest_neighbours(x, np.array([1, math.nan, 0]), queries=x, ks=(1,)), "values of neighbours"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(on_circle([0, 10, 20]))
