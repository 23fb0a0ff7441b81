"""VICReg against brute force in float64 from the formulas, and on meshes."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.vicreg import vicreg
from tests.support.objective_cases import CASES, EMBEDDINGS, SMOOTH, assert_gradient, batch_of, make_rows, tilings


def repeats(shown):
    """Whether two views of a recording are the same; a view that something is drawn for is none of the others."""
    return any(one == other >= 0 for one, other in itertools.combinations(shown, 2))


def brute_vicreg(z, rows, *, views, weights, gamma=1.0):
    """Bardes et al. 2022, eq. 1-6 by loops, the mean over view pairs; the invariance a mean over dimensions."""
    z = np.asarray(z, np.float64).reshape(-1, views, z.shape[-1])
    valid = np.asarray(rows.valid).reshape(-1, views)
    shown = None if rows.shown is None else np.asarray(rows.shown).reshape(-1, views)
    chosen = [i for i in range(len(z)) if valid[i].all() and not (shown is not None and repeats(shown[i]))]
    n, d = len(chosen), z.shape[-1]
    if not chosen:
        return 0.0, np.zeros(z.shape[0] * views)

    def variance_and_covariance(x):
        if n < 2:
            return 0.0, 0.0
        mean = sum(x) / n
        C = sum(np.outer(row - mean, row - mean) for row in x) / (n - 1)
        v = sum(max(0.0, gamma - math.sqrt(C[j, j] + 1e-4)) for j in range(d)) / d
        return v, sum(C[j, k] ** 2 for j in range(d) for k in range(d) if j != k) / d

    pairs = list(itertools.combinations(range(views), 2))
    of_batch, per_row = 0.0, np.zeros((z.shape[0], views))
    for v, w in pairs:
        for view in (v, w):
            variance, covariance = variance_and_covariance([z[i, view] for i in chosen])
            of_batch += (weights[1] * variance + weights[2] * covariance) / len(pairs)
        for i in chosen:
            per_row[i] += weights[0] * np.sum((z[i, v] - z[i, w]) ** 2) / d / len(pairs)
    per_row[chosen] += of_batch
    return float(np.mean(per_row[chosen])), per_row.reshape(-1)


def value_and_gradient(z, rows, **settings):
    def loss(z):
        out = vicreg(z, rows, **settings)
        return out.loss, out

    (_, out), gradient = jax.value_and_grad(loss, has_aux=True)(z)
    return out, gradient


@pytest.mark.parametrize("views", [2, 4])
def test_equals_brute_force(views):
    weights = (25.0, 25.0, 1.0)
    run = jax.jit(functools.partial(value_and_gradient, views=views))
    record, shown = np.arange(24) // views, np.arange(24) % views
    shown = np.where(record == 1, 0, np.where(record == 2, -1, shown))
    cases = CASES | {
        "one record": make_rows(record, record, valid=record == 1),
        "views that are the same": make_rows(record, record, shown=shown),
    }
    for case, rows in cases.items():
        for kind, z in EMBEDDINGS.items():
            z, where = z * 0.6, f"{case}, {kind}"  # some standard deviations above 1, some below
            out, gradient = run(jnp.asarray(z, jnp.float32), rows)
            loss, per_row = brute_vicreg(z, rows, views=views, weights=weights)
            np.testing.assert_allclose(out.loss, loss, rtol=2e-5, atol=2e-5, err_msg=where)
            np.testing.assert_allclose(out.per_row, per_row, rtol=2e-5, atol=2e-5, err_msg=where)
            assert np.isfinite(gradient).all(), where
            if kind in SMOOTH:
                assert_gradient(
                    gradient,
                    lambda z, rows=rows: brute_vicreg(z, rows, views=views, weights=weights)[0],
                    z,
                    err_msg=where,
                )


def test_two_recordings_by_hand():
    # View 1: (0,0), (2,2): C = [[2, 2], [2, 2]], both √2.0001 > 1, so v = 0, and c = (4 + 4)/2 = 4.
    # View 2: (0,0), (0,2): C = [[0, 0], [0, 2]], v = (1 − √.0001 + 0)/2 = .495, c = 0.
    # Invariance: (0 + 2² + 0²)/(n d) = 4/4 = 1. Loss: 25 · 1 + 25 · .495 + 1 · 4.
    z = jnp.asarray([[0, 0], [0, 0], [2, 2], [0, 2]], jnp.float32)
    out = jax.jit(vicreg)(z, make_rows([0, 0, 1, 1], [0, 0, 1, 1]))
    assert float(out.loss) == pytest.approx(25 + 25 * 0.495 + 4, rel=1e-6)
    assert float(out.stats["covariance"]) == pytest.approx(4, rel=1e-6)


def test_a_recording_whose_views_are_the_same_is_left_out_and_counted():
    z, shown = jnp.asarray(EMBEDDINGS["random"], jnp.float32), np.arange(24) % 2
    rows = make_rows(np.arange(24) // 2, np.arange(24) // 2, shown=np.where(np.arange(24) // 2 == 3, 1, shown))
    out = jax.jit(vicreg)(z, rows)
    assert float(out.stats["anchors_without_positive"]) == 2
    assert np.flatnonzero(~np.asarray(out.counts)).tolist() == [6, 7]


def test_permuting_recordings_permutes_losses():
    z, rows = jnp.asarray(EMBEDDINGS["random"], jnp.float32), CASES["masked records"]
    order = (np.random.default_rng(3).permutation(12)[:, None] * 2 + np.arange(2)).reshape(-1)
    run = jax.jit(vicreg)
    before, after = run(z, rows), run(z[order], jax.tree.map(lambda x: x[order], rows))
    np.testing.assert_allclose(before.per_row[order], after.per_row, rtol=1e-5)


def test_on_meshes_it_is_sums_and_nothing_is_gathered():
    z, rows = batch_of(64)
    run = jax.jit(value_and_gradient)
    expected = run(z, rows)
    for name, tiling in tilings(None).items():
        placed = jax.device_put((z, rows), NamedSharding(tiling.mesh, PartitionSpec("data")))
        compiled = run.lower(*placed).compile()
        assert "all-gather" not in compiled.as_text(), name
        for a, b in zip(jax.tree.leaves(compiled(*placed)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


def test_recordings_must_be_whole():
    with pytest.raises(ConfigError, match="whole recordings of 5 views"):
        vicreg(jnp.ones((24, 3)), CASES["two views each"], views=5)
    with pytest.raises(ConfigError, match="VICReg compares rows of a recording"):
        vicreg(jnp.ones((24, 3)), CASES["two views each"], views=1)
