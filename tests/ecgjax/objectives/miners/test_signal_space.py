"""Signal-space neighbours against plain loops: L1, L2 and banded DTW, and which rows are nearest and farthest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.miners import signal_space
from ecgjax.objectives.pairs.relations import nearest_signal
from ecgjax.objectives.pairs.tiles import Tiling
from tests.support.objective_cases import CASES, assert_forms_agree, columns, make_rows

RNG = np.random.default_rng(11)
SIGNALS = RNG.normal(size=(24, 9, 3)).astype(np.float32)


def dtw_by_hand(a, b, radius):
    """The dynamic programme of Sakoe and Chiba 1978 in float32, cell by cell."""
    time, leads = a.shape
    table = np.full((time + 1, time + 1), np.inf, np.float32)
    table[0, 0] = 0
    for i in range(time):
        for j in range(max(0, i - radius), min(time, i + radius + 1)):
            cost = np.float32(0)
            for lead in range(leads):
                cost += np.abs(a[i, lead] - b[j, lead])
            table[i + 1, j + 1] = cost + min(table[i, j], table[i, j + 1], table[i + 1, j])
    return table[time, time] * np.float32(1 / (time * leads))


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 8, 50])
def test_dtw_is_the_dynamic_programme_to_the_last_bit(radius):
    a, b = SIGNALS[:5], SIGNALS[5:12]
    found = jax.jit(functools.partial(signal_space.dtw, radius=radius))(a, b)
    expected = [[dtw_by_hand(x, y, radius) for y in b] for x in a]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_dtw_by_hand():
    # One lead, a = 0 1 2 and b = 0 0 1: costs |a_i − b_j| are
    #   0 0 1
    #   1 1 0
    #   2 2 1
    # Within |i − j| ≤ 1 the path (0,0) (0,1) (1,2) (2,2) costs 0 + 0 + 0 + 1 = 1, a third of which is the distance.
    # With radius 0 the path is the diagonal, 0 + 1 + 1 = 2: two thirds, the mean absolute difference.
    a, b = (jnp.asarray(x, jnp.float32).reshape(1, 3, 1) for x in ([0, 1, 2], [0, 0, 1]))
    assert float(signal_space.dtw(a, b, radius=1)[0, 0]) == pytest.approx(1 / 3)
    assert float(signal_space.dtw(a, b, radius=0)[0, 0]) == pytest.approx(2 / 3)


def test_dtw_forgives_a_delay_that_l1_does_not():
    t = np.arange(60)
    beat, late, other = (np.exp(-0.5 * ((t - c) / 2) ** 2) for c in (20, 24, 45))
    signals = jnp.asarray(np.stack([beat, late, other])[:, :, None], jnp.float32)
    warped = signal_space.dtw(signals, signals, radius=5)
    straight = signal_space.l1(signals, signals)
    assert float(warped[0, 1]) < 0.02 * float(straight[0, 1])
    assert float(warped[0, 2]) > 0.5 * float(straight[0, 2])


def test_dtw_refuses_a_negative_radius():
    with pytest.raises(ConfigError, match="radius=-1"):
        signal_space.dtw(SIGNALS, SIGNALS, radius=-1)


def test_l1_and_l2_equal_loops():
    a, b = SIGNALS[:5].astype(np.float64), SIGNALS[5:].astype(np.float64)
    expected_l1 = [[np.mean(np.abs(x - y)) for y in b] for x in a]
    expected_l2 = [[np.sqrt(np.mean((x - y) ** 2)) for y in b] for x in a]
    np.testing.assert_allclose(signal_space.l1(SIGNALS[:5], SIGNALS[5:]), expected_l1, rtol=1e-6)
    np.testing.assert_allclose(signal_space.l2(SIGNALS[:5], SIGNALS[5:]), expected_l2, rtol=1e-5)


def test_downsample_is_the_mean_of_whole_blocks():
    signals = jnp.asarray(np.arange(14).reshape(1, 7, 2), jnp.float32)
    np.testing.assert_array_equal(signal_space.downsample(signals, 3), [[[2, 3], [8, 9]]])
    with pytest.raises(ConfigError, match="downsampled by 8"):
        signal_space.downsample(signals, 8)


def brute_force(signals, rows, measure):
    """Nearest other recording and two farthest of other patients, by sorting (distance, row)."""
    record, patient, valid = columns(rows)
    row = np.asarray(rows.row)
    near, far = [], []
    for i in range(len(row)):
        apart = {
            j: measure(signals[i].astype(np.float64), signals[j].astype(np.float64))
            for j in range(len(row))
            if valid[i] and valid[j]
        }
        others = sorted((d, row[j]) for j, d in apart.items() if record[i] != record[j])
        strangers = sorted((-d, row[j]) for j, d in apart.items() if patient[i] != patient[j])
        near.append(others[0][1] if others else -1)
        far.append(([j for _, j in strangers[:2]] + [-1, -1])[:2])
    return near, far


MEASURES = {
    "l1": (signal_space.l1, lambda x, y: np.abs(x - y).sum()),
    "l2": (signal_space.l2, lambda x, y: ((x - y) ** 2).sum()),
    "dtw": (
        functools.partial(signal_space.dtw, radius=2),
        lambda x, y: dtw_by_hand(x.astype(np.float32), y.astype(np.float32), 2),
    ),
}


@functools.partial(jax.jit, static_argnames=("distance", "chunk"))
def found_by(signals, rows, *, distance, chunk):
    return signal_space.nearest_and_farthest(signals, rows, distance=distance, tiling=Tiling(chunk=chunk))


@pytest.mark.parametrize("name", MEASURES)
def test_neighbours_equal_brute_force(name):
    distance, measure = MEASURES[name]
    # Samples of small integers make sums exact, so that recordings that are stored twice tie exactly.
    for signals in (SIGNALS, np.repeat(RNG.integers(-3, 4, size=(6, 9, 3)), 4, axis=0).astype(np.float32)):
        for rows in CASES.values():
            found = found_by(signals, rows, distance=distance, chunk=7)
            near, far = brute_force(signals, rows, measure)
            np.testing.assert_array_equal(found.nearest, near)
            record = np.asarray(rows.record)
            np.testing.assert_array_equal(found.nearest_record, [record[j] if j >= 0 else -1 for j in near])
            np.testing.assert_array_equal(found.farthest, far)


def test_forms_agree():
    rows = make_rows(np.arange(64) // 2, np.arange(64) // 4, valid=np.arange(64) % 11 != 0)
    signals = np.random.default_rng(3).normal(size=(64, 9, 3)).astype(np.float32)
    find = functools.partial(signal_space.nearest_and_farthest, distance=signal_space.l1)
    assert_forms_agree(find, (jnp.asarray(signals), rows), chunk=5)


def test_nearest_is_what_the_relation_looks_at():
    rows = CASES["two records a patient"]
    nearest = jax.jit(functools.partial(signal_space.nearest_and_farthest, distance=signal_space.l1, tiling=Tiling()))
    near = nearest(jnp.asarray(SIGNALS), rows).nearest
    rows = rows._replace(nearest=near)
    np.testing.assert_array_equal(nearest_signal(rows, rows).positive.argmax(1), near)
