"""On a mesh of two slices, embeddings cross the links between them once a step, and never in the rounds of a loop.

Slices are simulated by the places of eight devices. What is counted are the collectives of the finished program of
value and gradient that join devices of both slices: of every loss and every miner that a config can name.
"""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax.ahead.collectives import collectives_in
from ecgjax.encoders.operations.layers import BatchNorm
from ecgjax.objectives.losses.hard_negatives import hcl
from ecgjax.objectives.losses.nt_xent import three_kg
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.miners.signal_space import l1, nearest_and_farthest
from ecgjax.objectives.objective import OBJECTIVES, Objective
from ecgjax.objectives.pairs.relations import same_patient
from ecgjax.objectives.pairs.tiles import Tiling, exchange, fold, positions, take
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.placement import slices
from ecgjax.training import device_mesh
from tests.support.objective_cases import batch_of, loss_and_gradients

ROWS, DIM, PARTNERS_DIM = 32, 16, 12

#: What crosses besides, in sums: of a loss, whatever the batch is, or of a miner's distance.
_CENTRE = f"f32[{DIM}]"
SUMS = {
    "clocs": {"f32[2,2]": 2},
    "vicreg": {f"f32[2,{DIM}]": 2, f"f32[2,{DIM},{DIM}]": 1},
    "clip": {f"f32[{DIM},{PARTNERS_DIM}]": 1},
    "margin": {_CENTRE: 1},
    "batch_hard": {_CENTRE: 1},
    "semi_hard": {_CENTRE: 1},
    "soft_hard": {_CENTRE: 1},
    "distance_weighted": {_CENTRE: 1},
    "hardest": {_CENTRE: 1},
    "scheduled": {_CENTRE: 1},
}

#: Settings that a miner must be given.
_ON_SPHERE = {"distance": "euclidean_on_sphere"}
MINERS_SETTINGS = {
    "batch_hard": _ON_SPHERE,
    "semi_hard": _ON_SPHERE,
    "soft_hard": {"distance": "cosine"},
    "distance_weighted": {**_ON_SPHERE, "triplets": 2},
    "signal_distance": {"among_farthest": True},
    "hardest": {**_ON_SPHERE, "ceiling": 0.9},
    "scheduled": {"distance": "squared_euclidean"},
}
SCHEDULE = {"first_hardness": 0.0, "last_hardness": 1.0, "over_steps": 10}

#: Losses, or miners of a triplet loss, that `make test` tries, and those that are tried gathered besides in a ring.
QUICK = {("hcl", "ring"), ("clip", "gathered"), ("vicreg", "ring"), ("angular", "ring"), ("batch_hard", "gathered")}
GATHERED = ("hcl", "clip", "batch_hard", "hardest_nt_xent")


