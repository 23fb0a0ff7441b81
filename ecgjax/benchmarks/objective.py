"""Time and memory of compiled losses over the global batch, in every form of `objectives.pairs.tiles`.

Rows are divided among all devices of the run. `JAX_NUM_CPU_DEVICES=8` shows on any machine what eight devices need.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.benchmarks import harness
from ecgjax.keys import step_key
from ecgjax.objectives.losses.nt_xent import nt_xent
from ecgjax.objectives.losses.triplet import triplet
from ecgjax.objectives.miners.miners import semi_hard
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.outputs import LossOutput
from ecgjax.objectives.pairs.relations import Rows, same_patient
from ecgjax.objectives.pairs.tiles import FORMS, Tiling
from ecgjax.training import device_mesh

#: Numbers of rows of the global batch.
ROWS = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)

DIM = 256

#: A form is timed fewer times where a size takes longer.
_SECONDS_A_SIZE = 20.0

_MIB = 2**20
_GIB = 2**30

#: Approximate number of buffers of rows × rows that the dense form needs; it is left out where they would not fit.
_DENSE_BUFFERS = 4


def measure(*, most_rows: int, most_timed: int) -> dict[str, Any]:
    """Compiles value and gradient of NT-Xent and of the semi-hard triplet loss for increasing batch sizes.

    Args:
        most_rows: Largest batch that is compiled.
        most_timed: Largest batch that is also run.

    Returns:
        Values for JSON: for every loss, form and number of rows the MiB on each device including arguments and outputs,
        the milliseconds (median; None where it was not run), and the time as a share of the dense form's.
    """
    mesh = device_mesh.make_mesh()
    sizes = [rows for rows in ROWS if rows <= most_rows and rows % mesh.shape["data"] == 0]
    losses = {"nt_xent": _nt_xent, "semi_hard_triplet": _semi_hard_triplet}
    return {
        "device": jax.devices()[0].device_kind,
        "num_devices": mesh.size,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "dim": DIM,
        **{
            name: [_measure(loss, rows, mesh, timed=rows <= most_timed) for rows in sizes]
            for name, loss in losses.items()
        },
    }


def _measure(loss: Callable[..., LossOutput], rows: int, mesh: Mesh, *, timed: bool) -> dict[str, Any]:
    by_form = {form: _compile(loss, rows, Tiling(form, mesh=mesh), mesh) for form in FORMS if _fits(form, rows)}
    seconds = _times(by_form, rows, mesh) if timed else {}
    dense = seconds.get("dense")
    return {
        "rows": rows,
        **{
            form: {
                "mib_a_device": round(_bytes(compiled) / _MIB, 1),
                "ms": None if form not in seconds else round(1e3 * seconds[form], 1),
                "share_of_dense_time": None if dense is None else round(seconds[form] / dense, 3),
            }
            for form, compiled in by_form.items()
        },
    }


def _fits(form: str, rows: int) -> bool:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return form != "dense" or _DENSE_BUFFERS * 4 * rows**2 < 3 * memory / 4


def _compile(loss: Callable[..., LossOutput], rows: int, tiling: Tiling, mesh: Mesh) -> Any:
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def value(z: Array, row: Array) -> Array:
        # Every recording has two views, and every patient two recordings.
        metadata = Rows(row=row, record=row // 2, patient=row // 4, view=row % 2, valid=row >= 0)
        return loss(z, metadata, tiling=tiling).loss

    # Shapes suffice to compile, so that sizes that are not run need no memory.
    shapes = (
        jax.ShapeDtypeStruct((rows, DIM), jnp.float32, sharding=sharding),
        jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=sharding),
    )
    return (
        jax.jit(jax.value_and_grad(value), out_shardings=(device_mesh.replicated(mesh), sharding))
        .lower(*shapes)
        .compile()
    )


def _bytes(compiled: Any) -> int:
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes


def _times(by_form: dict[str, Any], rows: int, mesh: Mesh) -> dict[str, float]:
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    z = jax.device_put(np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32), sharding)
    row = jax.device_put(np.arange(rows, dtype=np.int32), sharding)

    def run(compiled: Any) -> None:
        jax.block_until_ready(compiled(z, row))

    programs = {form: functools.partial(run, compiled) for form, compiled in by_form.items()}
    return harness.take_turns(programs, at_most_s=_SECONDS_A_SIZE)


def _nt_xent(z: Array, rows: Rows, *, tiling: Tiling) -> LossOutput:
    return nt_xent(z, rows, relation=same_patient, tiling=tiling)


def _semi_hard_triplet(z: Array, rows: Rows, *, tiling: Tiling) -> LossOutput:
    return triplet(
        z,
        rows,
        relation=same_patient,
        miner=functools.partial(semi_hard, distance=DISTANCES["euclidean"]),
        tiling=tiling,
        key=step_key(0, 0, stream="mining"),
    )
