"""Updates that are not finite are left out exactly, counted, and end the run once they are too many."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecgjax.errors import DivergedError
from ecgjax.training import device_mesh
from ecgjax.training.loop import Check
from ecgjax.training.settings import NonfiniteSettings
from ecgjax.training.steps import init_state, train_step

STEPS, BATCH = 12, 16
OPTIMIZER = optax.sgd(1e-2, momentum=0.9)
BATCHES = np.random.default_rng(0).normal(size=(STEPS, BATCH, 4)).astype(np.float32)
PARAMS = {"encoder": {"kernel": jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)}}
STATS = {"encoder": {"mean": jnp.zeros(3)}}


def loss(params, stats, batch, step, *, train):
    z = batch["signal"] @ params["encoder"]["kernel"]
    value = jnp.mean(jnp.log(jnp.sum(jnp.exp(z), -1)) ** 2)
    mean = 0.9 * stats["encoder"]["mean"] + 0.1 * z.mean(0)
    return value, ({"encoder": {"mean": mean}}, {"loss": value})


@functools.cache
def compiled(ema):
    return jax.jit(train_step(loss, OPTIMIZER, ema_decay=0.9 if ema else None))


def run(batches, *, skip, ema=False, devices=1):
    mesh = device_mesh.make_mesh(devices=jax.devices()[:devices])
    state = init_state(PARAMS, STATS, OPTIMIZER, ema=ema, skip=skip)
    state = jax.device_put(state, device_mesh.replicated(mesh))
    history = []
    for signal in batches:
        batch = {"signal": jax.device_put(signal, device_mesh.batch_sharding(mesh))}
        state, metrics = compiled(ema)(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), history


def spoilt(*steps):
    """Batches of which some have one value, in one row alone, that makes the loss infinite."""
    batches = BATCHES.copy()
    batches[list(steps), 9, 2] = np.inf
    return batches


def assert_equal(one, other):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("ema", [False, True])
def test_a_run_in_which_all_is_finite_is_the_same_to_the_bit(ema):
    plain, metrics = run(BATCHES, skip=False, ema=ema)
    skipping, others = run(BATCHES, skip=True, ema=ema)
    assert_equal(plain, skipping._replace(skipped=None))
    assert [m["loss"] for m in metrics] == [m["loss"] for m in others]
    assert others[-1]["skipped"] == others[-1]["skipped_in_a_row"] == 0


@pytest.mark.parametrize("devices", [1, 8])
def test_an_update_that_is_not_finite_is_left_out_and_nothing_of_it_stays(devices):
    bad = (0, 3, 4, 5, 9)
    found, metrics = run(spoilt(*bad), skip=True, ema=True, devices=devices)
    assert found.step == STEPS, "the step's number moves on"
    expected, _ = run(np.delete(BATCHES, bad, axis=0), skip=True, ema=True, devices=devices)
    # The moving average's decay depends on the step's number, so that it is compared with its own bounds alone.
    assert_equal(expected._replace(step=0, ema=None, skipped=None), found._replace(step=0, ema=None, skipped=None))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert [m["skipped"] for m in metrics] == [1, 1, 1, 2, 3, 4, 4, 4, 4, 5, 5, 5]
    assert [m["skipped_in_a_row"] for m in metrics] == [1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3], "the longest so far"
    assert [not np.isfinite(m["loss"]) for m in metrics] == [step in bad for step in range(STEPS)]
    assert all(np.isfinite(m["param_norm"]) for m in metrics)


def test_the_counts_go_through_a_checkpoint():
    state, _ = run(spoilt(1, 2), skip=True)
    parts = state.parts()
    fresh = init_state(PARAMS, STATS, OPTIMIZER, skip=True)
    assert fresh.with_parts(parts).skipped == state.skipped
    assert "skipped" not in init_state(PARAMS, STATS, OPTIMIZER).parts(), "older checkpoints still fit"


def test_the_run_ends_by_name_once_the_budget_is_spent():
    check = Check(NonfiniteSettings(action="skip", most_in_a_row=2, most_in_all=4))
    fine = {"loss": jnp.float32(jnp.nan), "param_norm": jnp.float32(1.0)}
    check(7, fine | {"skipped": jnp.float32(4), "skipped_in_a_row": jnp.float32(2)})
    with pytest.raises(DivergedError, match=r"by step 7, 3 updates in a row were left out.*most_in_a_row=2"):
        check(7, fine | {"skipped": jnp.float32(3), "skipped_in_a_row": jnp.float32(3)})
    with pytest.raises(DivergedError, match=r"by step 7, 5 updates in all were left out.*most_in_all=4"):
        check(7, fine | {"skipped": jnp.float32(5), "skipped_in_a_row": jnp.float32(1)})
    with pytest.raises(DivergedError, match="train/loss is nan at step 7"):
        Check(NonfiniteSettings())(7, fine)
