"""Triplet, margin and angular losses against brute force in float64; their forms, and the memory that they take."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.triplet import TRIPLET_LOSSES, angular, margin, triplet
from ecgjax.objectives.miners import miners
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.relations import same_patient, same_record
from ecgjax.objectives.pairs.tiles import Tiling
from tests.support.objective_cases import (
    CASES,
    EMBEDDINGS,
    NUM_ROWS,
    SMOOTH,
    assert_fits,
    assert_forms_agree,
    assert_gradient,
    batch_of,
    brute_triplet,
    columns,
    loss_and_gradients,
    make_rows,
    squared,
    unit,
)

KEY = jax.random.key(9, impl="threefry2x32")
TILED = Tiling(chunk=7)  # which does not divide 24
RANDOM = functools.partial(miners.random, triplets=2)
SEMI_HARD = functools.partial(miners.semi_hard, distance=DISTANCES["euclidean_on_sphere"])
BATCH_HARD = functools.partial(miners.batch_hard, distance=DISTANCES["euclidean"])
LABELS = np.arange(NUM_ROWS, dtype=np.float32) // 4 % 3
LABELS[[2, 3]] = np.nan


def f32(x):
    return jnp.asarray(x, jnp.float32)


@functools.partial(jax.jit, static_argnames="miner")
def triplets_of(z, rows, miner=RANDOM):
    """What a miner chose, which its own tests check: the losses here start from it."""
    return miner(z, rows, relation=same_patient, tiling=TILED, key=KEY)


@pytest.mark.parametrize("form", ["hinge", "soft"])
def test_triplet_equals_brute_force(form):
    width = 0.7 if form == "hinge" else None
    loss = functools.partial(
        triplet, relation=same_patient, miner=RANDOM, form=form, margin=width, tiling=TILED, key=KEY
    )
    run = jax.jit(jax.value_and_grad(lambda z, rows: (out := loss(z, rows), (out.loss, out))[1], has_aux=True))
    for rows in CASES.values():
        for kind, z in EMBEDDINGS.items():
            mined = jax.tree.map(np.asarray, triplets_of(f32(z), rows))
            (value, out), gradient = run(f32(z), rows)
            expected, active = brute_triplet(z, mined, form=form, width=width)
            assert float(value) == pytest.approx(expected, rel=2e-5, abs=2e-5)
            if kind in SMOOTH:
                assert float(out.stats["active_frac"]) == pytest.approx(active, abs=1e-6)
                assert_gradient(gradient, lambda z: brute_triplet(z, mined, form=form, width=width)[0], z)  # noqa: B023
            else:
                assert np.isfinite(gradient).all()
            similarity = [
                max(unit(z[i]) @ unit(z[j]) for j in mined.negative[i, mined.found[i]])
                for i in np.flatnonzero(mined.found.any(1))
            ]
            expected = np.mean(similarity) if similarity else 0
            assert float(out.stats["hardest_negative_similarity"]) == pytest.approx(expected, abs=1e-5)


def test_triplet_by_hand():
    # On a line: record 0 has a = 0 and a' = 1, record 1 has b = 1.5 and b' = 4. Batch-hard pairs every row with its
    # other view and with its nearest negative: a→b, a'→b, b→a', b'→a'. In squared distances, with margin .2:
    #   a: 1 − 2.25 + .2 < 0 → 0;  a': 1 − .25 + .2 = .95;  b: 6.25 − .25 + .2 = 6.2;  b': 6.25 − 9 + .2 < 0 → 0.
    z, rows = f32([[0], [1], [1.5], [4]]), make_rows([0, 0, 1, 1], [0, 0, 1, 1])
    run = functools.partial(triplet, relation=same_record, miner=BATCH_HARD, tiling=Tiling(), key=KEY)
    out = jax.jit(run)(z, rows)
    np.testing.assert_allclose(out.per_row, [0, 0.95, 6.2, 0], rtol=1e-6)
    assert float(out.loss) == pytest.approx(7.15 / 4)
    assert float(out.stats["active_frac"]) == 0.5
    soft = jax.jit(functools.partial(run, form="soft", distance=DISTANCES["euclidean"]))(z, rows)
    # Unsquared and soft: log(1 + e^{1 − 1.5}), log(1 + e^{1 − .5}), log(1 + e^{2.5 − .5}), log(1 + e^{2.5 − 3}).
    np.testing.assert_allclose(soft.per_row, [math.log1p(math.exp(x)) for x in (-0.5, 0.5, 2, -0.5)], rtol=1e-6)


def brute_margin(z, beta, mined, labels):
    """Wu et al. 2017, eq. 5–6, in float64, with a β for each class or for all; also the share of active terms."""
    u, terms = unit(z), []
    for i in range(len(z)):
        if np.ndim(beta) and np.isnan(labels[i]):
            continue
        boundary = beta[int(labels[i])] if np.ndim(beta) else beta
        for k in np.flatnonzero(mined.found[i]):
            terms.append(np.sqrt(squared(u[i], u[mined.positive[i, k]])) - boundary + 0.2)
            terms.append(boundary - np.sqrt(squared(u[i], u[mined.negative[i, k]])) + 0.2)
    active = [x for x in terms if x > 0]
    return (np.mean(active), len(active) / len(terms)) if active else (0.0, 0.0)


@pytest.mark.parametrize("beta", [1.2, [1.2, 0.9, 1.1]], ids=["one beta", "a beta for each class"])
def test_margin_equals_brute_force(beta):
    beta = np.asarray(beta)

    def loss(z, beta, rows):
        out = margin(z, rows, relation=same_patient, miner=RANDOM, beta=beta, tiling=TILED, key=KEY)
        return out.loss, out

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    for rows in CASES.values():
        for kind, z in EMBEDDINGS.items():
            rows = rows._replace(label=jnp.asarray(LABELS))
            mined = jax.tree.map(np.asarray, triplets_of(f32(z), rows))
            (value, out), (of_z, of_beta) = run(f32(z), f32(beta), rows)
            expected, active = brute_margin(z, beta, mined, LABELS)
            assert float(value) == pytest.approx(expected, rel=2e-5, abs=2e-5)
            if kind in SMOOTH:
                assert float(out.stats["active_frac"]) == pytest.approx(active, abs=1e-6)
                assert_gradient(of_z, lambda z: brute_margin(z, beta, mined, LABELS)[0], z)  # noqa: B023
                assert_gradient(of_beta, lambda beta: brute_margin(z, beta, mined, LABELS)[0], beta)  # noqa: B023
            else:
                assert np.isfinite(of_z).all()
                assert np.isfinite(of_beta).all()


def test_margin_by_hand():
    # Unit vectors in the plane: record 0 at (1, 0) and (0, 1), record 1 at (−1, 0) and (0, −1): every row is √2 from
    # its other view and from one negative, and 2 from the other. The nearest negative is at √2 = 1.414. With β = 1.2
    # and α = .2 the positive's term is 1.414 − 1.2 + .2 = .414, the negative's 1.2 − 1.414 + .2 = −.014 → 0; the mean
    # over the active terms, one a row, is .414.
    z, rows = f32([[1, 0], [0, 1], [-1, 0], [0, -1]]), make_rows([0, 0, 1, 1], [0, 0, 1, 1])
    run = functools.partial(margin, relation=same_record, miner=BATCH_HARD, tiling=Tiling(), key=KEY)
    out = jax.jit(run)(z, rows)
    assert float(out.loss) == pytest.approx(math.sqrt(2) - 1, rel=1e-5)
    assert float(out.stats["active_frac"]) == 0.5
    assert float(out.stats["beta"]) == pytest.approx(1.2)


def brute_angular(z, rows, chosen, *, degrees, l2_form="squared_norm"):
    """Wang et al. 2017, eq. 6–8, with N-pair's L2 term, in float64 by loops; positives as drawn."""
    power = {"squared_norm": 1.0, "norm": 0.5}[l2_form]
    _, patient, valid = columns(rows)
    u, tan2, losses = unit(z), math.tan(math.radians(degrees)) ** 2, []
    for i in range(len(z)):
        negatives = [j for j in range(len(z)) if valid[i] and valid[j] and patient[i] != patient[j]]
        if not chosen.found[i, 0] or not negatives:
            continue
        p = chosen.positive[i, 0]
        npair = [z[i] @ z[n] - z[i] @ z[p] for n in negatives]
        angles = [4 * tan2 * (u[i] + u[p]) @ u[n] - 2 * (1 + tan2) * u[i] @ u[p] for n in negatives]
        log_sums = [np.logaddexp.reduce([0.0, *terms]) for terms in (npair, angles)]
        losses.append(log_sums[0] + 2 * log_sums[1] + 0.005 * (z[i] @ z[i]) ** power)
    return np.mean(losses) if losses else 0.0


