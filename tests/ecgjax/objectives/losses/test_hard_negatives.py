"""HCL, debiased and multi-similarity losses against brute force in float64; their forms against the dense one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.hard_negatives import debiased, hcl
from ecgjax.objectives.losses.multi_similarity import multi_similarity
from ecgjax.objectives.pairs.relations import same_patient, same_record
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.placement import slices
from ecgjax.training import device_mesh
from tests.support.objective_cases import (
    CASES,
    EMBEDDINGS,
    FORMS,
    assert_equals_brute_force,
    assert_forms_agree,
    assert_gradient,
    batch_of,
    loss_and_gradients,
    make_rows,
    mean_over,
    positives_and_negatives,
    unit,
)


def brute_hcl(z, pairs, *, t, beta, prior):
    """Robinson et al. 2021, with each row's own number of negatives, and the mean over its positives."""
    u = unit(z)
    costs = []
    for i, (positive, negative) in enumerate(pairs):
        n = np.array([math.exp(u[i] @ u[j] / t) for j in negative])
        terms = []
        for j in positive:
            p = math.exp(u[i] @ u[j] / t)
            pushed = 0.0
            if negative:
                r = np.sum(n**beta * n) / np.mean(n**beta)
                pushed = max((r - prior * len(n) * p) / (1 - prior), len(n) * math.exp(-1 / t))
            terms.append(-math.log(p / (p + pushed)))
        costs.append(np.mean(terms) if terms else None)
    return mean_over(costs)


def brute_debiased(z, pairs, *, t, prior):
    """Chuang et al. 2020, eq. 7 and 8: N g(x, …), g the clipped mean of the negatives less the hidden positives."""
    u = unit(z)
    costs = []
    for i, (positive, negative) in enumerate(pairs):
        n = [math.exp(u[i] @ u[j] / t) for j in negative]
        terms = []
        for j in positive:
            p = math.exp(u[i] @ u[j] / t)
            g = max((np.mean(n) - prior * p) / (1 - prior), math.exp(-1 / t)) if n else 0.0
            terms.append(-math.log(p / (p + len(n) * g)))
        costs.append(np.mean(terms) if terms else None)
    return mean_over(costs)


def brute_multi_similarity(z, pairs, *, alpha, beta, lam, eps):
    """Wang et al. 2019, eq. 10-13."""
    u = unit(z)
    costs = []
    for i, (positive, negative) in enumerate(pairs):
        if not positive:
            costs.append(None)
            continue
        near, far = [u[i] @ u[j] for j in positive], [u[i] @ u[j] for j in negative]
        kept_far = [s for s in far if s > min(near) - eps]
        kept_near = [s for s in near if far and s < max(far) + eps]
        pull = math.log(1 + sum(math.exp(-alpha * (s - lam)) for s in kept_near)) / alpha
        costs.append(pull + math.log(1 + sum(math.exp(beta * (s - lam)) for s in kept_far)) / beta)
    return mean_over(costs)


def test_hcl_equals_brute_force():
    assert_equals_brute_force(
        functools.partial(hcl, relation=same_patient, temperature=0.5, concentration=1.0, positive_prior=0.1),
        lambda z, _, pairs: brute_hcl(z, pairs, t=0.5, beta=1.0, prior=0.1),
        prepare=functools.partial(positives_and_negatives, by="patient"),
    )


def test_hcl_equals_brute_force_where_hidden_positives_outweigh_negatives():
    # The views of a record are near and τ⁺ is large: some rows' corrected sum is below its least value, N e^{−1/t}.
    generator = np.random.default_rng(4)
    z = np.repeat(generator.normal(size=(12, 6)), 2, axis=0) + 0.2 * generator.normal(size=(24, 6))
    settings = {"t": 0.2, "beta": 0.5, "prior": 0.2}
    assert_equals_brute_force(
        functools.partial(hcl, relation=same_record, temperature=0.2, concentration=0.5, positive_prior=0.2),
        lambda z, _, pairs: brute_hcl(z, pairs, **settings),
        kinds={"random": z},
        prepare=functools.partial(positives_and_negatives, by="record"),
    )
    costs = brute_hcl(z, positives_and_negatives(CASES["two views each"], "record"), **settings)[1]
    similarity = np.array([unit(z)[i] @ unit(z)[i ^ 1] for i in range(24)])
    at_least_value = np.isclose(costs, np.log1p(22 * np.exp(-(1 + similarity) / 0.2)), rtol=1e-9)
    assert 4 < at_least_value.sum() < 20


