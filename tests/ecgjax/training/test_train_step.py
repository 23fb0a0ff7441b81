"""Eight devices, in any order, give the loss and gradients of one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ecgjax import encoders
from ecgjax.augmentations.views import Views
from ecgjax.encoders.operations.layers import row_dropout
from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.reconstruction import Reconstruction
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.placement.parameter_layout import lay_out
from ecgjax.placement.settings import MeshSettings
from ecgjax.training import device_mesh
from ecgjax.training.embedding_rows import Layout
from ecgjax.training.micro_batches import check_parts
from ecgjax.training.steps import init_state, pretraining_loss, train_step
from ecgjax.training.tasks.heads import SupervisedTask
from ecgjax.training.tasks.task_settings import TaskSettings
from tests.support.plain_networks import away_from_initialisation

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
ENCODER = away_from_initialisation(
    encoders.abstract("resnet18", widths=(8,), kernel=3, dropout=0.2, embedding_dim=8, num_leads=12)
)
STATS = {"encoder": ENCODER.stats}
PARAMS = {"encoder": ENCODER.params, "objective": {"temperature": jnp.log(jnp.float32(0.5))}}
ORDERS = {
    "one device": ([0], 1),
    "eight": (range(8), 1),
    "eight, permuted": ([3, 7, 0, 5, 1, 6, 2, 4], 1),
    "four by two": ([6, 1, 4, 3, 0, 2, 5, 7], 2),
}


#: Loss with its settings, relation with its settings, and augmentations.
PLAIN_METHOD = (("nt_xent", {}), ("same_patient", {}), AUGMENT)
HARD_METHOD = (
    ("hardest_nt_xent", {"share_of_negatives": 0.3, "most_negatives": 6, "ceiling": 0.999}),
    ("same_record", {"others_of_patient": "negative"}),
    {"stretched_crop": {}, "noise_floor": {}, "lowpass": {}},
)


def make_loss(mesh, *, graph=ENCODER.graph, method=PLAIN_METHOD, **options):
    (loss, arguments), (relation, arguments_of_relation), augment = method
    objective = Objective(
        ObjectiveSettings(name=loss, learn=("temperature",), arguments={"temperature": 0.5, **arguments}),
        RelationSettings(name=relation, arguments=arguments_of_relation),
        MinerSettings(),
        tiling=Tiling(mesh=mesh, chunk=5),
        num_views=2,
    )
    return pretraining_loss(graph, Views(augment, rate_hz=100), objective, layout=Layout(), mesh=mesh, **options)


def place(mesh, *, host_batch=HOST_BATCH, unread=()):
    sharding = device_mesh.batch_sharding(mesh)
    rows = device_mesh.local_rows(sharding, BATCH)
    local = {name: values[rows] for name, values in host_batch.items()}
    valid = ~np.isin(rows, unread)
    votes = device_mesh.put_votes(valid, mesh=mesh, rows=rows, batch_size=BATCH)
    return device_mesh.put_batch(local, sharding=sharding, rows=rows, batch_size=BATCH) | {
        "valid": votes,
        "seed": jnp.uint32(0),
    }


def make_mesh(name):
    order, model = ORDERS[name]
    return device_mesh.make_mesh(model=model, devices=[jax.devices()[i] for i in order])


@functools.cache
def compiled(name):
    """Value and gradient on a mesh; compiling is what these tests spend their time on."""
    loss = make_loss(make_mesh(name))
    return jax.jit(
        lambda params, stats, batch: jax.value_and_grad(loss, has_aux=True)(
            params, stats, batch, jnp.int32(3), train=True
        )
    )


@functools.cache
def loss_and_gradient(name, unread=()):
    mesh, run = make_mesh(name), compiled(name)
    replicated = device_mesh.replicated(mesh)
    params, stats = jax.device_put((PARAMS, STATS), replicated)
    (value, (stats, _)), gradient = jax.device_get(run(params, stats, place(mesh, unread=unread)))
    return value, stats, gradient


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("unread", [(), UNREAD])
@pytest.mark.parametrize(
    "name", ["eight, permuted", *(pytest.param(name, marks=pytest.mark.slow) for name in ("eight", "four by two"))]
)
def test_same_loss_statistics_and_gradients_as_one_device(name, unread):
    value, stats, gradient = loss_and_gradient(name, unread)
    expected_value, expected_stats, expected_gradient = loss_and_gradient("one device", unread)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(flat(stats), flat(expected_stats), rtol=1e-5, atol=1e-6)
    scale = np.abs(flat(expected_gradient)).max()
    assert scale > 1e-3
    np.testing.assert_allclose(flat(gradient), flat(expected_gradient), rtol=0, atol=1e-5 * scale)


def evaluate(host_batch, unread=()):
    batch = place(make_mesh("one device"), host_batch=host_batch, unread=unread)
    (value, (stats, metrics)), _ = compiled("one device")(PARAMS, STATS, batch)
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
    smaller |= {"valid": jnp.ones((len(kept), 1), bool), "seed": jnp.uint32(0)}
    smaller_value, (smaller_stats, _) = jax.jit(functools.partial(make_loss(mesh), train=True))(
        PARAMS, STATS, smaller, jnp.int32(3)
    )
    np.testing.assert_allclose(value, smaller_value, rtol=1e-6)
    np.testing.assert_allclose(flat(stats), flat(smaller_stats), rtol=1e-5, atol=1e-6)


def test_a_batch_of_which_nothing_was_read_changes_no_statistics_and_has_no_loss():
    value, stats, metrics = evaluate(HOST_BATCH, tuple(range(BATCH)))
    assert value == 0
    assert metrics["unread_rows"] == BATCH
    np.testing.assert_allclose(flat(stats), flat(STATS), rtol=1e-6)


class Plain(nnx.Module):
    """An encoder without batch norm and its decoder: two convolutions and a mean, and a third back to the leads."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(12, 64, kernel_size=(9,), rngs=rngs)
        self.conv2 = nnx.Conv(64, 8, kernel_size=(9,), rngs=rngs)
        self.conv3 = nnx.Conv(64, 12, kernel_size=(3,), rngs=rngs)

    def reconstruct(self, ecg, *, train, keys=None, valid=None):
        del train, valid
        x = jax.nn.relu(self.conv1(ecg))
        if keys is not None:
            x = row_dropout(x, keys, 0.2)
        return self.conv2(x).mean(1), self.conv3(x)