def simulate(monkeypatch, *, size):
    """Lets devices lie in slices of `size`."""
    monkeypatch.setattr(slices, "slice_of", lambda device: device.id // size)


@pytest.fixture
def two_slices(monkeypatch):
    simulate(monkeypatch, size=4)


def batch():
    """Embeddings, rows with all columns that the objectives below look at, and partners."""
    number = np.arange(ROWS)
    far = np.stack([(number + 9) % ROWS, (number + 13) % ROWS], axis=1)
    z, rows = batch_of(ROWS, dim=DIM)
    rows = rows._replace(
        label=jnp.asarray(number // 2 % 3, jnp.float32),
        pair_group=jnp.asarray(number // 2, jnp.int32),
        nearest=jnp.asarray((number + 4) % ROWS, jnp.int32),
        nearest_record=jnp.asarray((number + 4) % ROWS // 2, jnp.int32),
        farthest=jnp.asarray(far, jnp.int32),
    )
    return z, rows, jnp.asarray(np.random.default_rng(3).normal(size=(ROWS, PARTNERS_DIM)), jnp.float32)


def objective_of(name, tiling):
    """Objective of a loss's name, or of a triplet loss with the miner of that name."""
    loss, miner = ("triplet", name) if name in MINERS else (name, "batch_hard" if name == "margin" else None)
    relation = {"vicreg": None, "clip": None, "signal_distance": "nearest_signal"}.get(name, "same_patient")
    schedule = SCHEDULE if miner == "scheduled" else {}
    return Objective(
        ObjectiveSettings(name=loss),
        RelationSettings(name=relation),
        MinerSettings(name=miner, arguments=MINERS_SETTINGS.get(miner, {}), **schedule),
        tiling=tiling,
        num_views=2,
        projected=(PARTNERS_DIM, DIM),
    )


def lowered(name, tiling):
    """Lowered program of value and gradient, and its arguments where the mesh has them."""
    objective = objective_of(name, tiling)
    params = objective.init(seed=0)

    def loss(params, z, rows, paired):
        given = {"paired": paired} if name == "clip" else {}
        return objective(params, z, rows, key=jax.random.key(0), step=jnp.int32(3), **given).loss

    step, arguments = jax.value_and_grad(loss, argnums=(0, 1)), (params, *batch())
    if tiling.mesh is None:
        return jax.jit(step).lower(*arguments), arguments
    by_row, whole = device_mesh.batch_sharding(tiling.mesh), device_mesh.replicated(tiling.mesh)
    places = (whole, by_row, by_row, by_row)
    step = jax.jit(step, in_shardings=places, out_shardings=(whole, (whole, by_row)))
    return step.lower(*arguments), jax.device_put(arguments, places)


def crossing(text):
    """Collectives that join both slices."""
    of_place = [place // 4 for place in range(8)]
    return [each for each in collectives_in(text) if each.joins(of_place)]


def arrays_of(found, *kinds):
    """How often arrays of these types cross in collectives of these kinds, scalars left out."""
    arrays = [array for each in found if each.kind in kinds for array in each.arrays]
    return collections.Counter(array for array in arrays if not array.endswith("[]"))


def cases():
    names = [*(name for name in OBJECTIVES if name != "triplet"), *MINERS]
    for case in [*((name, "ring") for name in names), *((name, "gathered") for name in GATHERED)]:
        yield pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("name", "form"), list(cases()))
def test_embeddings_cross_once_a_step_and_in_no_loop(two_slices, name, form):
    program, arguments = lowered(name, Tiling(form, mesh=device_mesh.make_mesh(), chunk=5))
    compiled = program.compile()
    found = crossing(compiled.as_text())
    assert not any(each.repeated for each in found)
    assert {each.kind for each in found} <= {"all-gather", "reduce-scatter", "all-reduce"}
    # A device gathers the four rows that it has in each slice, and keeps the sum of its own gradients.
    modalities = 2 if name == "clip" else 1
    of_rows = {} if name == "vicreg" else {f"f32[8,{modalities},{DIM}]": 1}
    gathered = arrays_of(found, "all-gather")
    numbers = {array: count for array, count in gathered.items() if array.startswith("f32") and array != "f32[8,1]"}
    assert numbers == of_rows
    assert arrays_of(found, "reduce-scatter") == ({} if name == "vicreg" else {f"f32[4,{modalities},{DIM}]": 1})
    assert arrays_of(found, "all-reduce") == SUMS.get(name, {})
    assert sum(each.kind == "all-reduce" for each in found) <= 3 + len(SUMS.get(name, {})), "scalars"
    # Metadata cross once a type: integers, masks, and labels where a miner looks at those of the keys.
    metadata = [array.partition("[")[0] for array in gathered.elements() if array not in of_rows]
    assert sorted(metadata) == sorted(set(metadata))
    # And it is the same loss.
    whole, arguments_of_one = lowered(name, Tiling("dense"))
    value, gradients = compiled(*arguments)
    expected, expected_gradients = whole.compile()(*arguments_of_one)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for gradient, of_one in zip(*map(jax.tree.leaves, (gradients, expected_gradients)), strict=True):
        np.testing.assert_allclose(gradient, of_one, rtol=0, atol=1e-5 * np.abs(of_one).max())


def test_batch_norm_crosses_in_three_sums_of_five_numbers_a_channel(two_slices):
    layer = BatchNorm(6, dtype=jnp.float32)
    graph, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)

    def loss(params, stats, x):
        layer = nnx.merge(graph, params, stats, copy=True)
        return jnp.sin(layer(x, train=True)).sum(), nnx.state(layer, nnx.BatchStat)

    mesh = device_mesh.make_mesh()
    whole = device_mesh.replicated(mesh)
    places = (whole, whole, device_mesh.batch_sharding(mesh))
    step = jax.value_and_grad(loss, argnums=(0, 2), has_aux=True)
    out = ((whole, whole), (whole, places[2]))
    program = jax.jit(step, in_shardings=places, out_shardings=out).lower(params, stats, jnp.ones((ROWS, 5, 6)))
    found = [each for each in crossing(program.compile().as_text()) if arrays_of([each], each.kind)]
    assert sorted(len(each.arrays) - each.arrays.count("f32[]") for each in found) == [1, 2, 2]
    assert arrays_of(found, "all-reduce") == {"f32[6]": 5}


def test_a_ring_that_does_not_know_the_slices_crosses_in_every_round():
    program, _ = lowered("nt_xent", Tiling("ring", mesh=device_mesh.make_mesh(), chunk=5))
    found = crossing(program.compile().as_text())
    assert sum(each.repeated for each in found if arrays_of([each], each.kind)) >= 3, "keys and gradients"


def test_passes_that_each_exchange_their_keys_have_gradients_that_cross_twice(two_slices):
    mesh = device_mesh.make_mesh()
    by_row = device_mesh.batch_sharding(mesh)
    tiling = Tiling("ring", mesh=mesh, chunk=5)

    def sums_of(z, keys):
        """Sums of squared inner products over all keys, by two passes of which the second looks at the first's."""

        def one_pass(weight):
            def update(carry, anchors, keys):
                return carry + ((anchors["z"] @ keys.T) ** 2).sum(1) * anchors["weight"]

            return fold(lambda n: jnp.zeros(n), update, {"z": z, "weight": weight}, keys, tiling=tiling)

        return one_pass(one_pass(jnp.ones(ROWS))).sum()

    def gradients_that_cross(function):
        compiled = jax.jit(jax.grad(function), in_shardings=by_row, out_shardings=by_row).lower(batch()[0]).compile()
        return sum(arrays_of(crossing(compiled.as_text()), "reduce-scatter").values())

    assert gradients_that_cross(lambda z: sums_of(z, z)) == 2
    assert gradients_that_cross(lambda z: sums_of(z, exchange(z, tiling=tiling))) == 1


LAYOUTS = pytest.mark.parametrize(
    ("devices", "size", "model", "form"),
    [
        pytest.param(8, 4, 1, "gathered", id="two slices of four"),
        pytest.param(8, 2, 1, "ring", id="four slices of two", marks=pytest.mark.slow),
        pytest.param(2, 1, 1, "gathered", id="two slices of one", marks=pytest.mark.slow),
        pytest.param(8, 4, 2, "ring", id="two slices of two times two", marks=pytest.mark.slow),
    ],
)


@pytest.mark.slow
@LAYOUTS
def test_losses_are_the_same_on_any_slices(monkeypatch, devices, size, model, form):
    simulate(monkeypatch, size=size)
    mesh = device_mesh.make_mesh(model=model, devices=jax.devices()[:devices])
    assert slices.num_slices(mesh) == devices // size
    z, rows, _ = batch()
    for loss in (hcl, three_kg):
        run = jax.jit(
            loss_and_gradients(lambda *args, loss=loss, **kw: loss(*args, relation=same_patient, **kw)),
            static_argnames="tiling",
        )
        expected, (of_one,) = run(z, rows, tiling=Tiling("dense"))
        placed = jax.device_put((z, rows), device_mesh.batch_sharding(mesh))
        found, (gradient,) = run(*placed, tiling=Tiling(form, mesh=mesh, chunk=5))
        np.testing.assert_allclose(found.per_row, expected.per_row, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, of_one, rtol=0, atol=1e-5 * np.abs(of_one).max())


@LAYOUTS
def test_rows_are_taken_from_all_slices(monkeypatch, devices, size, model, form):
    simulate(monkeypatch, size=size)
    mesh = device_mesh.make_mesh(model=model, devices=jax.devices()[:devices])
    rng = np.random.default_rng(0)
    values, index = jnp.asarray(rng.normal(size=(ROWS, 3)), jnp.float32), rng.integers(0, ROWS, (ROWS, 2))
    by_row = device_mesh.batch_sharding(mesh)
    placed = jax.device_put((values, jnp.asarray(index, jnp.int32)), by_row)
    tiling = Tiling(form, mesh=mesh)

    def taken(values, index):
        return take({"z": values}, index, tiling=tiling)["z"]

    np.testing.assert_array_equal(jax.jit(taken)(*placed), np.asarray(values)[index])
    gradient = jax.jit(jax.grad(lambda values, index: jnp.square(taken(values, index)).sum()))(*placed)
    counts = np.bincount(index.ravel(), minlength=ROWS)
    np.testing.assert_allclose(gradient, 2 * np.asarray(values) * counts[:, None], rtol=1e-6)
    # The positions that stand beside exchanged rows are those at which the rows are found.
    numbers = jax.jit(lambda x: exchange(x, tiling=tiling).arrays)(jax.device_put(jnp.arange(ROWS), by_row))
    np.testing.assert_array_equal(jax.jit(lambda: positions(ROWS, tiling=tiling).arrays)(), numbers)


@pytest.mark.slow
def test_neighbours_in_signal_space_are_those_of_one_device_and_signals_cross_once(two_slices):
    _, rows, _ = batch()
    signals = jnp.asarray(np.random.default_rng(2).normal(size=(ROWS, 6, 2)), jnp.float32)
    mesh = device_mesh.make_mesh()

    def neighbours(signals, rows, tiling):
        return nearest_and_farthest(signals, rows, distance=l1, tiling=tiling)

    by_row = device_mesh.batch_sharding(mesh)
    placed = jax.device_put((signals, rows), by_row)
    program = jax.jit(lambda *args: neighbours(*args, Tiling("ring", mesh=mesh, chunk=5)), in_shardings=by_row)
    compiled = program.lower(signals, rows).compile()
    assert arrays_of(crossing(compiled.as_text()), "all-gather")["f32[8,1,6,2]"] == 1
    for found, expected in zip(
        compiled(*placed), jax.jit(neighbours, static_argnums=2)(signals, rows, Tiling("dense")), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
