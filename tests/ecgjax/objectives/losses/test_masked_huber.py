"""Huber's loss over measurements against brute force in float64; what is missing does not count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ecgjax.objectives.losses.masked_huber import explained, masked_huber
from tests.support.objective_cases import assert_gradient

ROWS, DELTA = 16, 0.8
RNG = np.random.default_rng(0)
LOCATION = np.array([400.0, 0.2, 30.0, 1.0])
SCALE = np.array([25.0, 0.05, 9.0, 1.0])
PREDICTED = np.array([True, True, True, False])
TARGETS = LOCATION + 2 * SCALE * RNG.normal(size=(ROWS, 4))
PREDICTIONS = LOCATION + SCALE * RNG.normal(size=(ROWS, 4))
TARGETS[2:9, 0] = np.nan  # half of a column
TARGETS[4] = np.nan  # a row without any measurement
TARGETS[11, 1:] = np.nan
TARGETS[0, 2] = 1e6  # a wave that was bounded in noise
VALID = ~np.isin(np.arange(ROWS), (5, 15))
CASES = {
    "some missing": (TARGETS, VALID),
    "one row": (TARGETS, np.arange(ROWS) == 7),
    "a row with one measurement": (TARGETS, np.arange(ROWS) == 11),
    "a whole column missing": (np.where(np.arange(4) == 1, np.nan, TARGETS), VALID),
    "nothing measured": (np.full_like(TARGETS, np.nan), VALID),
    "no valid row": (TARGETS, VALID & False),
    "predicted exactly": (PREDICTIONS, VALID),
}


def brute(predictions, targets, valid, *, location=None):
    """Losses by row and column, NaN where a value does not count."""
    lost = np.full(targets.shape, np.nan)
    for row in range(len(targets)):
        for column in range(targets.shape[1]):
            if not (valid[row] and PREDICTED[column] and np.isfinite(targets[row, column])):
                continue
            value = predictions[row, column] if location is None else location[column]
            error = abs(value - targets[row, column]) / SCALE[column]
            lost[row, column] = error**2 / 2 if error <= DELTA else DELTA * (error - DELTA / 2)
    return lost


def mean(predictions, targets, valid):
    lost = brute(predictions, targets, valid)
    return np.nansum(lost) / max(1, np.isfinite(lost).sum())


@functools.partial(jax.jit, static_argnames="delta")
def loss(predictions, targets, valid, *, delta=DELTA):
    scales = {"location": jnp.asarray(LOCATION, jnp.float32), "scale": jnp.asarray(SCALE, jnp.float32)}
    return masked_huber(predictions, targets, predicted=jnp.asarray(PREDICTED), valid=valid, delta=delta, **scales)


gradient = jax.jit(jax.grad(lambda *args: loss(*args).output.loss))


def single(values):
    return jnp.asarray(values, jnp.float32)


@pytest.mark.parametrize("case", CASES)
def test_equals_brute_force(case):
    targets, valid = CASES[case]
    arguments = single(PREDICTIONS), single(targets), jnp.asarray(valid)
    found = loss(*arguments)
    np.testing.assert_allclose(found.output.loss, mean(PREDICTIONS, targets, valid), rtol=2e-5)
    lost = brute(PREDICTIONS, targets, valid)
    np.testing.assert_array_equal(found.output.counts, np.isfinite(lost).any(axis=1))
    np.testing.assert_allclose(found.lost, np.nansum(lost, axis=0), rtol=1e-4)
    by_location = np.nansum(brute(PREDICTIONS, targets, valid, location=LOCATION), axis=0)
    np.testing.assert_allclose(found.lost_by_location, by_location, rtol=1e-4)
    rows = np.nansum(lost, axis=1) / np.maximum(1, np.isfinite(lost).sum(axis=1))
    np.testing.assert_allclose(found.output.per_row, rows, rtol=1e-4)
    slopes = np.asarray(gradient(*arguments))
    assert np.isfinite(slopes).all()
    assert (slopes[~np.isfinite(lost)] == 0).all(), "what does not count has no gradient"
    if case not in ("predicted exactly", "nothing measured", "no valid row"):
        assert np.abs(slopes).max() > 0
        in_deviations = PREDICTIONS / SCALE
        assert_gradient(slopes * SCALE, lambda x: mean(x * SCALE, targets, valid), in_deviations)


def test_a_wild_measurement_pulls_no_harder_than_one_that_is_delta_off():
    slopes = np.asarray(gradient(single(PREDICTIONS), single(TARGETS), jnp.asarray(VALID))) * SCALE
    number = np.isfinite(brute(PREDICTIONS, TARGETS, VALID)).sum()
    np.testing.assert_allclose(np.abs(slopes).max(), DELTA / number, rtol=1e-5)


@pytest.mark.parametrize("devices", [2, 8])
def test_the_mean_is_over_the_values_of_the_global_batch_on_any_number_of_devices(devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), "data")
    rows = NamedSharding(mesh, PartitionSpec("data"))
    arguments = single(PREDICTIONS), single(TARGETS), jnp.asarray(VALID)
    placed = jax.device_put(arguments, rows)
    np.testing.assert_allclose(loss(*placed).output.loss, loss(*arguments).output.loss, rtol=1e-6)
    whole = np.asarray(gradient(*arguments))
    np.testing.assert_allclose(gradient(*placed), whole, rtol=1e-6, atol=1e-7 * np.abs(whole).max())
    parts = [mean(*part) for part in zip(*(np.split(x, devices) for x in (PREDICTIONS, TARGETS, VALID)), strict=True)]
    assert abs(np.mean(parts) - mean(PREDICTIONS, TARGETS, VALID)) > 1e-3, "a mean of the devices' means is another"


def test_the_explained_share_of_perfect_predictions_is_one_and_of_the_location_zero():
    lost, by_location = single([0, 2, 3, 0]), single([2, 2, 2, 0])
    np.testing.assert_allclose(explained(lost, by_location), [1, 0, -0.5, np.nan])
