"""On a mesh of two slices, embeddings cross the links between them once a step, and never in the rounds of a loop.

Slices are simulated by the places of eight devices. What is counted are the collectives of the finished program of
value and gradient that join devices of both slices and carry more than a scalar of floating-point numbers: gathers
forwards, and sums of gradients backwards. Metadata of rows are a few integers each and cross once a column.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.ahead.collectives import collectives_in
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.tiles import Tiling, take
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.placement import slices
from ecgjax.training import device_mesh
from tests.support.objective_cases import batch_of

ROWS = 32

#: Objective → sums of gradients that cross: one, or one for each of its passes over the pairs that has gradients.
OBJECTIVES = {"nt_xent": 1, "multi_similarity": 1, "sigmoid": 1, "hcl": 2, "debiased": 2}


@pytest.fixture
def two_slices(monkeypatch):
    monkeypatch.setattr(slices, "slice_of", lambda device: device.id // 4)


def crossing(text):
    """Collectives that join both slices and carry floating-point numbers of rows."""
    of_place = [place // 4 for place in range(8)]
    return [
        each
        for each in collectives_in(text)
        if each.joins(of_place) and any(array.startswith("f") and not array.endswith("[]") for array in each.arrays)
    ]


def lowered(name, tiling):
    objective = Objective(
        ObjectiveSettings(name=name),
        RelationSettings(name="same_patient"),
        MinerSettings(),
        tiling=tiling,
        num_views=2,
    )
    params, (z, rows) = objective.init(seed=0), batch_of(ROWS)

    def loss(z, rows):
        return objective(params, z, rows, key=jax.random.key(0), step=jnp.int32(0)).loss

    mesh = tiling.mesh
    by_row = None if mesh is None else device_mesh.batch_sharding(mesh)
    out = None if mesh is None else (device_mesh.replicated(mesh), by_row)
    step = jax.jit(jax.value_and_grad(loss), in_shardings=by_row, out_shardings=out)
    return step.lower(z, rows), jax.device_put((z, rows), by_row)


def cases():
    for name in OBJECTIVES:
        for form in ("ring", "gathered"):
            yield pytest.param(name, form, marks=() if name == "nt_xent" else pytest.mark.slow)


@pytest.mark.parametrize(("name", "form"), list(cases()))
def test_embeddings_cross_once_a_step_and_in_no_loop(two_slices, name, form):
    mesh = device_mesh.make_mesh()
    program, arguments = lowered(name, Tiling(form, mesh=mesh, chunk=5))
    compiled = program.compile()
    found = crossing(compiled.as_text())
    assert not any(each.repeated for each in found)
    kinds = [each.kind for each in found]
    assert kinds.count("all-gather") == 1
    assert kinds.count("reduce-scatter") == OBJECTIVES[name]
    assert len(kinds) == 1 + OBJECTIVES[name]
    # And it is the same loss.
    whole, arguments_of_one = lowered(name, Tiling("dense"))
    value, gradient = compiled(*arguments)
    expected, expected_gradient = whole.compile()(*arguments_of_one)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-5 * np.abs(expected_gradient).max())


def test_a_ring_that_does_not_know_the_slices_crosses_in_every_round():
    program, _ = lowered("nt_xent", Tiling("ring", mesh=device_mesh.make_mesh(), chunk=5))
    found = crossing(program.compile().as_text())
    assert sum(each.repeated for each in found) >= 3, "keys forwards, and keys and gradients backwards"


@pytest.mark.parametrize("model", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_rows_are_taken_from_both_slices(two_slices, model):
    mesh = device_mesh.make_mesh(model=model)
    rng = np.random.default_rng(0)
    values, index = jnp.asarray(rng.normal(size=(ROWS, 3)), jnp.float32), rng.integers(0, ROWS, (ROWS, 2))
    by_row = device_mesh.batch_sharding(mesh)
    placed = jax.device_put((values, jnp.asarray(index, jnp.int32)), by_row)

    def taken(values, index):
        return take({"z": values}, index, tiling=Tiling("ring", mesh=mesh))["z"]

    np.testing.assert_array_equal(jax.jit(taken)(*placed), np.asarray(values)[index])
    gradient = jax.jit(jax.grad(lambda values, index: jnp.square(taken(values, index)).sum()))(*placed)
    counts = np.bincount(index.ravel(), minlength=ROWS)
    np.testing.assert_allclose(gradient, 2 * np.asarray(values) * counts[:, None], rtol=1e-6)
