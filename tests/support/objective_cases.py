"""Made-up rows and embeddings for the tests of objectives, and what those tests share.

Objectives are compared with brute force in float64, their gradients with its central differences, and their sharded and
tiled forms with the dense one.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax.objectives.pairs.relations import Rows
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.training import device_mesh

_DTYPES = {"valid": bool, "label": np.float32, "age": np.float32, "physiology": np.float32}


def make_rows(record, patient, view=None, valid=None, **columns):
    """Rows in batch order; the other columns by name, as lists or arrays."""
    n = len(record)
    columns |= {
        "row": np.arange(n),
        "record": record,
        "patient": patient,
        "view": np.zeros(n) if view is None else view,
        "valid": np.ones(n, bool) if valid is None else valid,
    }
    return Rows(**{name: jnp.asarray(np.asarray(x), _DTYPES.get(name, jnp.int32)) for name, x in columns.items()})


NUM_ROWS = 24
_RECORDS = np.repeat(np.arange(NUM_ROWS // 2), 2)
_VIEWS = np.arange(NUM_ROWS) % 2
_ALONE = np.where(np.arange(NUM_ROWS) < 6, 100 + np.arange(NUM_ROWS), _RECORDS)

#: What can be special about the rows of a batch, two views next to each other unless the name says otherwise.
CASES = {
    "two views each": make_rows(_RECORDS, _RECORDS, _VIEWS),
    "two records a patient": make_rows(_RECORDS, _RECORDS // 2, _VIEWS),
    "one patient only": make_rows(_RECORDS, np.zeros(NUM_ROWS), _VIEWS),
    "a record drawn twice": make_rows(np.repeat([0, 1, 2, 3, 4, 0], 4), np.repeat([0, 1, 2, 3, 3, 0], 4), _VIEWS),
    "no positive for some": make_rows(_ALONE, _ALONE, _VIEWS),
    "masked rows": make_rows(_RECORDS, _RECORDS // 2, _VIEWS, valid=np.arange(NUM_ROWS) % 5 != 0),
    "masked records": make_rows(_RECORDS, _RECORDS // 3, _VIEWS, valid=_RECORDS % 4 != 1),
    "nothing valid": make_rows(_RECORDS, _RECORDS, _VIEWS, valid=np.zeros(NUM_ROWS, bool)),
}

_RNG = np.random.default_rng(0)

#: `f64[24, 6]`.
EMBEDDINGS = {
    "random": _RNG.normal(size=(NUM_ROWS, 6)),
    "ties": np.repeat(_RNG.normal(size=(6, 6)), 4, axis=0),
    "all equal": np.ones((NUM_ROWS, 6)),
    "adversarial": np.where(np.arange(NUM_ROWS)[:, None] % 2, 1.0, -1.0) * _RNG.normal(size=(1, 6))
    + 1e-3 * _RNG.normal(size=(NUM_ROWS, 6)),
}

#: Those at which a loss is differentiable: neither ties nor zero distances.
SMOOTH = ("random", "adversarial")


def unit(z):
    """Rows of unit length in float64, for brute force."""
    z = np.asarray(z, np.float64)
    norm = np.sqrt((z**2).sum(-1, keepdims=True))
    return z / np.where(norm > 0, norm, 1)


def columns(rows):
    """Record, patient and valid as NumPy arrays, for brute force."""
    return np.asarray(rows.record), np.asarray(rows.patient), np.asarray(rows.valid)


def positives_and_negatives(rows, by):
    """Of each row its positives and negatives as lists, by loops that share no code with the relations.

    `by` is "record" or "patient": whose other rows are positives. Rows of other patients are negatives.
    """
    record, patient, valid = columns(rows)
    group = record if by == "record" else patient
    found = []
    for i in range(len(record)):
        others = [j for j in range(len(record)) if j != i and valid[i] and valid[j]]
        positive = [j for j in others if group[j] == group[i]]
        found.append((positive, [j for j in others if patient[j] != patient[i] and j not in positive]))
    return found


def log_sum_exp(values):
    """log Σ e^x in float64; −∞ without a term."""
    values = np.asarray(values, np.float64)
    if not values.size:
        return -np.inf
    top = values.max()
    return top + np.log(np.exp(values - top).sum())


def mean_over(costs):
    """Mean of the costs that are not None, 0 without any; and all costs, with 0 for None."""
    counted = [cost for cost in costs if cost is not None]
    return (float(np.mean(counted)) if counted else 0.0), np.array([0.0 if cost is None else cost for cost in costs])


def squared(a, b):
    return ((a - b) ** 2).sum()


def brute_triplet(z, mined, *, form, width):
    """Schroff et al. 2015 eq. 1 and Hermans et al. 2017 in float64; also the share of active triplets."""
    losses, active = [], []
    for i in range(len(z)):
        own = []
        for k in np.flatnonzero(mined.found[i]):
            apart = squared(z[i], z[mined.positive[i, k]]) - squared(z[i], z[mined.negative[i, k]])
            own.append(max(0, apart + width) if form == "hinge" else np.logaddexp(0, apart))
            active.append(apart + width > 0 if form == "hinge" else apart > 0)
        if own:
            losses.append(np.mean(own))
    return (np.mean(losses), np.mean(active)) if losses else (0.0, 0.0)


def assert_equals_brute_force(objective, brute_force, *, cases=CASES, kinds=EMBEDDINGS, chunks=(7,), prepare=None):
    """Checks loss, rows' losses and gradient in every case.

    Args:
        objective: `(z, rows, tiling=…) → LossOutput`.
        brute_force: `(z, rows, what prepare returned) → (loss, per row)` in float64.
        cases: name → rows.
        kinds: name → embeddings; gradients are compared for those in `SMOOTH`.
        chunks: keys a tile; 7 does not divide 24.
        prepare: `rows →` what the brute force needs of them, once a case.
    """
    for chunk in chunks:
        run = jax.jit(functools.partial(loss_and_gradients(objective), tiling=Tiling(chunk=chunk)))
        for case, rows in cases.items():
            known = prepare(rows) if prepare else None
            for kind, z in kinds.items():
                out, (gradient,) = run(jnp.asarray(z, jnp.float32), rows)
                loss, per_row = brute_force(z, rows, known)
                where = f"{case}, {kind}, chunk {chunk}"
                np.testing.assert_allclose(out.loss, loss, rtol=2e-5, atol=2e-5, err_msg=where)
                np.testing.assert_allclose(out.per_row, per_row, rtol=2e-5, atol=2e-5, err_msg=where)
                assert all(np.isfinite(x) for x in out.stats.values()), where
                assert np.isfinite(gradient).all(), where
                if kind in SMOOTH:
                    assert_gradient(gradient, lambda z, r=rows, k=known: brute_force(z, r, k)[0], z, err_msg=where)


def assert_gradient(gradient, brute_force, z, *, rtol=2e-4, atol=2e-5, err_msg=""):
    """Compares a gradient with central differences of `brute_force(z) → float` along eight random directions."""
    z = np.asarray(z, np.float64)
    directions = np.random.default_rng(1).normal(size=(8, *z.shape))
    eps = 1e-6
    expected = [(brute_force(z + eps * d) - brute_force(z - eps * d)) / (2 * eps) for d in directions]
    found = np.tensordot(directions, np.asarray(gradient, np.float64), axes=z.ndim)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=err_msg)


#: For tests of forms: rows and settings of `assert_forms_agree`, the cheapest form that sends blocks of keys round in
#: `make test`, all forms in `make test-slow`.
FORMS = pytest.mark.parametrize(
    ("num_rows", "settings"),
    [
        pytest.param(16, {"only": "ring on 2 devices", "chunk": 5}, id="one form"),
        pytest.param(64, {"chunk": 24}, id="all forms", marks=pytest.mark.slow),
    ],
)


def tilings(chunk, *, every=False):
    """Name → tiling over 1, 2, 4 and 8 devices (these in a random order) and over a data × model mesh.

    Every mesh comes with `every` in both forms. Otherwise they take turns, and one device, whose gathered form the
    comparison with brute force uses, is left out.
    """
    devices = np.array(jax.devices(), dtype=object)
    meshes = {
        "1 device": device_mesh.make_mesh(devices=list(devices[:1])),
        "2 devices": device_mesh.make_mesh(devices=list(devices[:2])),
        "4 devices": device_mesh.make_mesh(devices=list(devices[:4])),
        "8 devices": device_mesh.make_mesh(devices=list(np.random.default_rng(7).permutation(devices))),
        "data x model": device_mesh.make_mesh(model=2),
    }
    some = {("ring", "2 devices"), ("gathered", "4 devices"), ("ring", "8 devices"), ("gathered", "data x model")}
    return {
        f"{form} on {name}": Tiling(form, mesh=mesh, chunk=chunk)
        for name, mesh in meshes.items()
        for form in ("gathered", "ring")
        if every or (form, name) in some
    }


def assert_forms_agree(function, args, *, shared=(), chunk=24, every=False, only=None, rtol=1e-5, atol=1e-6):
    """Checks that every sharded and tiled form gives what the dense form gives.

    Integers and booleans must be the same, floating-point numbers equal within the tolerances.

    Args:
        function: `(*args, *shared, tiling=…) → tree of arrays`.
        args: trees of `[rows, ...]`, which are sharded over the data axis.
        shared: trees that every device has, such as a temperature.
        chunk: keys a tile.
        every: whether both forms are tried on every mesh; see `tilings`.
        only: name of the one tiling to try, by default all.
        rtol: relative tolerance.
        atol: absolute tolerance, in units of the largest magnitude in the leaf where that is above 1.
    """
    expected = jax.jit(functools.partial(function, tiling=Tiling("dense")))(*args, *shared)
    tried = tilings(chunk, every=every)
    for name, tiling in (tried if only is None else {only: tried[only]}).items():
        placed = jax.device_put(args, NamedSharding(tiling.mesh, PartitionSpec("data")))
        everywhere = jax.device_put(shared, device_mesh.replicated(tiling.mesh))
        found = jax.jit(functools.partial(function, tiling=tiling))(*placed, *everywhere)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            a, b = np.asarray(a), np.asarray(b)
            if np.issubdtype(b.dtype, np.floating):
                scale = max(1.0, float(np.abs(b).max(initial=0)))
                np.testing.assert_allclose(a, b, rtol=rtol, atol=atol * scale, err_msg=name)
            else:
                np.testing.assert_array_equal(a, b, err_msg=name)


def loss_and_gradients(objective, num_shared=0):
    """For `assert_forms_agree`: `(z, rows, *shared, tiling=…) → (loss, per row, gradients of z and what is shared)`.

    Args:
        objective: `(z, rows, *shared, tiling=…) → LossOutput`.
        num_shared: how many differentiable arguments follow `rows`.
    """

    def function(z, rows, *shared, tiling):
        def loss(z, *shared):
            out = objective(z, rows, *shared, tiling=tiling)
            return out.loss, out

        arguments = tuple(range(1 + num_shared))
        (_, out), gradients = jax.value_and_grad(loss, argnums=arguments, has_aux=True)(z, *shared)
        return out, gradients

    return function


def assert_fits(objective, *, mib, num_rows=32768, dim=256):
    """Compiles value and gradient for eight devices, and asks the compiler what each of them will hold.

    Args:
        objective: `(z, rows, tiling=…) → LossOutput`.
        mib: most that a device may need, with arguments and outputs.
        num_rows: of the global batch, two views of a record, two records of a patient.
        dim: of the embeddings.
    """
    mesh = device_mesh.make_mesh()
    by_row = NamedSharding(mesh, PartitionSpec("data"))

    def loss(z, row):
        rows = Rows(row, row // 2, row // 4, row % 2, row >= 0)
        return objective(z, rows, tiling=Tiling("gathered", mesh=mesh)).loss

    shapes = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=by_row)
        for shape, dtype in (((num_rows, dim), jnp.float32), ((num_rows,), jnp.int32))
    ]
    outputs = (NamedSharding(mesh, PartitionSpec()), by_row)
    compiled = jax.jit(jax.value_and_grad(loss), out_shardings=outputs).lower(*shapes).compile()
    memory = compiled.memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert used < mib * 2**20
    all_pairs = rf"\[({num_rows}|{num_rows // 8}),{num_rows}\]"
    assert not re.search(all_pairs, compiled.as_text()), "a similarity of all pairs at once"


def batch_of(n, *, dim=16, seed=5):
    """Embeddings and rows for sharded tests: two views a record, two records a patient, some rows masked."""
    rows = make_rows(np.arange(n) // 2, np.arange(n) // 4, np.arange(n) % 2, valid=np.arange(n) // 2 % 7 != 3)
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, dim)), jnp.float32), rows