def plain_encoder():
    with jax.numpy_rank_promotion("allow"):
        graph, params = nnx.split(Plain(nnx.Rngs(0)))
    return encoders.Split(graph, nnx.to_pure_dict(params), {})


PLAIN = plain_encoder()
LABELS = RNG.normal(15, 4, BATCH).astype(np.float32)


@functools.cache
def in_parts(name, parts, hard=False):
    """With a task and a reconstruction beside the objective."""
    mesh = make_mesh(name)
    task = SupervisedTask(TaskSettings(name="regression"), dim=8, labels=LABELS, seed=0)
    beside = {"task": task, "reconstruction": Reconstruction()}
    loss = make_loss(mesh, parts=parts, graph=PLAIN.graph, method=HARD_METHOD if hard else PLAIN_METHOD, **beside)
    run = jax.jit(
        lambda params, stats, batch: jax.value_and_grad(loss, has_aux=True)(
            params, stats, batch, jnp.int32(3), train=True
        )
    )
    params = {**PARAMS, "encoder": PLAIN.params, "task": task.head.params}
    params, stats = jax.device_put((params, {"encoder": {}, "task": task.head.stats}), device_mesh.replicated(mesh))
    batch = place(mesh, host_batch={**HOST_BATCH, "label": LABELS}, unread=UNREAD)
    lowered = run.lower(params, stats, batch).compile()
    (value, (stats, metrics)), gradient = jax.device_get(lowered(params, stats, batch))
    return value, (stats, metrics), gradient, lowered.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parts", "hard"), [("one device", 4, False), ("four by two", 2, False), ("four by two", 2, True)]
)
def test_a_batch_encoded_in_parts_gives_the_same_gradient(name, parts, hard):
    with jax.numpy_rank_promotion("allow"):  # of flax's convolution bias
        value, (stats, metrics), gradient, memory = in_parts(name, parts, hard)
        expected_value, (expected_stats, expected), expected_gradient, whole_memory = in_parts("one device", 1, hard)
    if hard:
        assert 1 < expected["kept_negatives_per_row"] <= 6
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(flat(stats), flat(expected_stats), rtol=1e-5)
    for term in ("objective", "task", "reconstruction", "peak_reconstruction"):
        assert expected[term] > 0
        np.testing.assert_allclose(metrics[term], expected[term], rtol=1e-5, err_msg=term)
    scale = np.abs(flat(expected_gradient)).max()
    assert scale > 1e-3
    np.testing.assert_allclose(flat(gradient), flat(expected_gradient), rtol=0, atol=1e-5 * scale)
    if name == "one device":
        assert memory < 0.75 * whole_memory


