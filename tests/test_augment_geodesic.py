"""Optimal transport between labels, and a step along its geodesic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augmentations.beats import r_peaks
from ecgjax.augmentations.geodesic import transport_partners, wasserstein_geodesic

RATE_HZ = 100


def beats_at(times, *, height=1.0, num_leads=2, seconds=6):
    """`f32[time, lead]`, a narrow wave at each time and a broad one a quarter of a second later."""
    time = np.arange(seconds * RATE_HZ)[:, None] / RATE_HZ
    waves = np.exp(-0.5 * ((time - times) / 0.015) ** 2) + 0.2 * np.exp(-0.5 * ((time - times - 0.25) / 0.05) ** 2)
    return jnp.asarray(np.round(height * waves.sum(1)[:, None] * np.ones(num_leads), 3), jnp.float32)


def sinkhorn(cost, *, scale):
    """Entropic plan between uniform distributions over rows and columns, by itself and in float64."""
    kernel = np.exp(-cost / scale)
    columns = np.ones(cost.shape[1])
    for _ in range(3000):
        rows = 1 / (kernel @ columns) / len(cost)
        columns = 1 / (kernel.T @ rows) / cost.shape[1]
    return rows[:, None] * kernel * columns


def test_partners_are_drawn_from_the_transport_plan():
    generator = np.random.default_rng(0)
    physiology, label = generator.normal(size=(10, 2)), np.repeat([0, 1], [4, 6])
    draw = jax.jit(jax.vmap(functools.partial(transport_partners, iterations=500), in_axes=(0, None, None)))
    keys = jax.random.split(jax.random.key(0), 4000)
    partners = np.asarray(draw(keys, jnp.asarray(physiology, jnp.float32), jnp.asarray(label)))
    cost = ((physiology[:4, None] - physiology[None, 4:]) ** 2).sum(2)
    plan = sinkhorn(cost, scale=0.05 * cost.mean())
    drawn = np.stack([[(partners[:, row] == other).mean() for other in range(4, 10)] for row in range(4)])
    np.testing.assert_allclose(drawn, plan * 4, atol=0.03)


def test_partners_have_another_label_and_every_one_is_chosen_as_often():
    generator = np.random.default_rng(1)
    physiology = jnp.asarray(generator.normal(size=(12, 4)), jnp.float32)
    label = jnp.asarray([0] * 8 + [1] * 3 + [2])
    draw = jax.jit(jax.vmap(transport_partners, in_axes=(0, None, None)))
    partners = np.asarray(draw(jax.random.split(jax.random.key(0), 800), physiology, label))
    assert (np.asarray(label)[partners] != np.asarray(label)).all()
    # Label 0 sends 8 to the 4 others, 2 each; nobody is left out, nobody is everybody's.
    received = np.stack([(partners[:, :8] == row).sum(1).mean() for row in range(8, 12)])
    np.testing.assert_allclose(received, 2, atol=0.25)


def test_a_single_label_has_no_partners():
    physiology = jnp.zeros((5, 2), jnp.float32)
    partners = transport_partners(jax.random.key(0), physiology, jnp.zeros(5, jnp.int32))
    np.testing.assert_array_equal(partners, np.arange(5))


def test_the_step_keeps_the_rhythm_and_moves_the_shape():
    own, other = beats_at(np.arange(0.5, 6, 0.8)), beats_at(np.arange(0.3, 6, 1.1), height=3.0)
    move = jax.jit(jax.vmap(functools.partial(wasserstein_geodesic, rate_hz=RATE_HZ), in_axes=(0, None, None)))
    moved = np.asarray(move(jax.random.split(jax.random.key(0), 200), own, other))
    peaks = np.flatnonzero(r_peaks(own, rate_hz=RATE_HZ))
    heights = moved[:, peaks[1:-1], 0]
    step = (heights.mean(1) - 1) / 2  # of the way from a height of 1 to one of 3
    assert step.min() >= -1e-3
    assert step.max() <= 0.5 + 1e-3
    assert step.mean() == pytest.approx(0.25, abs=0.04)
    np.testing.assert_allclose(heights, 1 + 2 * step[:, None] * np.ones(len(peaks) - 2), atol=0.05)
    for one in moved[:5]:
        np.testing.assert_array_equal(np.flatnonzero(r_peaks(jnp.asarray(one), rate_hz=RATE_HZ)), peaks)


@pytest.mark.parametrize("quiet", ["own", "other"])
def test_without_beats_it_does_not_act(quiet):
    ecg = {"own": beats_at(np.arange(0.5, 6, 0.8)), "other": beats_at(np.arange(0.3, 6, 1.1))}
    ecg[quiet] = jnp.zeros_like(ecg[quiet])
    moved = wasserstein_geodesic(jax.random.key(0), ecg["own"], ecg["other"], rate_hz=RATE_HZ)
    np.testing.assert_array_equal(moved, ecg["own"])


def test_no_step_is_the_identity():
    own, other = beats_at(np.arange(0.5, 6, 0.8)), beats_at(np.arange(0.3, 6, 1.1))
    moved = wasserstein_geodesic(jax.random.key(0), own, other, rate_hz=RATE_HZ, max_step=0.0)
    np.testing.assert_array_equal(moved, own)
