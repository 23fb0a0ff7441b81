"""Alignment, uniformity and effective rank against loops and singular values in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.objectives.losses.representation import MAX_ROWS, statistics

RNG = np.random.default_rng(0)


def brute_force(embeddings, valid, num_views):
    z = np.asarray(embeddings, np.float64)
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    records = [z[i * num_views : (i + 1) * num_views] for i in range(len(z) // num_views) if valid[i * num_views]]
    if not records:
        return 2.0, 0.0, 1.0
    apart = [np.sum((r[a] - r[b]) ** 2) for r in records for a in range(num_views) for b in range(num_views) if a != b]
    first = [r[0] for r in records]
    potential = [np.exp(-2 * np.sum((a - b) ** 2)) for i, a in enumerate(first) for j, b in enumerate(first) if i != j]
    singular = np.linalg.svd(np.array(first) - np.mean(first, axis=0), compute_uv=False)
    share = singular[singular > 1e-3 * singular.max()] / singular[singular > 1e-3 * singular.max()].sum()
    rank = np.exp(-np.sum(share * np.log(share))) if singular.max() > 1e-9 else 1.0
    return np.mean(apart), np.log(np.mean(potential)) if potential else 0.0, rank


CASES = {
    "random": (RNG.normal(size=(48, 6)), np.ones(48, bool)),
    "masked": (RNG.normal(size=(48, 6)), np.repeat(np.arange(24) % 3 != 0, 2)),
    "one direction": (RNG.normal(size=(48, 1)) * RNG.normal(size=(1, 6)), np.ones(48, bool)),
    "three directions": (RNG.normal(size=(48, 3)) @ RNG.normal(size=(3, 6)), np.ones(48, bool)),
    "one record": (RNG.normal(size=(48, 6)), np.arange(48) < 2),
    "nothing valid": (RNG.normal(size=(48, 6)), np.zeros(48, bool)),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_brute_force(case):
    embeddings, valid = CASES[case]
    found = jax.jit(statistics, static_argnames="num_views")(
        jnp.asarray(embeddings, jnp.float32), jnp.asarray(valid), num_views=2
    )
    expected = brute_force(embeddings, valid, 2)
    np.testing.assert_allclose(
        [found["alignment"], found["uniformity"], found["effective_rank"]], expected, rtol=2e-4, atol=2e-5
    )


def test_equal_embeddings_have_collapsed():
    found = statistics(jnp.ones((64, 8), jnp.float32), jnp.ones(64, bool), num_views=2)
    assert float(found["alignment"]) == pytest.approx(0, abs=1e-6)
    assert float(found["uniformity"]) == pytest.approx(0, abs=1e-6)
    assert float(found["effective_rank"]) == pytest.approx(1)


def test_spread_out_embeddings_have_full_rank_and_theory_s_uniformity():
    z = jnp.asarray(RNG.normal(size=(4 * MAX_ROWS, 32)), jnp.float32)
    found = statistics(z, jnp.ones(len(z), bool), num_views=1)
    assert float(found["effective_rank"]) > 31
    # E e^{4t} over the sphere, t being the cosine of two random directions: variance 1/32, so about e^{8/32}.
    assert float(found["uniformity"]) == pytest.approx(-4 + 8 / 32, abs=0.02)


def test_no_gradient_comes_from_it():
    gradient = jax.grad(lambda z: statistics(z, jnp.ones(8, bool), num_views=2)["uniformity"])(
        jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32)
    )
    assert not gradient.any()
