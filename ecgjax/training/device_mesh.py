"""Mesh of the devices, and shardings that place the rows of the global batch on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ecgjax import processes
from ecgjax.errors import ConfigError
from ecgjax.placement import slices
from ecgjax.placement.rules import AXES


def make_mesh(*, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the axes `data` and `model`.

    Args:
        model: Number of devices that share one replica of the parameters; the rest go to `data`.
        devices: Devices in the order of the mesh; None for all devices of the run, slice by slice in the order that
            suits their interconnect.

    Raises:
        ConfigError: `model` does not divide the number of devices, or that of a slice.
    """
    count = jax.device_count() if devices is None else len(devices)
    if model < 1 or count % model:
        raise ConfigError(f"config.mesh.model={model} does not divide the {count} devices of this run")
    types = (AxisType.Auto, AxisType.Auto)
    # All devices are arranged by how they are connected; those that are named keep the order that they are given in.
    arranged = slices.by_slices(jax.devices(), model=model) if devices is None else np.asarray(devices)
    return Mesh(arranged.reshape(count // model, model), AXES, axis_types=types)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the global batch, whose rows are divided over the `data` axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def votes_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of votes, `[batch, model]`: one element for every row on every device (`put_votes`)."""
    return NamedSharding(mesh, PartitionSpec("data", "model"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts the same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(sharding: NamedSharding, batch_size: int, *, leaf: str = "config.batch_size") -> np.ndarray:
    """Returns the rows of the global batch that this process reads.

    They come from the sharding, not from the process number: on a pod the order of devices is not the order of
    processes, and processes may share rows.

    Args:
        sharding: Sharding of the global batch.
        batch_size: Number of rows of the global batch.
        leaf: Leaf of the batch size, for the message.

    Returns:
        Row numbers, `int64[local]`, ascending.

    Raises:
        ConfigError: The batch does not divide over the `data` axis.
    """
    data = sharding.mesh.shape["data"]
    if batch_size % data:
        raise ConfigError(f"{leaf}={batch_size} does not divide over the {data} devices of the data axis")
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))


def put_batch(
    batch: Mapping[str, np.ndarray], *, sharding: NamedSharding, rows: np.ndarray, batch_size: int
) -> dict[str, Array]:
    """Puts this process's rows on its devices as arrays of the global batch.

    Args:
        batch: Columns of this process's rows by name, `[local, ...]`, in the order of `rows`.
        sharding: Sharding of the global batch.
        rows: Row numbers that `local_rows` returned.
        batch_size: Number of rows of the global batch.

    Returns:
        Columns by name, `[batch_size, ...]`.
    """

    def put(values: np.ndarray) -> Array:
        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            start, stop, _ = _rows_of(index).indices(batch_size)
            first = np.searchsorted(rows, start)  # A device's rows are contiguous in `rows`, which holds them all.
            return values[first : first + stop - start]

        return jax.make_array_from_callback((batch_size, *values.shape[1:]), sharding, shard)

    return {name: put(values) for name, values in batch.items()}


def check_alike(digest: str, *, what: str) -> None:
    """Raises an error where processes differ in something that must be the same in all of them.

    A machine with an old copy of the data would fill its rows with other recordings, and nobody would notice.

    Args:
        digest: Digest of what must be alike.
        what: Description of what must be alike, for the message.

    Raises:
        ConfigError: Processes differ, or did not come in time; every process raises it, and it names them.
    """
    digests = processes.gather(what, digest)
    differing = [number for number, other in enumerate(digests) if other != digests[0]]
    if differing:
        raise ConfigError(
            f"process {', '.join(map(str, differing))} has other {what} than process 0: put the same data sets on "
            "every machine, and start all processes with the same config"
        )


def put_votes(valid: np.ndarray, *, mesh: Mesh, rows: np.ndarray, batch_size: int) -> Array:
    """Puts on every device a mask of its rows that its process could read; `unanimous` combines the masks.

    Devices along the `model` axis hold the same rows, and may belong to different processes, of which one may have a
    damaged copy of a shard. So every device has its own mask (vote).

    Args:
        valid: Mask of the rows that this process could read, `bool[local]`, in the order of `rows`.
        mesh: Mesh of the global batch.
        rows: Row numbers that `local_rows` returned.
        batch_size: Number of rows of the global batch.

    Returns:
        Votes, `bool[batch_size, model]`.
    """
    by_row = np.zeros(batch_size, bool)
    by_row[rows] = valid
    shape = (batch_size, mesh.shape["model"])
    return jax.make_array_from_callback(shape, votes_sharding(mesh), lambda index: by_row[_rows_of(index), None])


def _rows_of(index: tuple[slice, ...] | None) -> slice:
    """Returns the rows that a device holds of an array; JAX's types allow for devices that hold nothing."""
    if index is None:
        raise ValueError("a device holds no rows of the batch")
    return index[0]


def unanimous(votes: Array) -> Array:
    """Returns which rows every device that holds them could read: `bool[batch, model]` → `bool[batch]`."""
    return votes.all(axis=1)
