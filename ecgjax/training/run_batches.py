"""The global batches of a pretraining on its mesh, and their shapes and shardings."""

from __future__ import annotations

from collections.abc import Generator

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.records import SignalFormat
from data_pipelines.streaming.batches import Choice, batches
from data_pipelines.streaming.sampler import Sampler
from ecgjax.augmentations import partners
from ecgjax.data.recordings import Recordings
from ecgjax.data.row_metadata import Columns
from ecgjax.data.samplers import SampledSide
from ecgjax.errors import ConfigError
from ecgjax.training import device_mesh
from ecgjax.training.debugging.debug_batches import store_of
from ecgjax.training.settings import PretrainingSettings
from ecgjax.training.steps import Batch

#: Column that a batch carries beside its signals, `int32` → column of the index that it comes from. The patient is the
#: group's number, because patients with a recording in common are taken for one.
COLUMNS = {"patient": "group", "valid_start": "valid_start", "valid_samples": "valid_samples"}


def sampled_side(settings: PretrainingSettings, recordings: Recordings, records: np.ndarray) -> SampledSide:
    """Returns one side of a run's split, and how its records are drawn.

    Args:
        settings: Settings of the run.
        recordings: Recordings of the run.
        records: Record numbers of the side, `int64[m]`, ascending.

    Raises:
        ConfigError: The settings contradict each other.
        DataError: A data set has no records on this side, or there is nothing to balance.
    """
    return SampledSide(settings.sampling, recordings, records, weights=settings.data.weights, columns=settings.columns)


def read_batches(
    settings: PretrainingSettings,
    recordings: Recordings,
    columns: Columns,
    sampler: Sampler,
    *,
    mesh: Mesh,
    start_step: int,
) -> Generator[Batch, None, None]:
    """Yields global batches on the mesh, columns by name, from `start_step` on, without end.

    Args:
        settings: Settings of the run.
        recordings: Recordings that are read.
        columns: Columns over all recordings that `row_columns` returned.
        sampler: Sampler that says which records a step's rows hold.
        mesh: Mesh of the run.
        start_step: Step of the first batch.

    Raises:
        ConfigError: A setting of what depends on the step is wrong.
    """
    batch_size, sharding = settings.batch_size, device_mesh.batch_sharding(mesh)
    rows = device_mesh.local_rows(sharding, batch_size)
    of_index = {name: getattr(recordings.index, column) for name, column in COLUMNS.items()}
    stream = batches(
        store_of(recordings.store, settings.debug),
        sampler,
        rows=rows,
        start_step=start_step,
        columns=of_index | columns,
        chosen=chosen_columns(settings, columns, sampler),
        allow_bad_shards=settings.data.allow_bad_shards,
    )
    seed = _seed(settings.seed, mesh)
    for batch in stream:
        valid = device_mesh.put_votes(batch.pop("valid"), mesh=mesh, rows=rows, batch_size=batch_size)
        yield device_mesh.put_batch(batch, sharding=sharding, rows=rows, batch_size=batch_size) | {
            "valid": valid,
            "seed": seed,
        }


def chosen_columns(settings: PretrainingSettings, columns: Columns, sampler: Sampler) -> dict[str, Choice]:
    """Returns functions `(step, rows) → column` by name of the column, for columns that depend on the step.

    Args:
        settings: Settings of the run.
        columns: Columns over all recordings that `row_columns` returned.
        sampler: Sampler that says which records a step's rows hold.

    Raises:
        ConfigError: The regularisation of the coupling is no number.
    """
    augment = settings.augment
    if not partners.needs(augment):
        return {}
    geodesic = augment["geodesic"]
    regularisation = geodesic["regularisation"]
    if not isinstance(regularisation, int | float):
        raise ConfigError(f"config.augment.geodesic.regularisation={regularisation!r} must be a number")
    chosen = partners.Partners(
        sampler,
        {name: values for name, values in columns.items() if isinstance(values, np.ndarray)},
        seed=settings.seed,
        coupling=str(geodesic["coupling"]),
        regularisation=float(regularisation),
    )
    return {partners.COLUMN: chosen}


def _seed(seed: int, mesh: Mesh) -> jax.Array:
    """Returns the run's seed as steps take it, `u32[]` on every device."""
    bits = np.uint32(seed % 2**32)
    return jax.make_array_from_callback((), device_mesh.replicated(mesh), lambda _: bits)


def abstract_batch(
    settings: PretrainingSettings, signal_format: SignalFormat, columns: Columns, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, types and shardings of what `read_batches` yields.

    Args:
        settings: Settings of the run.
        signal_format: Rate and length of the recordings.
        columns: Columns over all recordings that `row_columns` returned.
        mesh: Mesh of the run.

    Raises:
        ConfigError: The batch does not divide among the devices.
    """
    sharding = device_mesh.batch_sharding(mesh)
    device_mesh.local_rows(sharding, settings.batch_size)  # It raises an error for a batch that does not divide.
    shape = jax.ShapeDtypeStruct
    ids = shape((settings.batch_size,), np.int32, sharding=sharding)
    signal = shape((settings.batch_size, *signal_format.shape), np.int16, sharding=sharding)
    votes = shape((settings.batch_size, mesh.shape["model"]), np.bool_, sharding=device_mesh.votes_sharding(mesh))
    others = {
        name: shape((settings.batch_size, *values.shape[1:]), values.dtype, sharding=sharding)
        for name, values in columns.items()
    }
    chosen = {partners.COLUMN: ids} if partners.needs(settings.augment) else {}
    return {
        "signal": signal,
        "valid": votes,
        "row": ids,
        "record": ids,
        "seed": shape((), np.uint32, sharding=device_mesh.replicated(mesh)),
        **dict.fromkeys(COLUMNS, ids),
        **others,
        **chosen,
    }
