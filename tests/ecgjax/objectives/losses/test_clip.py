"""The CLIP form against brute force in float64 from the formula; its forms against the dense one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.clip import clip_loss
from ecgjax.objectives.pairs.tiles import Tiling
from tests.support.objective_cases import (
    CASES,
    EMBEDDINGS,
    FORMS,
    NUM_ROWS,
    SMOOTH,
    assert_forms_agree,
    assert_gradient,
    batch_of,
    log_sum_exp,
    loss_and_gradients,
    make_rows,
    unit,
)


def brute_clip(z, t, rows, *, positives, tau):
    """Radford et al. 2021: cross-entropy both ways; rows of one partner are one set of positives."""
    patient, valid, group = (np.asarray(x) for x in (rows.patient, rows.valid, rows.pair_group))
    u, w = unit(z), unit(t)
    taking_part = [i for i in range(len(z)) if valid[i] and group[i] >= 0]
    costs = np.zeros(len(z))
    for i in taking_part:
        same = [j for j in taking_part if group[j] == group[i]]
        others = [j for j in taking_part if group[j] != group[i] and patient[j] != patient[i]]
        for a, b in ((u, w), (w, u)):
            near = [a[i] @ b[j] / tau for j in same]
            everything = log_sum_exp(near + [a[i] @ b[j] / tau for j in others])
            pulled = np.mean(near) if positives == "outside" else log_sum_exp(near)
            costs[i] += (everything - pulled) / 2
    return (float(np.mean(costs[taking_part])) if taking_part else 0.0), costs


PARTNERS = np.random.default_rng(8).normal(size=(NUM_ROWS, 6))
GROUPS = {
    "own": np.arange(NUM_ROWS) // 2,
    "identical": np.arange(NUM_ROWS) // 2 % 5,
    "some without": np.where(np.arange(NUM_ROWS) % 6 < 2, -1, np.arange(NUM_ROWS) // 2 % 7),
    "all without": np.full(NUM_ROWS, -1),
}


@pytest.mark.parametrize("positives", ["outside", "inside"])
def test_equals_brute_force(positives):
    def objective(z, rows, partners, tiling):
        return clip_loss(z, rows, paired=partners, temperature=0.2, positives=positives, tiling=tiling)

    run = jax.jit(functools.partial(loss_and_gradients(objective, 1), tiling=Tiling(chunk=7)))
    for case, rows in CASES.items():
        for name, group in GROUPS.items():
            rows = rows._replace(pair_group=jnp.asarray(group, jnp.int32))
            for kind, z in EMBEDDINGS.items():
                where = f"{case}, {name}, {kind}"
                out, gradients = run(jnp.asarray(z, jnp.float32), rows, jnp.asarray(PARTNERS, jnp.float32))

                def brute_force(z, t, rows=rows):
                    return brute_clip(z, t, rows, positives=positives, tau=0.2)

                loss, per_row = brute_force(z, PARTNERS)
                np.testing.assert_allclose(out.loss, loss, rtol=2e-5, atol=2e-5, err_msg=where)
                np.testing.assert_allclose(out.per_row, per_row, rtol=2e-5, atol=2e-5, err_msg=where)
                assert all(np.isfinite(x) for x in out.stats.values()), where
                if kind in SMOOTH and case in ("two records a patient", "masked rows"):
                    assert_gradient(gradients[0], lambda z, f=brute_force: f(z, PARTNERS)[0], z, err_msg=where)
                    assert_gradient(gradients[1], lambda t, f=brute_force, z=z: f(z, t)[0], PARTNERS, err_msg=where)


def test_four_rows_by_hand():
    # ECGs (1,0), (0,1), (1,0), (0,1) of four patients; partners (1,0) and (1,0), which are the same report, (0,1), and
    # none; τ = 1. ECG 0 has s = 1, 1, 0 with the reports, of which the first two are its own: log(2e + 1) − 1; ECG 1
    # has 0, 0, 1: log(2 + e); ECG 2 has 1, 1, 0, of which the last is its own: log(2e + 1). Report 0 has 1, 0, 1 with
    # the ECGs, of which the first two are its own: log(2e + 1) − 1/2, and report 1 the same; report 2 has 0, 1, 0:
    # log(2 + e).
    z = jnp.asarray([[1, 0], [0, 1], [1, 0], [0, 1]], jnp.float32)
    partners = jnp.asarray([[1, 0], [1, 0], [0, 1], [1, 0]], jnp.float32)
    rows = make_rows([0, 1, 2, 3], [0, 1, 2, 3], pair_group=[0, 0, 1, -1])
    out = clip_loss(z, rows, paired=partners, temperature=1.0, tiling=Tiling())
    a, b = math.log(2 * math.e + 1), math.log(2 + math.e)
    expected = [(a - 1 + a - 0.5) / 2, (b + a - 0.5) / 2, (a + b) / 2, 0]
    np.testing.assert_allclose(out.per_row, expected, rtol=1e-6)
    assert float(out.loss) == pytest.approx(sum(expected) / 3, rel=1e-6)


def test_gradient_of_the_temperature():
    rows = CASES["masked rows"]._replace(pair_group=jnp.asarray(GROUPS["identical"], jnp.int32))
    z, partners = (jnp.asarray(x, jnp.float32) for x in (EMBEDDINGS["random"], PARTNERS))
    settings = {"paired": partners, "tiling": Tiling(chunk=7)}
    found = jax.jit(jax.grad(lambda t: clip_loss(z, rows, temperature=t, **settings).loss))(0.3)
    assert_gradient(
        found, lambda t: brute_clip(EMBEDDINGS["random"], PARTNERS, rows, positives="outside", tau=t)[0], 0.3
    )


def test_permuting_rows_permutes_losses():
    rows = CASES["masked rows"]._replace(pair_group=jnp.asarray(GROUPS["some without"], jnp.int32))
    z, partners = (jnp.asarray(x, jnp.float32) for x in (EMBEDDINGS["random"], PARTNERS))
    order = np.random.default_rng(3).permutation(NUM_ROWS)
    run = jax.jit(lambda z, rows, t: clip_loss(z, rows, paired=t, tiling=Tiling(chunk=5)).per_row)
    shuffled = run(z[order], jax.tree.map(lambda x: x[order], rows), partners[order])
    np.testing.assert_allclose(run(z, rows, partners)[order], shuffled, rtol=2e-6, atol=1e-6)


@FORMS
def test_forms_agree(num_rows, settings):
    (z, rows), row = batch_of(num_rows), np.arange(num_rows)
    rows = rows._replace(pair_group=jnp.asarray(np.where(row % 9 < 2, -1, row // 3 % 13), jnp.int32))
    partners = jnp.asarray(np.random.default_rng(6).normal(size=z.shape), jnp.float32)

    def function(z, partners, rows, temperature, tiling):
        def loss(z, partners, temperature):
            out = clip_loss(z, rows, paired=partners, temperature=temperature, tiling=tiling)
            return out.loss, out

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(z, partners, temperature)

    assert_forms_agree(function, (z, partners, rows), shared=(jnp.float32(0.1),), **settings)


def test_what_is_missing_is_said():
    z, rows = jnp.ones((4, 2)), make_rows([0, 1, 2, 3], [0, 1, 2, 3])
    with pytest.raises(ConfigError, match="pair_group"):
        clip_loss(z, rows, paired=z, tiling=Tiling())
    with pytest.raises(ConfigError, match="project"):
        clip_loss(z, rows._replace(pair_group=rows.row), paired=jnp.ones((4, 3)), tiling=Tiling())