def test_hcl_leaves_out_negatives_at_its_ceiling_or_above():
    def below(z, pairs, ceiling):
        u = unit(z)
        return [(near, [j for j in far if u[i] @ u[j] < ceiling]) for i, (near, far) in enumerate(pairs)]

    settings = {"t": 0.5, "beta": 1.0, "prior": 0.1}
    # Of equal rows no negative is left, and of others some.
    z = {name: EMBEDDINGS[name] for name in ("random", "all equal")}
    assert_equals_brute_force(
        functools.partial(hcl, relation=same_patient, ceiling=0.3),
        lambda z, _, pairs: brute_hcl(z, below(z, pairs, 0.3), **settings),
        kinds=z,
        prepare=functools.partial(positives_and_negatives, by="patient"),
    )
    rows = CASES["two views each"]
    out = hcl(jnp.asarray(z["random"], jnp.float32), rows, relation=same_record, ceiling=0.3, tiling=Tiling())
    left = [len(far) for _, far in below(z["random"], positives_and_negatives(rows, "record"), 0.3)]
    np.testing.assert_allclose(out.stats["kept_negatives_per_row"], np.mean(left), rtol=1e-6)
    assert 2 < np.mean(left) < 20


def test_debiased_equals_brute_force():
    assert_equals_brute_force(
        functools.partial(debiased, relation=same_record, temperature=0.5, positive_prior=0.1),
        lambda z, _, pairs: brute_debiased(z, pairs, t=0.5, prior=0.1),
        prepare=functools.partial(positives_and_negatives, by="record"),
    )


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 2.0, "beta": 50.0, "lam": 1.0, "eps": 0.1}, {"alpha": 3.0, "beta": 7.0, "lam": 0.5, "eps": 0.3}],
)
def test_multi_similarity_equals_brute_force(settings):
    names = {"alpha": "positive_scale", "beta": "negative_scale", "lam": "threshold", "eps": "slack"}
    assert_equals_brute_force(
        functools.partial(multi_similarity, relation=same_patient, **{names[k]: x for k, x in settings.items()}),
        lambda z, _, pairs: brute_multi_similarity(z, pairs, **settings),
        prepare=functools.partial(positives_and_negatives, by="patient"),
    )


def test_gradients_of_temperature_and_concentration():
    rows, z = CASES["masked rows"], EMBEDDINGS["random"]
    pairs = positives_and_negatives(rows, "patient")

    @jax.jit
    def gradient(x):
        def loss(x):
            settings = {"relation": same_patient, "temperature": x[0], "concentration": x[1], "tiling": Tiling(chunk=7)}
            return hcl(jnp.asarray(z, jnp.float32), rows, **settings).loss

        return jax.grad(loss)(x)

    at = np.array([0.5, 0.7])
    found = gradient(jnp.asarray(at, jnp.float32))
    assert_gradient(found, lambda x: brute_hcl(z, pairs, t=x[0], beta=x[1], prior=0.1)[0], at)