@pytest.mark.parametrize("l2_form", ["squared_norm", "norm"])
def test_angular_equals_brute_force(l2_form):
    degrees = 36.0  # the case by hand has 45, whose tangent is 1
    loss = functools.partial(angular, relation=same_patient, degrees=degrees, l2_form=l2_form, tiling=TILED, key=KEY)
    run = jax.jit(jax.value_and_grad(lambda z, rows: loss(z, rows).loss))
    for rows in CASES.values():
        for kind, z in EMBEDDINGS.items():
            # The positive is the one that the random miner draws with this key.
            chosen = jax.tree.map(np.asarray, triplets_of(f32(z), rows, miner=miners.random))
            value, gradient = run(f32(z), rows)
            brute = functools.partial(brute_angular, rows=rows, chosen=chosen, degrees=degrees, l2_form=l2_form)
            assert float(value) == pytest.approx(brute(z), rel=2e-5, abs=2e-5)
            if kind != "all equal":
                assert_gradient(gradient, brute, z)


def test_the_norm_of_an_embedding_of_zeros_has_no_gradient():
    # An L2 term alone: what is at 0 stays there, and all others are drawn towards it with the same force.
    z, rows = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]), make_rows([0, 0, 1, 1], [0, 0, 1, 1])
    loss = functools.partial(angular, relation=same_record, tiling=Tiling(), key=KEY, angular_weight=0.0)

    def l2_alone(z, form):
        with_l2, without = (loss(z, rows, l2_form=form, l2_weight=weight).loss for weight in (1.0, 0.0))
        return with_l2 - without

    for form, value, gradient in (
        ("norm", (5 + 2) / 4, [[0, 0], [0.6, 0.8], [0, 0], [0, -1]]),
        ("squared_norm", (25 + 4) / 4, [[0, 0], [6, 8], [0, 0], [0, -4]]),
    ):
        found = jax.jit(jax.value_and_grad(functools.partial(l2_alone, form=form)))(f32(z))
        assert float(found[0]) == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose(found[1], np.array(gradient) / 4, rtol=1e-5, atol=1e-6)


