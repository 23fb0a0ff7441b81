"""Eight devices, in any order, give the loss and gradients of one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecgjax import encoders, parallel
from ecgjax.augment import Views
from ecgjax.objectives.contrastive import nt_xent
from ecgjax.objectives.relations import same_patient
from ecgjax.objectives.tiles import Tiling
from ecgjax.steps import contrastive_loss, init_state, train_step

BATCH = 16
RNG = np.random.default_rng(0)
HOST_BATCH = {
    "signal": RNG.normal(0, 500, (BATCH, 200, 8)).astype(np.int16),
    "row": np.arange(BATCH, dtype=np.int32),
    "record": np.arange(BATCH, dtype=np.int32),
    "patient": (np.arange(BATCH) // 2).astype(np.int32),
    "valid_start": (3 * np.arange(BATCH)).astype(np.int32),
    "valid_samples": np.full(BATCH, 120, np.int32),
}
UNREAD = (3, 4, 12)
AUGMENT = {"random_crop": {"ratio": 0.5}, "vcg": {}, "time_mask": {}}
ENCODER = encoders.create("resnet18", seed=0, widths=(8, 8, 8, 8), kernel=3, dropout=0.2, embedding_dim=8, num_leads=12)
ORDERS = {
    "one device": ([0], 1),
    "eight": (range(8), 1),
    "eight, permuted": ([3, 7, 0, 5, 1, 6, 2, 4], 1),
    "four by two": ([6, 1, 4, 3, 0, 2, 5, 7], 2),
}


def make_loss(mesh):
    objective = functools.partial(nt_xent, relation=same_patient, temperature=0.5, tiling=Tiling(mesh=mesh, chunk=5))
    return contrastive_loss(ENCODER.graph, Views(AUGMENT), objective, seed=0)


def place(mesh, *, host_batch=HOST_BATCH, unread=()):
    sharding = parallel.batch_sharding(mesh)
    rows = parallel.local_rows(sharding, BATCH)
    local = {name: values[rows] for name, values in host_batch.items()}
    valid = ~np.isin(rows, unread)
    votes = parallel.put_votes(valid, mesh=mesh, rows=rows, batch_size=BATCH)
    return parallel.put_batch(local, sharding=sharding, rows=rows, batch_size=BATCH) | {"valid": votes}


def make_mesh(name):
    order, model = ORDERS[name]
    return parallel.make_mesh(model=model, devices=[jax.devices()[i] for i in order])


@functools.cache
def loss_and_gradient(name, unread=()):
    mesh = make_mesh(name)
    loss = make_loss(mesh)
    run = jax.jit(
        lambda params, stats, batch: jax.value_and_grad(loss, has_aux=True)(
            params, stats, batch, jnp.int32(3), train=True
        )
    )
    replicated = parallel.replicated(mesh)
    params, stats = jax.device_put((ENCODER.params, ENCODER.stats), replicated)
    (value, (stats, _)), gradient = jax.device_get(run(params, stats, place(mesh, unread=unread)))
    return value, stats, gradient


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("unread", [(), UNREAD])
@pytest.mark.parametrize("name", [name for name in ORDERS if name != "one device"])
def test_same_loss_statistics_and_gradients_as_one_device(name, unread):
    value, stats, gradient = loss_and_gradient(name, unread)
    expected_value, expected_stats, expected_gradient = loss_and_gradient("one device", unread)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(flat(stats), flat(expected_stats), rtol=1e-5, atol=1e-6)
    scale = np.abs(flat(expected_gradient)).max()
    assert scale > 1e-3
    np.testing.assert_allclose(flat(gradient), flat(expected_gradient), rtol=0, atol=1e-5 * scale)


def evaluate(host_batch, unread=()):
    mesh = make_mesh("one device")
    batch = place(mesh, host_batch=host_batch, unread=unread)
    value, (stats, metrics) = jax.jit(functools.partial(make_loss(mesh), train=True))(
        ENCODER.params, ENCODER.stats, batch, jnp.int32(3)
    )
    return value, stats, metrics


def test_what_an_unread_row_holds_touches_nothing():
    other = HOST_BATCH["signal"].copy()
    other[list(UNREAD)] = 20_000
    value, stats, metrics = evaluate(HOST_BATCH, UNREAD)
    other_value, other_stats, _ = evaluate({**HOST_BATCH, "signal": other}, UNREAD)
    assert metrics["unread_rows"] == len(UNREAD)
    assert value == other_value
    np.testing.assert_array_equal(flat(stats), flat(other_stats))
    assert evaluate({**HOST_BATCH, "signal": other})[0] != other_value, "so it does where the row counts as read"


def test_unread_rows_are_left_out_as_if_the_batch_were_smaller():
    value, stats, _ = evaluate(HOST_BATCH, UNREAD)
    mesh = make_mesh("one device")
    kept = np.setdiff1d(np.arange(BATCH), UNREAD)
    smaller = {name: jnp.asarray(values[kept]) for name, values in HOST_BATCH.items()}
    smaller["valid"] = jnp.ones((len(kept), 1), bool)
    smaller_value, (smaller_stats, _) = jax.jit(functools.partial(make_loss(mesh), train=True))(
        ENCODER.params, ENCODER.stats, smaller, jnp.int32(3)
    )
    np.testing.assert_allclose(value, smaller_value, rtol=1e-6)
    np.testing.assert_allclose(flat(stats), flat(smaller_stats), rtol=1e-5, atol=1e-6)


def test_a_batch_of_which_nothing_was_read_changes_no_statistics_and_has_no_loss():
    value, stats, metrics = evaluate(HOST_BATCH, tuple(range(BATCH)))
    assert value == 0
    assert metrics["unread_rows"] == BATCH
    np.testing.assert_allclose(flat(stats), flat(ENCODER.stats), rtol=1e-6)


def test_three_steps_of_sgd_agree():
    found = {}
    for name in ("one device", "eight, permuted"):
        mesh = make_mesh(name)
        optimizer = optax.sgd(0.1)
        step = jax.jit(train_step(make_loss(mesh), optimizer), donate_argnums=0)
        copies = jax.tree.map(jnp.copy, (ENCODER.params, ENCODER.stats))
        state = jax.device_put(init_state(*copies, optimizer), parallel.replicated(mesh))
        for _ in range(3):
            state, metrics = step(state, place(mesh))
        found[name] = jax.device_get((state, metrics["loss"]))
    (one, loss_one), (eight, loss_eight) = found.values()
    assert int(one.step) == int(eight.step) == 3
    np.testing.assert_allclose(loss_one, loss_eight, rtol=1e-4)
    moved = np.abs(flat(one.params) - flat(ENCODER.params)).max()
    assert moved > 1e-3
    np.testing.assert_allclose(flat(eight.params), flat(one.params), rtol=0, atol=2e-3 * moved)


def test_the_state_is_donated():
    mesh = make_mesh("one device")
    optimizer = optax.sgd(0.1)
    step = jax.jit(train_step(make_loss(mesh), optimizer), donate_argnums=0)
    state = init_state(*jax.tree.map(jnp.copy, (ENCODER.params, ENCODER.stats)), optimizer)
    step(state, place(mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_fsdp_rules_shard_parameters_and_change_nothing():
    mesh = make_mesh("eight")
    rules = ((r"conv\d?/kernel$", jax.sharding.PartitionSpec(None, None, "data")),)
    shardings = parallel.shardings_of(ENCODER.params, mesh, rules)
    params = jax.device_put(ENCODER.params, shardings)
    kernel = params["blocks"][0]["conv1"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 8, 1)
    loss = make_loss(mesh)
    stats = jax.device_put(ENCODER.stats, parallel.replicated(mesh))
    value, _ = jax.jit(lambda p, s, b: loss(p, s, b, jnp.int32(3), train=True))(params, stats, place(mesh))
    np.testing.assert_allclose(value, loss_and_gradient("one device")[0], rtol=1e-6)
