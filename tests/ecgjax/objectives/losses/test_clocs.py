"""CLOCS over all view pairs against explicit matrices S of every view pair, in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.clocs import clocs
from ecgjax.objectives.pairs.relations import other_lead, other_segment, other_segment_or_lead, same_record
from ecgjax.objectives.pairs.tiles import Tiling
from tests.support.objective_cases import (
    CASES,
    EMBEDDINGS,
    FORMS,
    NUM_ROWS,
    assert_forms_agree,
    assert_gradient,
    loss_and_gradients,
    make_rows,
    unit,
)


def brute_clocs(z, rows, *, views, tau, counted=lambda v, w: True):
    """Kiyasseh et al. 2021 as written in the paper: of every view pair its matrix S, rows and columns of it.

    `counted` says of two view numbers whether their pair counts.
    """
    u = unit(z).reshape(-1, views, z.shape[-1])
    valid = np.asarray(rows.valid).reshape(-1, views)
    patient = np.asarray(rows.patient).reshape(-1, views)[:, 0]
    n = len(u)
    losses = []
    for v in range(views):
        for w in range(v + 1, views):
            if not counted(v, w):
                continue
            S = np.zeros((n, n))
            for i in range(n):
                for j in range(n):
                    if valid[i, v] and valid[j, w]:
                        S[i, j] = math.exp(u[i, v] @ u[j, w] / tau)
            of_row, of_column = S.sum(1), S.sum(0)
            both = [i for i in range(n) if S[i, i] > 0]
            same = [(i, j) for i in range(n) for j in range(n) if i != j and patient[i] == patient[j] and S[i, j] > 0]
            terms = [
                [-math.log(S[i, i] / of_row[i]) for i in both],
                [-math.log(S[i, i] / of_column[i]) for i in both],
                [-math.log(S[i, j] / of_row[i]) for i, j in same if i < j],
                [-math.log(S[i, j] / of_column[j]) for i, j in same if i > j],
            ]
            if both:
                losses.append(np.mean([np.mean(term) for term in terms if term]))
    return float(np.mean(losses)) if losses else 0.0


def check(objective, brute_force, cases, kinds):
    """Loss and gradient; a row's share of the loss is not a number that the paper has, but the mean of them is."""
    run = jax.jit(functools.partial(loss_and_gradients(objective), tiling=Tiling(chunk=9)))
    for case, rows in cases.items():
        for kind in kinds:
            z, where = EMBEDDINGS[kind], f"{case}, {kind}"
            out, (gradient,) = run(jnp.asarray(z, jnp.float32), rows)
            np.testing.assert_allclose(out.loss, brute_force(z, rows), rtol=2e-5, atol=2e-5, err_msg=where)
            number = max(int(out.counts.sum()), 1)
            np.testing.assert_allclose(out.per_row.sum() / number, out.loss, rtol=1e-5, atol=1e-6, err_msg=where)
            assert not out.per_row[~out.counts].any(), where
            assert all(np.isfinite(x) for x in out.stats.values()), where
            assert np.isfinite(gradient).all(), where
            if kind == "random":
                assert_gradient(gradient, lambda z, r=rows: brute_force(z, r), z, err_msg=where)


def test_two_views_equal_brute_force():
    check(
        functools.partial(clocs, relation=same_record, views=2, temperature=0.2),
        functools.partial(brute_clocs, views=2, tau=0.2),
        {
            name: rows for name, rows in CASES.items() if name != "no positive for some"
        },  # whose views are of two records
        EMBEDDINGS,
    )


SLOTS = NUM_ROWS // 4
#: Four views: two segments of two leads. The last case has a recording drawn twice, and views that are not valid.
SEGMENT, LEAD = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])


def four_views(patient, valid=None):
    patient = np.asarray(patient)
    record = np.arange(SLOTS)
    record[-1] = 0 if patient[-1] == patient[0] else record[-1]
    spread = {"segment": np.tile(SEGMENT, SLOTS), "lead": np.tile(LEAD, SLOTS)}
    return make_rows(np.repeat(record, 4), np.repeat(patient, 4), np.tile(np.arange(4), SLOTS), valid=valid, **spread)


FOUR_VIEWS = {
    "patients of their own": four_views(np.arange(SLOTS)),
    "two of a patient": four_views([0, 1, 1, 2, 3, 0]),
    "one patient": four_views([0] * SLOTS),
    "masked recordings": four_views([0, 1, 1, 2, 0, 0], valid=np.repeat(np.arange(SLOTS) % 3 != 1, 4)),
    "masked views": four_views([0, 1, 1, 2, 3, 0], valid=np.arange(NUM_ROWS) % 5 != 2),
}