def test_angular_by_hand():
    # Record 0 at (1, 0) and (0, 1), record 1 at (−1, 0) twice; α = 45°, so tan²α = 1. For a = (1, 0), p = (0, 1):
    #   N-pair: a·p = 0 and both negatives have a·n = −1: log(1 + 2 e^{−1}).
    #   Angular: 4 (a + p)·n − 4 a·p = −4 for both: log(1 + 2 e^{−4}). L2: 1.
    # For a = (0, 1), p = (1, 0): a·n = 0: log 3; 4 (a + p)·n = −4: log(1 + 2 e^{−4}); 1.
    # For a = p = (−1, 0), negatives (1, 0) and (0, 1): a·n − a·p = −2 and −1: log(1 + e^{−2} + e^{−1});
    #   4 (a + p)·n − 4 = −8 − 4 = −12 and −4: log(1 + e^{−12} + e^{−4}); 1.
    z, rows = f32([[1, 0], [0, 1], [-1, 0], [-1, 0]]), make_rows([0, 0, 1, 1], [0, 0, 1, 1])
    out = jax.jit(functools.partial(angular, relation=same_record, tiling=Tiling(), key=KEY))(z, rows)
    e = math.exp
    last = math.log(1 + e(-2) + e(-1)) + 2 * math.log(1 + e(-12) + e(-4)) + 0.005
    wide = 2 * math.log(1 + 2 * e(-4)) + 0.005
    np.testing.assert_allclose(out.per_row, [math.log(1 + 2 * e(-1)) + wide, math.log(3) + wide, last, last], rtol=1e-6)
    assert float(out.stats["valid_negatives_per_anchor"]) == 2
    assert float(out.stats["active_frac"]) == 0
    # The most similar negative: (−1, 0) at −1, (−1, 0) at 0, and (0, 1) at 0 twice.
    assert float(out.stats["hardest_negative_similarity"]) == pytest.approx(-0.25)


