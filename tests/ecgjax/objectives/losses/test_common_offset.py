"""What embeddings or signals have in common changes no distance between them: against float64 at large offsets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax.objectives.losses.representation import statistics
from ecgjax.objectives.losses.triplet import margin, triplet
from ecgjax.objectives.losses.vicreg import vicreg
from ecgjax.objectives.miners import miners, signal_space
from ecgjax.objectives.pairs.distances import DISTANCES, centred, squared_euclidean_matrix
from ecgjax.objectives.pairs.relations import same_patient
from ecgjax.objectives.pairs.tiles import Tiling
from tests.support.objective_cases import assert_gradient, brute_triplet, make_rows, squared, tilings, unit

ROWS, DIM = 96, 16
OFFSETS = (0.0, 1.0, 1e3, 1e4)
KEY = jax.random.key(3, impl="threefry2x32")
BATCH = make_rows(np.arange(ROWS) // 2, np.arange(ROWS) // 4, np.arange(ROWS) % 2, valid=np.arange(ROWS) % 9 != 4)
VALID, PATIENT = np.asarray(BATCH.valid), np.asarray(BATCH.patient)
NOISE = np.random.default_rng(0).normal(size=(ROWS, DIM))


def embeddings_at(offset, *, garbage=0.0):
    """Every dimension about another multiple of the offset; rows that are not valid hold garbage."""
    z = NOISE + offset * np.linspace(-1, 2, DIM)
    return np.where(VALID[:, None], z, garbage).astype(np.float32)


def in_float64(z, *, on_sphere):
    """Squared distances between all rows, each from its difference."""
    z = unit(z) if on_sphere else z.astype(np.float64)
    return ((z[:, None] - z[None]) ** 2).sum(-1)


def nearest_negatives(d):
    """Each row's nearest negative, and whether the second nearest is clearly farther."""
    d = np.where(VALID[:, None] & VALID[None] & (PATIENT[:, None] != PATIENT[None]), d, np.inf)
    first, second = np.sort(d, axis=1)[:, :2].T
    with np.errstate(invalid="ignore"):
        return d.argmin(1), VALID & (second > 1.001 * first)


@functools.cache
def miner(name, distance):
    function = miners.MINERS[name]
    settings = {"relation": same_patient, "distance": DISTANCES[distance], "tiling": Tiling(chunk=32), "key": KEY}
    return jax.jit(functools.partial(function, **settings))


ON_SPHERE = [name for name, each in DISTANCES.items() if each.on_sphere]


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_nearest_negatives_are_those_of_float64_at_any_offset(distance):
    for offset in OFFSETS:
        z = embeddings_at(offset, garbage=1e6)
        found = miner("batch_hard", distance)(jnp.asarray(z), BATCH)
        expected, clear = nearest_negatives(in_float64(z, on_sphere=DISTANCES[distance].on_sphere))
        assert clear.sum() > 0.9 * VALID.sum()
        np.testing.assert_array_equal(found.negative[clear, 0], expected[clear], err_msg=f"offset {offset}")


def cosine_distances(z):
    """1 − cosine between all rows in float64, each from its difference; 1 from rows of zeros."""
    zero = ~z.any(1)
    return np.where(zero[:, None] | zero[None], 1.0, in_float64(z, on_sphere=True) / 2)


def assert_hardest_is_that_of_float64(distance, z, *, bound):
    """Compares with the nearest of the negatives farther than a bound on 1 − cosine, where it is clearly that one."""
    found = jax.jit(functools.partial(miner("hardest", distance).__wrapped__, ceiling=1 - bound))(jnp.asarray(z), BATCH)
    d = cosine_distances(z)
    order = d if distance == "cosine" else in_float64(z, on_sphere=True)
    at_edge = (abs(d - bound) < 1e-3 * bound) & VALID[None] & (PATIENT[:, None] != PATIENT[None])
    expected, clear = nearest_negatives(np.where(d > bound, order, np.inf))
    clear &= ~at_edge.any(1)
    np.testing.assert_array_equal(found.negative[clear, 0], expected[clear])
    return clear, found


