"""Task losses against brute force in float64, and the head that they are asked of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.label_prediction import RMSE_EPSILON, binary_cross_entropy, root_mean_square_error
from ecgjax.training.tasks.heads import SupervisedTask
from ecgjax.training.tasks.task_settings import TaskSettings
from tests.support.objective_cases import assert_gradient

RNG = np.random.default_rng(0)
PREDICTIONS = 2 * RNG.normal(size=12)
ANSWERS = RNG.integers(0, 2, 12).astype(np.float64)
ANSWERS[3] = np.nan
VALUES = 15 + 5 * RNG.normal(size=12)
VALUES[7] = np.nan
VALID = np.arange(12) != 5


def brute_cross_entropy(predictions):
    costs = [
        -np.log(1 / (1 + np.exp(-x if y else x))) for x, y, valid in zip(predictions, ANSWERS, VALID, strict=True)
        if valid and np.isfinite(y)
    ]  # fmt: skip
    return np.mean(costs)


def brute_root(predictions):
    squares = [(x - y) ** 2 for x, y, valid in zip(predictions, VALUES, VALID, strict=True) if valid and y == y]
    return np.sqrt(np.mean(squares) + RMSE_EPSILON)


@pytest.mark.parametrize(
    ("loss", "labels", "brute"),
    [(binary_cross_entropy, ANSWERS, brute_cross_entropy), (root_mean_square_error, VALUES, brute_root)],
)
def test_equals_brute_force(loss, labels, brute):
    labels, valid = jnp.asarray(labels, jnp.float32), jnp.asarray(VALID)
    found, gradient = jax.value_and_grad(lambda x: loss(x, labels, valid=valid).loss)(
        jnp.asarray(PREDICTIONS, jnp.float32)
    )
    np.testing.assert_allclose(found, brute(PREDICTIONS), rtol=1e-6)
    assert_gradient(gradient, brute, PREDICTIONS)
    for none in (valid & False, valid):
        out = loss(jnp.zeros(12), labels if not none.any() else labels * jnp.nan, valid=none)
        assert out.loss == 0
        assert not out.counts.any()


def test_a_perfect_regression_has_a_gradient():
    labels = jnp.arange(4.0)
    gradient = jax.grad(lambda x: root_mean_square_error(x, labels, valid=labels >= 0).loss)(labels)
    np.testing.assert_array_equal(gradient, np.zeros(4))


def make_task(labels, **leaves):
    settings = TaskSettings(**{"name": "regression", "hidden": 16, "dropout": 0.0, **leaves})
    return SupervisedTask(settings, dim=3, labels=np.asarray(labels, np.float32), seed=0)


def test_a_regression_starts_in_the_unit_of_its_labels_and_is_learnt():
    z = jnp.asarray(RNG.normal(size=(64, 3)), jnp.float32)
    labels = 20 + 6 * np.asarray(z[:, 0])
    task = make_task(np.where(np.arange(64) == 0, np.nan, labels))
    targets, valid = jnp.asarray(labels), jnp.ones(64, bool)

    def loss(params, stats, *, train=True):
        out, stats = task(params, stats, z, targets, valid=valid, train=train, keys=None)
        return out.loss, stats

    @jax.jit
    def step(params, stats):
        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params, stats)
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, gradient), stats, value

    params, stats = task.head.params, task.head.stats
    np.testing.assert_allclose(stats["location"], labels[1:].mean(), rtol=1e-6)
    first = loss(params, stats)[0]
    assert first < 2 * labels.std(), "mean and spread of the labels are known from the start"
    for _ in range(100):
        params, stats, _ = step(params, stats)
    assert loss(params, stats)[0] < 0.3 * first
    np.testing.assert_allclose(loss(params, stats, train=False)[0], loss(params, stats)[0], rtol=0.2)
    np.testing.assert_allclose(stats["location"], labels[1:].mean(), rtol=1e-6)


def test_dropout_of_the_head_follows_the_rows_keys():
    task = make_task(VALUES, dropout=0.5)
    labels, valid = jnp.asarray(VALUES, jnp.float32), jnp.ones(12, bool)
    z = jnp.asarray(RNG.normal(size=(12, 3)), jnp.float32)

    def loss(seed):
        keys = None if seed is None else jax.random.split(jax.random.key(seed), 12)
        out, _ = task(task.head.params, task.head.stats, z, labels, valid=valid, train=True, keys=keys)
        return out.loss

    assert loss(1) == loss(1)
    assert len({float(loss(seed)) for seed in (None, 1, 2)}) == 3


@pytest.mark.parametrize(
    ("labels", "leaves", "message"),
    [
        ([1, 2, 3], {"name": "ranking"}, "config.task.name='ranking' is unknown; there are: binary, regression"),
        ([0, 1, 2], {"name": "binary"}, "needs labels 0 and 1: ask a yes or no in config.columns.task"),
        ([5, 5, np.nan], {}, "the 2 labelled training records hold fewer than two different labels"),
    ],
)
def test_what_makes_no_task_is_refused(labels, leaves, message):
    with pytest.raises(ConfigError, match=message):
        make_task(labels, **leaves)