def test_what_parts_cannot_be_is_refused():
    mesh = make_mesh("eight")
    options = {"batch_size": 64, "mesh": mesh, "has_batch_norm": False, "batch_norm": "refuse"}
    check_parts(8, **options)
    check_parts(1, **options | {"has_batch_norm": True})
    check_parts(8, **options | {"has_batch_norm": True, "batch_norm": "per_part"})
    with pytest.raises(ConfigError, match=r"batch_size=64 does not divide into config\.micro_batch\.parts=16 on"):
        check_parts(16, **options)
    with pytest.raises(ConfigError, match="batch norm, whose statistics would be those of a part"):
        check_parts(8, **options | {"has_batch_norm": True})
    with pytest.raises(ConfigError, match=r"batch_norm='sync' is unknown; there are: refuse, per_part"):
        check_parts(8, **options | {"batch_norm": "sync"})


def test_three_steps_of_sgd_agree_and_donate_their_state():
    found = {}
    for name in ("one device", "eight, permuted"):
        mesh = make_mesh(name)
        optimizer = optax.sgd(0.1)
        step = jax.jit(train_step(make_loss(mesh), optimizer), donate_argnums=0)
        copies = jax.tree.map(jnp.copy, (PARAMS, STATS))
        state = jax.device_put(init_state(*copies, optimizer), device_mesh.replicated(mesh))
        for _ in range(3):
            before = jax.tree.leaves(state.params)
            state, metrics = step(state, place(mesh))
            assert all(leaf.is_deleted() for leaf in before), "the state is donated"
        found[name] = jax.device_get((state, metrics["loss"]))
    (one, loss_one), (eight, loss_eight) = found.values()
    assert int(one.step) == int(eight.step) == 3
    np.testing.assert_allclose(loss_one, loss_eight, rtol=1e-4)
    moved = np.abs(flat(one.params) - flat(PARAMS)).max()
    assert moved > 1e-3
    np.testing.assert_allclose(flat(eight.params), flat(one.params), rtol=0, atol=2e-3 * moved)


def test_fsdp_rules_shard_parameters_and_change_nothing():
    mesh = make_mesh("eight")
    layout = lay_out(PARAMS, mesh, MeshSettings(rules=(r"conv\d?/kernel$=,,data",)))
    params = jax.device_put(PARAMS, layout.shardings(PARAMS))
    kernel = params["encoder"]["blocks"][0]["conv1"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 8, 1)
    loss = make_loss(mesh)
    stats = jax.device_put(STATS, device_mesh.replicated(mesh))
    value, _ = jax.jit(lambda p, s, b: loss(p, s, b, jnp.int32(3), train=True))(params, stats, place(mesh))
    np.testing.assert_allclose(value, loss_and_gradient("one device")[0], rtol=1e-6)