@pytest.mark.parametrize("distance", ON_SPHERE)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_the_hardest_negatives_below_a_ceiling_are_those_of_float64_at_any_offset(distance, offset):
    z = embeddings_at(offset, garbage=1e6)
    d = np.where(VALID[:, None] & VALID[None] & (PATIENT[:, None] != PATIENT[None]), cosine_distances(z), np.inf)
    bound = np.median(d.min(1)[VALID])  # for half of the rows there is a nearer negative that is none
    clear, _ = assert_hardest_is_that_of_float64(distance, z, bound=bound)
    assert clear.sum() > 0.8 * VALID.sum()
    assert 0.3 < (d.min(1)[clear] < bound).mean() < 0.7


@pytest.mark.parametrize("distance", ON_SPHERE)
def test_rows_of_zeros_have_cosine_0_and_change_no_other_choice_at_a_large_offset(distance):
    z, zero = embeddings_at(1e3), np.isin(np.arange(ROWS), [10, 21, 50])
    z[zero] = 0
    assert VALID[zero].all()
    expected, clear = nearest_negatives(in_float64(z, on_sphere=True))
    clear &= ~zero
    assert clear.sum() > 0.9 * VALID.sum()
    found = miner("batch_hard", distance)(jnp.asarray(z), BATCH)
    np.testing.assert_array_equal(found.negative[clear, 0], expected[clear])
    # Of what is left with this ceiling only rows of zeros are far enough, and every row is from them.
    _, found = assert_hardest_is_that_of_float64(distance, z, bound=0.6)
    assert np.asarray(found.found)[VALID, 0].all()
    assert zero[found.negative[VALID & ~zero, 0]].all()


def test_the_cosine_distance_is_that_of_float64_with_its_gradient_and_1_from_zeros():
    for offset in (0.0, 1e3):
        z = embeddings_at(offset)
        z[[7, 9]] = 0
        distance, expected = DISTANCES["cosine"], cosine_distances(z)
        points = distance.points(jnp.asarray(z), distance.shift(jnp.asarray(z), BATCH.valid))
        prepared = distance.prepare(jnp.asarray(z))
        pairs = distance.of_pairs(prepared[:, None], prepared[None])
        scale = expected[expected < 1].max()
        for found in (distance.matrix(points, points), pairs):
            ones = expected == 1
            np.testing.assert_array_equal(np.asarray(found)[ones], 1)
            # The rounding of unit vectors, 6e-8, is 1e-4 of what lies between them at an offset of 1,000.
            np.testing.assert_allclose(found[~ones], expected[~ones], rtol=1e-3, atol=1e-4 * scale)
        weight = np.random.default_rng(1).normal(size=(ROWS, ROWS))

        def total(z, weight=weight):
            u = DISTANCES["cosine"].prepare(z)
            return (jnp.asarray(weight, jnp.float32) * DISTANCES["cosine"].of_pairs(u[:, None], u[None])).sum()

        gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(z)), np.float64)
        u, both = unit(z), weight + weight.T
        np.fill_diagonal(both, 0)
        length = np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
        # Of -Σ_k w (u·k), only what turns the row: along differences, of which alone there are digits.
        apart = (both[:, :, None] * (u[:, None] - u[None]) * (length[None] > 0)).sum(1)
        exact = np.where(length > 0, (apart - (apart * u).sum(1, keepdims=True) * u) / np.maximum(length, 1e-9), 0)
        np.testing.assert_allclose(gradient, exact, rtol=2e-3, atol=2e-3 * abs(exact).max())
        assert not gradient[[7, 9]].any()


