"""Miners against plain loops, their draws against the distributions they are named for, and in every form."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from ecgjax.errors import ConfigError
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.miners.winners import Winners
from ecgjax.objectives.pairs import hashing
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.relations import nearest_signal, same_label, same_patient, same_record
from ecgjax.objectives.pairs.tiles import Tiling
from tests.support.objective_cases import CASES, EMBEDDINGS, NUM_ROWS, batch_of, columns, make_rows, tilings, unit

RNG = np.random.default_rng(21)
KEY = jax.random.key(5, impl="threefry2x32")

#: Chi-square tests of distributions fail by chance with this probability each; the keys are fixed, so they never do.
LEVEL = 1e-3

#: Inner products of these are exact in float32, and ties frequent.
EXACT = {
    "signs": RNG.choice([-1.0, 1.0], size=(NUM_ROWS, 4)),
    "all equal": np.ones((NUM_ROWS, 4)),
    "random": RNG.normal(size=(NUM_ROWS, 4)),
}
LABELS = RNG.integers(0, 4, size=NUM_ROWS).astype(np.float32)
LABELS[[3, 10]] = np.nan

IN_FLOAT64 = {
    "squared_euclidean": lambda a, b: ((a - b) ** 2).sum(),
    "euclidean": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
    "euclidean_on_sphere": lambda a, b: np.sqrt(((unit(a) - unit(b)) ** 2).sum()),
    "cosine": lambda a, b: 1 - unit(a) @ unit(b),
}


def mine(name, z, rows, *, relation=same_record, distance="euclidean", tiling=None, key=KEY, **own):
    if "distance" in inspect.signature(MINERS[name]).parameters:
        own["distance"] = DISTANCES[distance]
    return MINERS[name](z, rows, relation=relation, tiling=tiling or Tiling(chunk=7), key=key, **own)


def jitted(name, **settings):
    """Compiled, and its result in NumPy, which loops may look into without compiling anything more."""
    run = jax.jit(functools.partial(mine, name, **settings))
    return lambda *args, **own: jax.tree.map(np.asarray, run(*args, **own))


def f32(x):
    return jnp.asarray(x, jnp.float32)


def partners(rows, by="record"):
    """Of each row, the rows that may be its positives and its negatives."""
    record, patient, valid = columns(rows)
    group = record if by == "record" else patient
    n = len(record)
    positives = [[j for j in range(n) if j != i and valid[i] and valid[j] and group[i] == group[j]] for i in range(n)]
    negatives = [
        [j for j in range(n) if valid[i] and valid[j] and group[i] != group[j] and patient[i] != patient[j]]
        for i in range(n)
    ]
    return positives, negatives


def distances_in_float64(z, name):
    # Rounded, so that what ties on paper ties here: the vectors of EXACT are either exact or far from ties.
    return np.round([[IN_FLOAT64[name](a, b) for b in z] for a in z], 9)


def extreme(among, score):
    """The key with the highest score, the lowest row among equals."""
    return max(among, key=lambda j: (score[j], -j))


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_batch_hard_equals_brute_force(distance):
    run = jitted("batch_hard", distance=distance, relation=same_patient)
    for rows in CASES.values():
        positives, negatives = partners(rows, by="patient")
        for z in EXACT.values():
            d = distances_in_float64(z, distance)
            found = run(f32(z), rows)
            for i in range(NUM_ROWS):
                assert bool(found.found[i, 0]) == bool(positives[i] and negatives[i])
                if found.found[i, 0]:
                    assert found.positive[i, 0] == extreme(positives[i], d[i])
                    assert found.negative[i, 0] == extreme(negatives[i], -d[i])


@pytest.mark.parametrize(
    ("distance", "choice", "fallback", "margin"),
    [
        ("squared_euclidean", "nearest", "farthest", 5.0),
        ("euclidean_on_sphere", "nearest", "random", 0.3),
        ("euclidean", "random", "random", 0.7),
    ],
)
def test_semi_hard_equals_brute_force(distance, choice, fallback, margin):
    own = {"margin": margin, "choice": choice, "fallback": fallback}
    run = jitted("semi_hard", distance=distance, relation=same_patient, **own)
    hits = 0
    for rows in CASES.values():
        positives, negatives = partners(rows, by="patient")
        rows = rows._replace(label=jnp.asarray(LABELS))
        for z in EXACT.values():
            d = distances_in_float64(z, distance)
            found = run(f32(z), rows)
            fell_back, false, known = [], [], 0
            for i in range(NUM_ROWS):
                assert bool(found.found[i, 0]) == bool(positives[i] and negatives[i])
                if not found.found[i, 0]:
                    continue
                p, n = int(found.positive[i, 0]), int(found.negative[i, 0])
                assert p in positives[i]
                within = [j for j in negatives[i] if d[i, p] < d[i, j] < d[i, p] + margin]
                if within and choice == "nearest":
                    assert n == extreme(within, -d[i])
                elif within:
                    assert n in within
                elif fallback == "farthest":
                    assert n == extreme(negatives[i], d[i])
                else:
                    assert n in negatives[i]
                fell_back.append(not within)
                if np.isfinite(LABELS[i]) and np.isfinite(LABELS[n]):
                    known += 1
                    false.append(LABELS[i] == LABELS[n])
            hits += len(fell_back) - sum(fell_back)
            valid = max(int(np.sum(np.asarray(rows.valid))), 1)
            assert float(found.stats["fallback_frac"]) == pytest.approx(np.mean(fell_back) if fell_back else 0)
            assert float(found.stats["false_negative_frac"]) == pytest.approx(sum(false) / max(known, 1))
            assert float(found.stats["found_frac"]) == pytest.approx(len(fell_back) / valid)
            expected = sum(len(x) for x in negatives) / valid
            assert float(found.stats["valid_negatives_per_anchor"]) == pytest.approx(expected, rel=1e-6)
    assert hits > 100, "the cases should have semi-hard negatives at all"


def test_hardest_equals_brute_force():
    run = jitted("hardest", distance="cosine", ceiling=0.6, triplets=3, relation=same_patient)
    for rows in CASES.values():
        positives, negatives = partners(rows, by="patient")
        for z in EXACT.values():
            cosine = 1 - distances_in_float64(z, "cosine")
            found = run(f32(z), rows)
            for i in range(NUM_ROWS):
                below = sorted((j for j in negatives[i] if cosine[i, j] < 0.6), key=lambda j: (-cosine[i, j], j))[:3]
                expected = below if positives[i] else []
                assert found.found[i].tolist() == [k < len(expected) for k in range(3)]
                assert found.negative[i, : len(expected)].tolist() == expected
                if expected:
                    chosen = found.positive[i].tolist()
                    assert set(chosen) <= set(positives[i])
                    assert len(set(chosen)) == min(3, len(positives[i])), "positives differ as far as there are enough"


def test_label_distance_equals_brute_force():
    run = jitted("label_distance")
    for rows in CASES.values():
        record, patient, valid = columns(rows)
        found = run(f32(EXACT["random"]), rows._replace(label=jnp.asarray(LABELS)))
        for i in range(NUM_ROWS):
            others = [
                j
                for j in range(NUM_ROWS)
                if j != i and valid[i] and valid[j] and np.isfinite(LABELS[i]) and np.isfinite(LABELS[j])
            ]
            apart = np.abs(LABELS - LABELS[i])
            # Of `same_record` the pairs of other recordings are those of other patients.
            strangers = [j for j in others if record[j] != record[i] and patient[j] != patient[i]]
            if strangers and max(apart[strangers]) > min(apart[strangers]):
                assert found.found[i, 0]
                assert found.positive[i, 0] == extreme(strangers, -apart)
                assert found.negative[i, 0] == extreme(strangers, apart)
            else:
                assert not found.found[i, 0]


def test_four_rows_by_hand():
    # On a line: record 0 has views a = 0 and a' = 1, record 1 has b = 1.5 and b' = 4. Distances:
    #   a–a' 1, a–b 1.5, a–b' 4, a'–b .5, a'–b' 3, b–b' 2.5.
    # Batch-hard (Hermans et al. 2017): the only positive, and the nearest negative: a→b, a'→b, b→a', b'→a'.
    # Semi-hard (Schroff et al. 2015) with margin 1 looks for a negative
    #   of a in (1, 2): b at 1.5; of a' in (1, 2): none, so the farthest, b'; of b in (2.5, 3.5): none, so a at 1.5;
    #   of b' in (2.5, 3.5): a' at 3.
    # Half of the anchors fall back.
    z, rows = f32([[0], [1], [1.5], [4]]), make_rows([0, 0, 1, 1], [0, 0, 1, 1])
    hard = jitted("batch_hard")(z, rows)
    semi = jitted("semi_hard", margin=1.0)(z, rows)
    for found in (hard, semi):
        assert found.found.all()
        assert found.positive[:, 0].tolist() == [1, 0, 3, 2]
    assert hard.negative[:, 0].tolist() == [2, 2, 1, 1]
    assert semi.negative[:, 0].tolist() == [2, 3, 0, 1]
    assert float(semi.stats["fallback_frac"]) == 0.5


def test_distance_weighted_falls_back_to_the_nearest_negative():
    # Record 1 lies opposite to record 0, at distance 2; record 2 at a right angle to both, at √2 > 1.4.
    z = f32([[1, 0], [1, 0], [-1, 0], [-1, 0], [0, 1], [0, 1]])
    rows = make_rows([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    found = jitted("distance_weighted", distance="euclidean_on_sphere")(z, rows)
    assert found.negative[:, 0].tolist() == [4, 4, 4, 4, 0, 0]
    assert float(found.stats["fallback_frac"]) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Draws.

NUM_DRAWS = 4000
KEYS = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(KEY, jnp.arange(NUM_DRAWS, dtype=jnp.int32))
ROWS = make_rows(np.arange(NUM_ROWS) // 2, np.arange(NUM_ROWS) // 4, valid=np.arange(NUM_ROWS) % 9 != 5)
Z = RNG.normal(size=(NUM_ROWS, 6))


def draws(name, z=Z, rows=ROWS, *, relation=same_patient, distance="euclidean_on_sphere", **own):
    """Positives and negatives of each draw and row, `i32[draws, rows]`, and the statistics of each draw."""
    run = functools.partial(mine, name, relation=relation, distance=distance, **own)
    found = jax.jit(jax.vmap(lambda key: run(f32(z), rows, key=key)))(KEYS)
    np.testing.assert_array_equal(found.found[..., 0], np.broadcast_to(rows.valid, (NUM_DRAWS, NUM_ROWS)))
    return np.asarray(found.positive[..., 0]), np.asarray(found.negative[..., 0]), found.stats


def assert_distributed(drawn, weights):
    """Chi-square test of draws of one row against `{key: weight}`; keys that are expected rarely are put together."""
    keys = sorted(weights)
    assert set(np.unique(drawn)) <= set(keys)
    expected = np.array([weights[j] for j in keys]) / sum(weights.values()) * len(drawn)
    observed = np.array([(drawn == j).sum() for j in keys])
    rare = expected < 5
    if rare.any():
        expected, observed = (np.append(x[~rare], x[rare].sum()) for x in (expected, observed))
    if len(expected) > 1:
        assert stats.chisquare(observed, expected).pvalue > LEVEL


def test_random_is_uniform_and_its_two_draws_independent():
    positives, negatives = partners(ROWS, by="patient")
    positive, negative, _ = draws("random")
    for i in (0, 7, 22):
        assert_distributed(positive[:, i], dict.fromkeys(positives[i], 1.0))
        assert_distributed(negative[:, i], dict.fromkeys(negatives[i], 1.0))
    table = stats.contingency.crosstab(positive[:, 0], negative[:, 0]).count
    assert stats.contingency.chi2_contingency(table).pvalue > LEVEL
    table = stats.contingency.crosstab(negative[:, 0], negative[:, 22]).count
    assert stats.contingency.chi2_contingency(table).pvalue > LEVEL, "nor do two anchors draw alike"


def test_npair_draws_by_label():
    rows = ROWS._replace(label=jnp.asarray(np.arange(NUM_ROWS) // 2 % 3, jnp.float32))
    positive, negative, found = draws("npair", rows=rows, relation=same_label)
    record, patient, valid = columns(rows)
    label = np.asarray(rows.label)
    others = [j for j in range(NUM_ROWS) if j != 0 and valid[j]]
    assert_distributed(positive[:, 0], {j: 1.0 for j in others if record[j] == record[0] or label[j] == label[0]})
    assert_distributed(negative[:, 0], {j: 1.0 for j in others if label[j] != label[0] and patient[j] != patient[0]})
    assert float(found["false_negative_frac"].max()) == 0


def test_semi_hard_falls_back_at_random():
    _, negative, found = draws("semi_hard", margin=0.0, fallback="random")
    _, negatives = partners(ROWS, by="patient")
    assert_distributed(negative[:, 3], dict.fromkeys(negatives[3], 1.0))
    assert float(found["fallback_frac"].min()) == 1


def test_semi_hard_draws_any_negative_of_the_band_with_equal_chance():
    rows = make_rows(np.arange(NUM_ROWS), np.arange(NUM_ROWS) // 2, valid=ROWS.valid)  # one positive each
    d = distances_in_float64(Z, "euclidean_on_sphere")
    positives, negatives = partners(rows, by="patient")
    run = functools.partial(mine, "semi_hard", distance="euclidean_on_sphere", relation=same_patient, margin=0.4)
    found = jax.jit(jax.vmap(lambda key: run(f32(Z), rows, key=key, choice="random")))(KEYS)
    several = 0
    for i in np.flatnonzero(np.asarray(rows.valid) & [bool(near) for near in positives]):
        band = [j for j in negatives[i] if d[i, positives[i][0]] < d[i, j] < d[i, positives[i][0]] + 0.4]
        if band:
            assert_distributed(np.asarray(found.negative[:, i, 0]), dict.fromkeys(band, 1.0))
            several += len(band) > 2
    assert several > 5


def test_soft_hard_draws_among_pairs_in_the_wrong_order():
    positives, negatives = partners(ROWS, by="patient")
    z = Z.copy()
    z[0:4] = [1, 0, 0, 0, 0, 0]  # a patient without a pair in the wrong order
    d = distances_in_float64(z, "euclidean_on_sphere")
    positive, negative, found = draws("soft_hard", z=z)
    fell_back = []
    for i in np.flatnonzero(ROWS.valid):
        far = [j for j in positives[i] if d[i, j] > min(d[i, negatives[i]])]
        near = [j for j in negatives[i] if d[i, j] < max(d[i, positives[i]])]
        fell_back.append(not far)
        assert_distributed(positive[:, i], dict.fromkeys(far or positives[i], 1.0))
        assert_distributed(negative[:, i], dict.fromkeys(near or negatives[i], 1.0))
    assert sum(fell_back) >= 4
    np.testing.assert_allclose(found["fallback_frac"], np.mean(fell_back), rtol=1e-6)


def test_distance_weighted_draws_with_the_published_weights():
    positives, negatives = partners(ROWS, by="patient")
    d = distances_in_float64(Z, "euclidean_on_sphere")
    positive, negative, _ = draws("distance_weighted")
    for i in (0, 7, 22):
        weights = {}
        for j in negatives[i]:
            if d[i, j] < 1.4:
                clamped = max(d[i, j], 0.5)
                # Wu et al. 2017, eq. 3: the density of distances on the unit sphere of n = 6 dimensions is
                # d^{n−2} (1 − d²/4)^{(n−3)/2}.
                weights[j] = 1 / (clamped**4 * (1 - clamped**2 / 4) ** 1.5)
        assert len(weights) > 3
        assert_distributed(negative[:, i], weights)
        assert_distributed(positive[:, i], dict.fromkeys(positives[i], 1.0))


def test_signal_distance_draws_of_the_rest_or_of_the_two_farthest():
    rows = ROWS._replace(nearest=jnp.roll(ROWS.row, 8))
    farthest = jnp.stack([jnp.roll(ROWS.row, 4), jnp.roll(ROWS.row, -6)], axis=1)

    def run(key, farthest):
        known = rows._replace(farthest=farthest)
        among = farthest is not None
        return mine("signal_distance", f32(Z), known, relation=nearest_signal, key=key, among_farthest=among)

    patient, valid = np.asarray(rows.patient), np.asarray(rows.valid)
    for far in (None, farthest):
        found = jax.jit(jax.vmap(lambda key, far=far: run(key, far)))(KEYS)
        for i in (0, 12):
            near = int(rows.nearest[i])
            among = [j for j in range(NUM_ROWS) if valid[j] and patient[j] != patient[i] and j != near]
            if far is not None:
                among = [j for j in among if j in np.asarray(far[i])]
            assert len(among) > 1
            assert (found.positive[:, i, 0] == near).all()
            assert_distributed(np.asarray(found.negative[:, i, 0]), dict.fromkeys(among, 1.0))


def test_scheduled_hardness_goes_from_uniform_to_hardest():
    _, negatives = partners(ROWS, by="patient")
    d = distances_in_float64(Z, "cosine")
    schedule = optax.piecewise_constant_schedule(0.0, {})
    schedule = optax.join_schedules([schedule, lambda _: 3.0, lambda _: 1e5], boundaries=[10, 20])
    for step, hardness in ((0, 0.0), (15, 3.0)):
        _, negative, _ = draws("scheduled", distance="cosine", step=jnp.int32(step), schedule=schedule)
        for i in (0, 7):
            assert_distributed(negative[:, i], {j: np.exp(-hardness * d[i, j]) for j in negatives[i]})
    found = jitted("scheduled", distance="cosine", schedule=schedule, relation=same_patient)(
        f32(Z), ROWS, step=jnp.int32(30)
    )
    for i in np.flatnonzero(ROWS.valid):
        assert found.negative[i, 0] == extreme(negatives[i], -d[i])


def test_several_random_triplets_have_different_negatives():
    found = jitted("random", triplets=4)(f32(Z), ROWS)
    valid = np.asarray(ROWS.valid)
    _, negatives = partners(ROWS)
    for i in np.flatnonzero(found.found.any(1)):
        assert valid[i]
        assert len(set(found.negative[i].tolist())) == 4
        assert set(found.negative[i].tolist()) <= set(negatives[i])


def test_hashed_numbers_are_uniform_and_differ_by_key_stream_and_row():
    row = jnp.arange(512, dtype=jnp.int32)
    words = hashing.anchor_words(KEY, row)
    u = np.asarray(hashing.uniforms(words, row, stream="positive"), np.float64)
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > LEVEL
    assert len(np.unique(u)) > 0.99 * u.size
    others = {
        "stream": hashing.uniforms(words, row, stream="negative"),
        "key": hashing.uniforms(hashing.anchor_words(KEYS[1], row), row, stream="positive"),
        "anchor": np.roll(u, 1, axis=0),
        "other row": np.roll(u, 1, axis=1),
        "transposed": u.T,
    }
    for name, other in others.items():
        correlation = np.corrcoef(u.ravel(), np.asarray(other, np.float64).ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(u.size), name
    gumbel = np.asarray(hashing.gumbels(words, row, stream="positive"), np.float64)
    assert stats.kstest(gumbel.ravel(), "gumbel_r").pvalue > LEVEL


# ---------------------------------------------------------------------------------------------------------------------
# Forms.

FORM_ROWS = batch_of(64)[1]._replace(
    label=jnp.asarray(np.arange(64) // 2 % 5, jnp.float32), nearest=jnp.asarray((np.arange(64) * 7 + 5) % 64, jnp.int32)
)
FARTHEST = jnp.asarray([[(i * 3 + 9) % 64, (i * 5 + 9) % 64] for i in range(64)], jnp.int32)
OWN = {
    "random": {"triplets": 2},
    "semi_hard": {"choice": "random", "fallback": "random"},
    "distance_weighted": {"triplets": 2, "distance": "euclidean_on_sphere"},
    "signal_distance": {"among_farthest": True},
    "hardest": {"triplets": 2, "ceiling": 0.6, "distance": "cosine"},
    "scheduled": {"step": jnp.int32(3), "schedule": optax.linear_schedule(0.0, 8.0, 6), "distance": "cosine"},
}


@pytest.mark.parametrize("turn", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [name for name in MINERS if name != "npair"])
def test_choice_is_the_same_in_every_form(name, turn):
    """Two forms for each miner, one gathered and one a ring.

    All miners are made of the same passes, and semi-hard triplets are tested in all forms.
    """
    z, _ = batch_of(64)
    rows = FORM_ROWS._replace(farthest=FARTHEST) if name == "signal_distance" else FORM_ROWS
    run = functools.partial(mine, name, relation=same_patient, **OWN.get(name, {}))
    every = tilings(chunk=5)
    expected = jax.jit(functools.partial(run, tiling=Tiling("dense")))(z, rows)
    assert expected.found.any()
    names = list(every)
    form = names[(list(MINERS).index(name) + turn) % len(names)]
    tiling = every[form]
    placed = jax.device_put((z, rows), NamedSharding(tiling.mesh, PartitionSpec("data")))
    found = jax.jit(functools.partial(run, tiling=tiling))(*placed)
    for field in ("positive", "negative", "found"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=f"{form} {field}")
    for stat, value in expected.stats.items():
        np.testing.assert_allclose(found.stats[stat], value, rtol=1e-6, err_msg=f"{form} {stat}")


@pytest.mark.parametrize("name", ["semi_hard", "soft_hard", "distance_weighted"])
def test_order_of_rows_does_not_matter(name):
    z, rows = batch_of(64)
    run = jitted(name, relation=same_patient, distance="euclidean_on_sphere")
    order = np.random.default_rng(3).permutation(64)
    shuffled = jax.tree.map(lambda x: x[order], rows)
    a, b = run(z, rows), run(z[order], shuffled)
    np.testing.assert_array_equal(a.found[order], b.found)
    for field in ("positive", "negative"):
        chosen = shuffled.row[getattr(b, field)]  # row numbers went along with the rows
        np.testing.assert_array_equal(jnp.where(b.found, chosen, 0), jnp.where(b.found, getattr(a, field)[order], 0))


def test_winners_equal_a_sort():
    score = RNG.integers(0, 6, size=(5, 40)).astype(np.float32)
    score[RNG.random(score.shape) < 0.3] = -np.inf
    score[4, 2:] = -np.inf
    row = RNG.permutation(40).astype(np.int32)
    value = RNG.normal(size=score.shape).astype(np.float32)
    winners, add = Winners.empty(5, 3), jax.jit(Winners.add)
    for start, stop in ((0, 17), (17, 18), (18, 40)):
        part = slice(start, stop)
        position = jnp.arange(start, stop, dtype=jnp.int32)
        winners = add(
            winners, jnp.asarray(score[:, part]), jnp.asarray(row[part]), position, jnp.asarray(value[:, part])
        )
    for i in range(5):
        best = sorted((j for j in range(40) if np.isfinite(score[i, j])), key=lambda j: (-score[i, j], row[j]))[:3]
        n = len(best)
        assert winners.found[i].tolist() == [k < n for k in range(3)]
        assert winners.position[i].tolist() == best + [0] * (3 - n)
        assert winners.row[i].tolist() == [row[j] for j in best] + [0] * (3 - n)
        np.testing.assert_array_equal(winners.value[i, :n], value[i, best])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("semi_hard", {"choice": "farthest"}, "choice='farthest' must be one of: nearest, random"),
        ("semi_hard", {"fallback": "nearest"}, "fallback='nearest' must be one of: farthest, random"),
        ("distance_weighted", {"distance": "cosine"}, "euclidean_on_sphere"),
        ("hardest", {"distance": "euclidean", "ceiling": 0.9}, "one on the sphere"),
        ("label_distance", {}, "looks at 'label'"),
    ],
)
def test_refuses_what_it_cannot_do(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        mine(name, f32(EMBEDDINGS["random"]), CASES["two views each"], **settings)
