"""Reconstruction errors against brute force in float64."""

import jax.numpy as jnp
import numpy as np

from ecgjax.objectives.losses.reconstruction import mean_errors, squared_errors

RNG = np.random.default_rng(0)
TARGET = 0.3 * RNG.normal(size=(4, 60, 3)) + RNG.normal(size=(4, 1, 3))
FOUND = RNG.normal(size=(4, 60, 3))
PEAKS = np.zeros((4, 60), bool)
PEAKS[0, [0, 20, 24]] = PEAKS[1, 59] = PEAKS[3, 30] = True
VALID = np.array([True, True, True, False])


def evaluate(found=FOUND, target=TARGET, peaks=PEAKS, valid=VALID):
    arrays = (jnp.asarray(found, jnp.float32), jnp.asarray(target, jnp.float32), jnp.asarray(peaks))
    return mean_errors(squared_errors(*arrays, rate_hz=100), valid=jnp.asarray(valid))


def test_equals_brute_force():
    whole, at_peaks = [], []
    for found, target, peaks in zip(FOUND[:3], TARGET[:3], PEAKS[:3], strict=True):
        target = target - target.mean(0)
        square = (found - target / np.sqrt((target**2).mean())) ** 2
        whole.append(square.mean())
        at_peaks += [square[t] for t in range(60) if any(peaks[max(0, t - 5) : t + 6])]
    found = evaluate()
    np.testing.assert_allclose(found[0], np.mean(whole), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.mean(at_peaks), rtol=1e-5)


def test_without_peaks_or_valid_signals_there_is_nothing():
    assert evaluate(peaks=PEAKS & False)[1] == 0
    assert evaluate(valid=VALID & False) == (0, 0)


def test_silence_is_compared_with_zeros():
    whole, _ = evaluate(found=np.zeros_like(FOUND), target=np.full_like(TARGET, 0.25))
    assert whole == 0