def test_negatives_between_two_distances_are_those_of_float64_at_a_large_offset():
    z = embeddings_at(1e3)
    found = miner("semi_hard", "euclidean")(jnp.asarray(z), BATCH)
    d = np.sqrt(in_float64(z, on_sphere=False))
    negative = VALID[None] & (PATIENT[:, None] != PATIENT[None])
    checked = 0
    for i in np.flatnonzero(found.found[:, 0]):
        low = d[i, found.positive[i, 0]]
        within = np.flatnonzero(negative[i] & (d[i] > low) & (d[i] < low + 0.2))
        if len(within) and min(np.abs(d[i, negative[i]] - edge).min() for edge in (low, low + 0.2)) > 1e-4:
            assert found.negative[i, 0] == within[d[i, within].argmin()]
            checked += 1
    assert checked > ROWS / 2


def test_the_choice_is_the_same_on_any_number_of_devices_at_a_large_offset():
    run = functools.partial(miners.batch_hard, relation=same_patient, distance=DISTANCES["euclidean"])
    z = jnp.asarray(embeddings_at(1e3, garbage=np.nan))
    expected = miner("batch_hard", "euclidean")(z, BATCH)
    for name, tiling in tilings(5).items():
        placed = jax.device_put((z, BATCH), NamedSharding(tiling.mesh, PartitionSpec("data")))
        found = jax.jit(functools.partial(run, tiling=tiling))(*placed)
        shifted = jax.jit(centred)(placed[0], placed[1].valid)
        np.testing.assert_array_equal(found.negative[VALID], expected.negative[VALID], err_msg=name)
        np.testing.assert_array_equal(found.positive[VALID], expected.positive[VALID], err_msg=name)
        np.testing.assert_array_equal(shifted[VALID], centred(z, BATCH.valid)[VALID], err_msg=name)


def test_rows_about_the_origin_are_left_as_they_are_to_the_last_bit():
    for z in (NOISE, 1e-3 * NOISE, 1e3 * NOISE, np.zeros((ROWS, DIM))):
        z = z.astype(np.float32)
        np.testing.assert_array_equal(centred(jnp.asarray(z), BATCH.valid), z)
    nobody = jnp.zeros(ROWS, bool)
    np.testing.assert_array_equal(centred(jnp.asarray(z), nobody), z)
    equal = centred(jnp.full((ROWS, DIM), 1234.5, jnp.float32), jnp.ones(ROWS, bool))
    np.testing.assert_array_equal(equal, np.broadcast_to(equal[0], equal.shape))


def test_a_valid_row_that_is_not_finite_spoils_its_own_distances_alone():
    z = embeddings_at(1.0)
    z[0, 0] = np.inf
    found = np.asarray(centred(jnp.asarray(z), BATCH.valid))
    assert np.isfinite(found[1:]).all()


@pytest.mark.parametrize("offset", OFFSETS)
def test_the_gradient_of_distances_needs_none_of_the_shift(offset):
    z = embeddings_at(offset)
    weight = np.random.default_rng(1).normal(size=(ROWS, ROWS)) * (VALID[:, None] & VALID[None])

    def total(z):
        shifted = centred(z, BATCH.valid)
        return (jnp.asarray(weight, jnp.float32) * squared_euclidean_matrix(shifted, shifted)).sum()

    both, exact = weight + weight.T, z.astype(np.float64)
    expected = 2 * (both.sum(1)[:, None] * exact - both @ exact)
    found = jax.jit(jax.grad(total))(jnp.asarray(z))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def brute_margin(z, mined, *, alpha, beta):
    """Wu et al. 2017, eq. 5-6, of Euclidean distances."""
    terms = []
    for i in np.flatnonzero(mined.found[:, 0]):
        near, far = (np.sqrt(squared(z[i], z[k])) for k in (mined.positive[i, 0], mined.negative[i, 0]))
        terms += [max(0.0, near - beta + alpha), max(0.0, beta - far + alpha)]
    return sum(terms) / max(sum(term > 0 for term in terms), 1)