@pytest.mark.parametrize(
    ("relation", "counted"),
    [
        (same_record, lambda v, w: True),
        (other_segment, lambda v, w: SEGMENT[v] != SEGMENT[w] and LEAD[v] == LEAD[w]),
        (other_lead, lambda v, w: SEGMENT[v] == SEGMENT[w] and LEAD[v] != LEAD[w]),
        (other_segment_or_lead, lambda v, w: SEGMENT[v] != SEGMENT[w] or LEAD[v] != LEAD[w]),
    ],
    ids=["all", "CMSC", "CMLC", "CMSMLC"],
)
def test_view_pairs_equal_brute_force(relation, counted):
    check(
        functools.partial(clocs, relation=relation, views=4, temperature=0.1),
        functools.partial(brute_clocs, views=4, tau=0.1, counted=counted),
        FOUR_VIEWS,
        ("random", "all equal"),
    )


def test_two_recordings_by_hand():
    # Recordings 0 and 1 of one patient, views v and w: z_0^v = (1,0), z_1^v = (0,1), z_0^w = z_1^w = (1,0); τ = 1, so
    #   S = [[e, e], [1, 1]]  (row i of view v, column j of view w).
    # Rows: −log e/2e = log 2 and −log 1/2 = log 2. Columns: −log e/(e + 1) and −log 1/(e + 1). The patient's i < j
    # entry over its row: −log e/2e = log 2; its i > j entry over its column: −log 1/(e + 1). Four terms.
    z = jnp.asarray([[1, 0], [1, 0], [0, 1], [1, 0]], jnp.float32)
    settings = {"relation": same_record, "views": 2, "temperature": 1.0, "tiling": Tiling()}
    more = math.log(1 + math.e)
    columns = (more - 1 + more) / 2
    loss = clocs(z, make_rows([0, 0, 1, 1], [0, 0, 0, 0]), **settings).loss
    assert float(loss) == pytest.approx((math.log(2) + columns + math.log(2) + more) / 4, rel=1e-6)
    # Of two patients only the first two terms are there.
    loss = clocs(z, make_rows([0, 0, 1, 1], [0, 0, 1, 1]), **settings).loss
    assert float(loss) == pytest.approx((math.log(2) + columns) / 2, rel=1e-6)


def test_sixteen_views_and_the_gradient_of_the_temperature():
    # Dade et al. 2026: eight leads times two augmentations.
    z = np.random.default_rng(0).normal(size=(64, 6))
    rows = make_rows(np.repeat(np.arange(4), 16), np.repeat([0, 1, 0, 2], 16), np.tile(np.arange(16), 4))

    @jax.jit
    def loss(temperature):
        settings = {"relation": same_record, "views": 16, "tiling": Tiling(chunk=40)}
        return clocs(jnp.asarray(z, jnp.float32), rows, temperature=temperature, **settings).loss

    def brute_force(tau):
        return brute_clocs(z, rows, views=16, tau=tau)

    assert float(loss(0.3)) == pytest.approx(brute_force(0.3), rel=1e-5)
    found = jax.grad(loss)(0.3)
    assert float(found) == pytest.approx((brute_force(0.3 + 1e-6) - brute_force(0.3 - 1e-6)) / 2e-6, rel=2e-4)


def test_whole_recordings_may_change_places():
    # Which of two recordings of a patient comes first in the batch, `row` says, not the place in the array.
    rows, z = FOUR_VIEWS["two of a patient"], jnp.asarray(EMBEDDINGS["random"], jnp.float32)
    order = (np.random.default_rng(3).permutation(SLOTS)[:, None] * 4 + np.arange(4)).reshape(-1)
    run = jax.jit(functools.partial(clocs, relation=same_record, views=4, tiling=Tiling(chunk=8)))
    before, after = run(z, rows), run(z[order], jax.tree.map(lambda x: x[order], rows))
    np.testing.assert_allclose(before.per_row[order], after.per_row, rtol=1e-5)


@FORMS
def test_forms_agree(num_rows, settings):
    record = np.arange(num_rows // 4)
    rows = make_rows(
        np.repeat(record, 4),
        np.repeat(record // 2 % 5, 4),
        np.tile(np.arange(4), len(record)),
        valid=np.repeat(record % 7 != 3, 4),
        segment=np.tile(SEGMENT, len(record)),
        lead=np.tile(LEAD, len(record)),
    )
    z = jnp.asarray(np.random.default_rng(5).normal(size=(num_rows, 8)), jnp.float32)

    def objective(z, rows, temperature, tiling):
        return clocs(z, rows, relation=other_segment_or_lead, views=4, temperature=temperature, tiling=tiling)

    assert_forms_agree(loss_and_gradients(objective, 1), (z, rows), shared=(jnp.float32(0.1),), **settings)


def test_recordings_must_be_whole():
    with pytest.raises(ConfigError, match="whole recordings of 5 views"):
        clocs(jnp.ones((24, 3)), CASES["two views each"], relation=same_record, views=5, tiling=Tiling())
    with pytest.raises(ConfigError, match="CLOCS compares rows of a recording"):
        clocs(jnp.ones((24, 3)), CASES["two views each"], relation=same_record, views=1, tiling=Tiling())