def test_four_rows_by_hand():
    # Records a, b; a = (1,0), a' = (0,1), b = (1,0), b' = (1,0). HCL with t = 1, β = 1, τ⁺ = .1; N = 2.
    #   a:  p = 1, n = (e, e): R = 2e, N_g = (2e − .2)/.9, cost log(1 + N_g)
    #   a': p = 1, n = (1, 1): R = 2, N_g = (2 − .2)/.9 = 2, cost log 3
    #   b:  p = e, n = (e, 1): R = (e² + 1)/((e + 1)/2), N_g = (R − .2e)/.9, cost log(1 + N_g/e); b' the same.
    z = jnp.asarray([[1, 0], [0, 1], [1, 0], [1, 0]], jnp.float32)
    rows, e = make_rows([0, 0, 1, 1], [0, 0, 1, 1]), math.e
    out = hcl(z, rows, relation=same_record, temperature=1.0, tiling=Tiling())
    of_b = math.log1p(((e**2 + 1) / ((e + 1) / 2) - 0.2 * e) / 0.9 / e)
    np.testing.assert_allclose(out.per_row, [math.log1p((2 * e - 0.2) / 0.9), math.log(3), of_b, of_b], rtol=2e-6)
    # Debiased: every negative weighs the same: b has N_g = (e + 1 − .2e)/.9.
    out = debiased(z, rows, relation=same_record, temperature=1.0, tiling=Tiling())
    of_b = math.log1p((e + 1 - 0.2 * e) / 0.9 / e)
    np.testing.assert_allclose(out.per_row, [math.log1p((2 * e - 0.2) / 0.9), math.log(3), of_b, of_b], rtol=2e-6)

    # Multi-similarity with α = β = 1, λ = 0, ε = .1.
    #   a:  s_p = 0, both s_n = 1 > 0 − .1 are kept, and so is 0 < 1 + .1: log(1 + 1) + log(1 + 2e)
    #   a': s_p = 0, both s_n = 0 > −.1, 0 < .1: log 2 + log 3
    #   b:  s_p = 1 < 1 + .1, of s_n = 1 and 0 only 1 > 1 − .1: log(1 + 1/e) + log(1 + e); b' the same.
    settings = {"positive_scale": 1.0, "negative_scale": 1.0, "threshold": 0.0, "slack": 0.1}
    out = multi_similarity(z, rows, relation=same_record, tiling=Tiling(), **settings)
    two, of_b = math.log(2), math.log(1 + 1 / e) + math.log(1 + e)
    np.testing.assert_allclose(out.per_row, [two + math.log(1 + 2 * e), two + math.log(3), of_b, of_b], rtol=1e-6)
    assert float(out.stats["mined_negatives_per_row"]) == (2 + 2 + 1 + 1) / 4
    assert float(out.stats["mined_positives_per_row"]) == 1


@FORMS
def test_forms_agree(num_rows, settings):
    objectives = [
        lambda z, rows, x, tiling: hcl(
            z, rows, relation=same_patient, temperature=x[0], concentration=x[1], tiling=tiling
        ),
        lambda z, rows, x, tiling: debiased(z, rows, relation=same_patient, temperature=x[0], tiling=tiling),
        lambda z, rows, x, tiling: multi_similarity(z, rows, relation=same_patient, tiling=tiling),
    ]

    tried = objectives[:1] if "only" in settings else objectives  # all three go through pairs alike

    def function(z, rows, learnt, tiling):
        return [loss_and_gradients(objective, 1)(z, rows, learnt, tiling=tiling) for objective in tried]

    assert_forms_agree(function, batch_of(num_rows), shared=(jnp.array([0.5, 1.0], jnp.float32),), **settings)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "form"), [("hcl", "ring"), ("debiased", "gathered")])
def test_losses_equal_brute_force_on_two_slices(monkeypatch, loss, form):
    # Ties, rows without negatives, one patient and masked rows are among the cases; a device has three rows.
    monkeypatch.setattr(slices, "slice_of", lambda device: device.id // 4)
    own = Tiling(form, mesh=device_mesh.make_mesh(), chunk=4)
    assert own.num_slices == 2
    function, brute = {
        "hcl": (hcl, lambda z, _, pairs: brute_hcl(z, pairs, t=0.5, beta=1.0, prior=0.1)),
        "debiased": (debiased, lambda z, _, pairs: brute_debiased(z, pairs, t=0.5, prior=0.1)),
    }[loss]
    assert_equals_brute_force(
        lambda z, rows, tiling: function(z, rows, relation=same_patient, temperature=0.5, tiling=own),
        brute,
        prepare=functools.partial(positives_and_negatives, by="patient"),
    )


@pytest.mark.parametrize("prior", [-0.1, 1.0])
def test_prior_out_of_range(prior):
    with pytest.raises(ConfigError, match="positive_prior"):
        hcl(jnp.ones((2, 2)), make_rows([0, 0], [0, 0]), relation=same_record, positive_prior=prior, tiling=Tiling())
