"""Made-up rows and embeddings for the tests of objectives, and what those tests share.

Objectives are compared with brute force in float64, their gradients with its central differences, and their sharded and
tiled forms with the dense one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ecgjax import parallel
from ecgjax.objectives.relations import Rows
from ecgjax.objectives.tiles import Tiling

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


def assert_gradient(gradient, brute_force, z, *, rtol=2e-4, atol=2e-5):
    """Compares a gradient with central differences of `brute_force(z) → float` along eight random directions."""
    z = np.asarray(z, np.float64)
    directions = np.random.default_rng(1).normal(size=(8, *z.shape))
    eps = 1e-6
    expected = [(brute_force(z + eps * d) - brute_force(z - eps * d)) / (2 * eps) for d in directions]
    found = np.tensordot(directions, np.asarray(gradient, np.float64), axes=z.ndim)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def tilings(chunk):
    """Name → tiling: gathered and ring over 1, 2, 4 and 8 devices, eight in a random order, and a data × model mesh."""
    devices = np.array(jax.devices(), dtype=object)
    shuffled = np.random.default_rng(7).permutation(devices)
    meshes = {f"{n} devices": parallel.make_mesh(devices=list(devices[:n])) for n in (1, 2, 4)}
    meshes |= {
        "8 devices in random order": parallel.make_mesh(devices=list(shuffled)),
        "data x model": parallel.make_mesh(model=2),
    }
    return {
        f"{form} on {name}": Tiling(form, mesh=mesh, chunk=chunk)
        for name, mesh in meshes.items()
        for form in ("gathered", "ring")
        if not (form == "ring" and mesh.devices.size == 1)  # which is the gathered form
    }


def assert_forms_agree(function, args, *, shared=(), chunk=24, rtol=1e-5, atol=1e-6):
    """Checks that every sharded and tiled form gives what the dense form gives.

    Integers and booleans must be the same, floating-point numbers equal within the tolerances.

    Args:
        function: `(*args, *shared, tiling=…) → tree of arrays`.
        args: trees of `[rows, ...]`, which are sharded over the data axis.
        shared: trees that every device has, such as a temperature.
        chunk: keys a tile.
        rtol: relative tolerance.
        atol: absolute tolerance, in units of the largest magnitude in the leaf where that is above 1.
    """
    expected = jax.jit(functools.partial(function, tiling=Tiling("dense")))(*args, *shared)
    for name, tiling in tilings(chunk).items():
        placed = jax.device_put(args, NamedSharding(tiling.mesh, PartitionSpec("data")))
        everywhere = jax.device_put(shared, parallel.replicated(tiling.mesh))
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


def batch_of(n, *, dim=16, seed=5):
    """Embeddings and rows for sharded tests: two views a record, two records a patient, some rows masked."""
    rows = make_rows(np.arange(n) // 2, np.arange(n) // 4, np.arange(n) % 2, valid=np.arange(n) // 2 % 7 != 3)
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, dim)), jnp.float32), rows
