"""NT-Xent against a brute-force float64 form written from the formula, and its sharded and tiled forms against it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax import parallel
from ecgjax.objectives.contrastive import nt_xent
from ecgjax.objectives.distances import normalise
from ecgjax.objectives.relations import RELATIONS, Rows, same_patient, same_record
from ecgjax.objectives.tiles import Tiling


def make_rows(record, patient, view=None, valid=None):
    n = len(record)
    view = np.zeros(n) if view is None else view
    valid = np.ones(n, bool) if valid is None else valid
    return Rows(*(jnp.asarray(x, jnp.int32) for x in (np.arange(n), record, patient, view)), jnp.asarray(valid))


def brute_force(z, rows, *, by, tau):
    """Mean loss over rows in float64 by loops, from Khosla et al. 2020 eq. 2 and Chen et al. 2020 eq. 1.

    `by` is "record" or "patient". It shares no code with the relations.
    """
    z = np.asarray(z, np.float64)
    norm = np.sqrt((z**2).sum(1, keepdims=True))
    u = z / np.where(norm > 0, norm, 1)
    record, patient, valid = (np.asarray(x) for x in (rows.record, rows.patient, rows.valid))
    losses = []
    for i in range(len(z)):
        positives, negatives = [], []
        for j in range(len(z)):
            if i == j or not valid[i] or not valid[j]:
                continue
            same = record[i] == record[j] if by == "record" else patient[i] == patient[j]
            if same:
                positives.append(u[i] @ u[j] / tau)
            elif patient[i] != patient[j]:
                negatives.append(u[i] @ u[j] / tau)
        if positives:
            everything = np.array(positives + negatives)
            top = everything.max()
            log_sum = top + math.log(np.exp(everything - top).sum())
            losses.append(np.mean([log_sum - s for s in positives]))
    return float(np.mean(losses)) if losses else 0.0


def numeric_gradient(function, z, directions, eps=1e-6):
    return np.array([(function(z + eps * d) - function(z - eps * d)) / (2 * eps) for d in directions])


@functools.partial(jax.jit, static_argnames=("relation", "temperature", "chunk"))
def loss_of(z, rows, *, relation, temperature, chunk):
    return nt_xent(z, rows, relation=relation, temperature=temperature, tiling=Tiling(chunk=chunk))


RNG = np.random.default_rng(0)
RECORDS = np.repeat(np.arange(12), 2)
CASES = {
    "two views each": make_rows(RECORDS, RECORDS),
    "two records a patient": make_rows(RECORDS, RECORDS // 2),
    "one patient only": make_rows(RECORDS, np.zeros(24)),
    "a record drawn twice": make_rows(np.repeat([0, 1, 2, 3, 4, 0], 4), np.repeat([0, 1, 2, 3, 3, 0], 4)),
    "no positive for some": make_rows(
        np.arange(24) // 2 * (np.arange(24) > 5) + 100 * np.arange(24) * (np.arange(24) <= 5),
        np.arange(24) // 2 * (np.arange(24) > 5) + 100 * np.arange(24) * (np.arange(24) <= 5),
    ),
    "masked rows": make_rows(RECORDS, RECORDS // 2, valid=np.arange(24) % 5 != 0),
    "nothing valid": make_rows(RECORDS, RECORDS, valid=np.zeros(24, bool)),
}
EMBEDDINGS = {
    "random": RNG.normal(size=(24, 6)),
    "ties": np.repeat(RNG.normal(size=(6, 6)), 4, axis=0),
    "all equal": np.ones((24, 6)),
    "adversarial": np.where(np.arange(24)[:, None] % 2, 1.0, -1.0) * RNG.normal(size=(1, 6))
    + 1e-3 * RNG.normal(size=(24, 6)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", EMBEDDINGS)
@pytest.mark.parametrize("by", ["record", "patient"])
def test_equals_brute_force(case, kind, by):
    rows, z = CASES[case], EMBEDDINGS[kind]
    for chunk in (None, 7):  # 7 does not divide 24
        out = loss_of(jnp.asarray(z, jnp.float32), rows, relation=RELATIONS[f"same_{by}"], temperature=0.1, chunk=chunk)
        assert float(out.loss) == pytest.approx(brute_force(z, rows, by=by, tau=0.1), rel=2e-5, abs=2e-5)
        assert all(math.isfinite(float(v)) for v in out.stats.values())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["random", "adversarial"])
@pytest.mark.parametrize("chunk", [None, 7])
def test_gradient_equals_brute_force(case, kind, chunk):
    rows, z = CASES[case], EMBEDDINGS[kind]
    gradient = jax.grad(lambda z: loss_of(z, rows, relation=same_patient, temperature=0.5, chunk=chunk).loss)(
        jnp.asarray(z, jnp.float32)
    )
    directions = np.random.default_rng(1).normal(size=(8, *z.shape))
    expected = numeric_gradient(lambda z: brute_force(z, rows, by="patient", tau=0.5), z, directions)
    found = np.tensordot(directions, np.asarray(gradient, np.float64), axes=2)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_four_rows_by_hand():
    # Records a, b with two views each; unit vectors a = (1,0), a' = (0,1), b = (1,0), b' = (1,0); τ = 1, so the
    # similarities are a·a' = 0, a·b = a·b' = 1, a'·b = a'·b' = 0, b·b' = 1 and, by Chen et al. 2020 eq. 1,
    #   l(a)  = −log e^0 / (e^0 + e^1 + e^1) = log(1 + 2e)
    #   l(a') = −log e^0 / (e^0 + e^0 + e^0) = log 3
    #   l(b)  = −log e^1 / (e^1 + e^1 + e^0) = log(2e + 1) − 1, and l(b') the same.
    z = jnp.asarray([[1, 0], [0, 1], [1, 0], [1, 0]], jnp.float32)
    out = nt_xent(z, make_rows([0, 0, 1, 1], [0, 0, 1, 1]), relation=same_record, temperature=1.0, tiling=Tiling())
    e = math.e
    expected = [math.log(1 + 2 * e), math.log(3), math.log(2 * e + 1) - 1, math.log(2 * e + 1) - 1]
    np.testing.assert_allclose(out.per_row, expected, rtol=1e-6)
    assert float(out.loss) == pytest.approx(np.mean(expected), rel=1e-6)
    assert float(out.stats["positives_per_row"]) == 1
    assert float(out.stats["negatives_per_row"]) == 2


def test_same_patient_is_never_a_negative():
    # Pushing a same-patient row around must not change the loss of a record's own views.
    rows = make_rows([0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1])
    z = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    moved = z.at[2:4].set(jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32))
    a, b = (nt_xent(x, rows, relation=same_record, tiling=Tiling()).per_row[:2] for x in (z, moved))
    np.testing.assert_array_equal(a, b)


def test_permuting_rows_permutes_losses():
    rows, z = CASES["two records a patient"], jnp.asarray(EMBEDDINGS["random"], jnp.float32)
    order = np.random.default_rng(3).permutation(24)
    shuffled = jax.tree.map(lambda x: x[order], rows)
    a = nt_xent(z, rows, relation=same_record, tiling=Tiling(chunk=5)).per_row
    b = nt_xent(z[order], shuffled, relation=same_record, tiling=Tiling(chunk=5)).per_row
    np.testing.assert_allclose(a[order], b, rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("relation", ["same_record", "same_patient"])
@pytest.mark.parametrize("form", ["gathered", "ring"])
def test_sharded_equals_dense(devices, permuted, relation, form):
    n = 64
    rows = make_rows(np.arange(n) // 2, np.arange(n) // 4, valid=np.arange(n) % 11 != 0)
    z = jnp.asarray(np.random.default_rng(5).normal(size=(n, 16)), jnp.float32)
    chosen = list(jax.devices())[:devices]
    if permuted:
        chosen = list(np.random.default_rng(7).permutation(np.array(chosen, dtype=object)))
    mesh = parallel.make_mesh(devices=chosen)

    def value(z, rows, tiling):
        return nt_xent(z, rows, relation=RELATIONS[relation], tiling=tiling).loss

    dense_loss, dense_grad = jax.value_and_grad(value)(z, rows, Tiling("dense"))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    placed = jax.device_put((z, rows), sharding)
    tiling = Tiling(form, mesh=mesh, chunk=24)
    loss, grad = jax.jit(jax.value_and_grad(lambda z, rows: value(z, rows, tiling)))(*placed)
    np.testing.assert_allclose(loss, dense_loss, rtol=1e-6)
    np.testing.assert_allclose(grad, dense_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", ["gathered", "ring"])
def test_data_by_model_mesh_equals_dense(form):
    rows = make_rows(np.arange(32) // 2, np.arange(32) // 2)
    z = jnp.asarray(np.random.default_rng(5).normal(size=(32, 16)), jnp.float32)
    mesh = parallel.make_mesh(model=2)
    placed = jax.device_put((z, rows), NamedSharding(mesh, PartitionSpec("data")))
    tiling = Tiling(form, mesh=mesh, chunk=5)
    loss = jax.jit(lambda z, rows: nt_xent(z, rows, relation=same_record, tiling=tiling).loss)(*placed)
    dense = nt_xent(z, rows, relation=same_record, tiling=Tiling("dense")).loss
    np.testing.assert_allclose(loss, dense, rtol=1e-6)


def test_memory_of_the_tiled_form_is_linear_in_the_batch():
    def temporary_bytes(n):
        rows = make_rows(np.arange(n) // 2, np.arange(n) // 2)
        loss = jax.value_and_grad(lambda z: nt_xent(z, rows, relation=same_record, tiling=Tiling(chunk=256)).loss)
        lowered = jax.jit(loss).lower(jax.ShapeDtypeStruct((n, 32), jnp.float32))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8192) < 4.4 * temporary_bytes(2048)
    assert temporary_bytes(8192) < 8192 * 8192 * 4 / 4, "a quarter of one dense float32 similarity matrix"


def test_zero_embedding_has_finite_gradient():
    gradient = jax.grad(lambda z: normalise(z).sum())(jnp.zeros((2, 3), jnp.float32))
    assert np.isfinite(gradient).all()