# What runs over devices and tiles, all three have in common.
@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("triplet", None),
        *((name, "ring on 8 devices") for name in TRIPLET_LOSSES if name != "triplet"),
        *(pytest.param(name, None, marks=pytest.mark.slow) for name in TRIPLET_LOSSES if name != "triplet"),
    ],
)
def test_forms_agree(name, only):
    z, rows = batch_of(64)
    own = {"l2_form": "norm"} if name == "angular" else {"miner": SEMI_HARD}
    settings = {"relation": same_patient, "key": KEY} | own
    if name == "margin":
        rows = rows._replace(label=jnp.asarray(np.arange(64) // 4 % 3, jnp.float32))

        def objective(z, rows, beta, *, tiling):
            return margin(z, rows, beta=beta, tiling=tiling, **settings)

        shared = (f32([1.2, 1.0, 0.8]),)
        assert_forms_agree(loss_and_gradients(objective, num_shared=1), (z, rows), shared=shared, only=only)
    else:
        objective = functools.partial(TRIPLET_LOSSES[name], **settings)
        assert_forms_agree(loss_and_gradients(objective), (z, rows), only=only)


@pytest.mark.parametrize("name", TRIPLET_LOSSES)
def test_permuting_rows_permutes_losses(name):
    z, rows = batch_of(64)
    own = {} if name == "angular" else {"miner": SEMI_HARD}
    run = jax.jit(
        functools.partial(TRIPLET_LOSSES[name], relation=same_patient, tiling=Tiling(chunk=24), key=KEY, **own)
    )
    order = np.random.default_rng(3).permutation(64)
    shuffled = jax.tree.map(lambda x: x[order], rows)
    np.testing.assert_allclose(run(z[order], shuffled).per_row, run(z, rows).per_row[order], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_semi_hard_triplet_of_32768_rows_fits():
    assert_fits(functools.partial(triplet, relation=same_record, miner=SEMI_HARD, key=KEY), mib=220)


def test_refuses_what_it_cannot_do():
    z, rows = f32(EMBEDDINGS["random"]), CASES["two views each"]
    settings = {"relation": same_record, "miner": BATCH_HARD, "tiling": Tiling(), "key": KEY}
    with pytest.raises(ConfigError, match="form='squared' must be one of: hinge, soft"):
        triplet(z, rows, form="squared", **settings)
    with pytest.raises(ConfigError, match="l2_form='l1' must be one of: squared_norm, norm"):
        angular(z, rows, relation=same_record, l2_form="l1", tiling=Tiling(), key=KEY)
    with pytest.raises(ConfigError, match="looks at 'label'"):
        margin(z, rows, beta=f32([1.0, 1.2]), **settings)