@pytest.mark.parametrize("name", ["triplet", "margin"])
def test_losses_and_gradients_are_those_of_float64_at_any_offset(name):
    mine = functools.partial(miners.batch_hard, distance=DISTANCES["euclidean"])
    common = {"relation": same_patient, "miner": mine, "tiling": Tiling(chunk=32), "key": KEY}
    loss, brute = {
        "triplet": (
            functools.partial(triplet, margin=9.0, **common),
            lambda z, mined: brute_triplet(z, mined, form="hinge", width=9.0)[0],
        ),
        "margin": (
            functools.partial(margin, distance=DISTANCES["euclidean"], alpha=1.0, beta=4.0, **common),
            functools.partial(brute_margin, alpha=1.0, beta=4.0),
        ),
    }[name]
    run = jax.jit(jax.value_and_grad(lambda z: loss(z, BATCH).loss))
    for offset in OFFSETS:
        z = embeddings_at(offset)
        value, gradient = run(jnp.asarray(z))
        mined = jax.tree.map(np.asarray, miner("batch_hard", "euclidean")(jnp.asarray(z), BATCH))
        exact = functools.partial(brute, mined=mined)
        assert float(value) == pytest.approx(exact(z.astype(np.float64)), rel=1e-5)
        assert_gradient(gradient, exact, z, err_msg=f"offset {offset}")


@pytest.mark.parametrize("offset", OFFSETS)
def test_nearest_signals_are_those_of_float64_at_any_offset(offset):
    rows = make_rows(np.arange(ROWS), np.arange(ROWS), valid=VALID)
    signals = embeddings_at(offset, garbage=1e6).reshape(ROWS, DIM // 2, 2)
    find = functools.partial(signal_space.nearest_and_farthest, distance=signal_space.l2, tiling=Tiling(chunk=7))
    d = in_float64(signals.reshape(ROWS, DIM), on_sphere=False)
    d = np.where(VALID[:, None] & VALID[None] & ~np.eye(ROWS, dtype=bool), d, np.inf)
    first, second = np.sort(d, axis=1)[:, :2].T
    clear = VALID & (second > 1.001 * np.where(VALID, first, 0))
    assert clear.sum() > 0.9 * VALID.sum()
    np.testing.assert_array_equal(find(jnp.asarray(signals), rows).nearest[clear], d.argmin(1)[clear])


@pytest.mark.parametrize("offset", [1.0, 1e3])
def test_alignment_and_uniformity_keep_their_digits_when_embeddings_all_but_collapse(offset):
    z = embeddings_at(offset)
    valid = np.repeat(VALID.reshape(-1, 2).all(1), 2)
    found = jax.jit(functools.partial(statistics, num_views=2))(jnp.asarray(z), jnp.asarray(valid))
    records = unit(z[valid]).reshape(-1, 2, DIM)
    aligned = ((records[:, 0] - records[:, 1]) ** 2).sum(1).mean()
    apart = ((records[:, None, 0] - records[None, :, 0]) ** 2).sum(-1)[~np.eye(len(records), dtype=bool)]
    # The rounding of unit vectors, 6e-8, is of this size beside their distances at an offset of 1,000.
    np.testing.assert_allclose(found["alignment"], aligned, rtol=2e-4)
    np.testing.assert_allclose(found["uniformity"], np.log1p(np.expm1(-2 * apart).mean()), rtol=2e-4)


def test_vicreg_sees_what_little_covariance_decorrelated_dimensions_have_left():
    count = 64
    x = np.random.default_rng(0).normal(size=(count, DIM))
    q = 80 * np.linalg.qr(x - x.mean(0))[0]
    q[:, 1] += 1e-4 * q[:, 0]
    z = np.repeat(q, 2, axis=0).astype(np.float32)
    rows = make_rows(np.arange(2 * count) // 2, np.arange(2 * count) // 2)
    covariance = np.cov(z[::2].astype(np.float64).T)
    expected = 2 * ((covariance - np.diag(np.diag(covariance))) ** 2).sum() / DIM
    assert expected > 1e-5
    assert float(jax.jit(vicreg)(jnp.asarray(z), rows).stats["covariance"]) == pytest.approx(expected, rel=0.01)
