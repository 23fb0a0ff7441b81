"""Mesh and shardings, which place arrays and rows of the global batch on devices, and the start of processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ecgjax.errors import ConfigError, chosen

#: Regex on a parameter's path → its layout on the mesh. The first match counts; without a match it is replicated.
Rules = Sequence[tuple[str, PartitionSpec]]

#: Axes of the mesh; rows of the batch are divided over the first.
AXES = ("data", "model")

#: Layouts of parameters by the name that a config gives them.
SHARDINGS: Mapping[str, Rules] = {"replicated": ()}

#: Seconds for which a process that has ended waits for the others. They end together unless one fails, and an error
#: should not show only after JAX's default of 300 s.
_SHUTDOWN_TIMEOUT_S = 30


def start_processes() -> None:
    """Joins the other processes of this run, where the environment says that there are any.

    The launchers set `ECGJAX_COORDINATOR` (host:port), `ECGJAX_NUM_PROCESSES` and `ECGJAX_PROCESS_ID`.
    `ECGJAX_CLUSTER=1` asks JAX to find its neighbours in a TPU pod, Slurm or Kubernetes by itself. Without either this
    is a run of one process, and nothing happens. Call this function before any other use of JAX.

    Raises:
        ConfigError: `ECGJAX_COORDINATOR` is set without the other two.
    """
    if coordinator := os.environ.get("ECGJAX_COORDINATOR"):
        missing = [name for name in ("ECGJAX_NUM_PROCESSES", "ECGJAX_PROCESS_ID") if name not in os.environ]
        if missing:
            raise ConfigError(
                f"ECGJAX_COORDINATOR is set but {' and '.join(missing)} is not; the launcher must set all three"
            )
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=int(os.environ["ECGJAX_NUM_PROCESSES"]),
            process_id=int(os.environ["ECGJAX_PROCESS_ID"]),
            shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT_S,
        )
    elif os.environ.get("ECGJAX_CLUSTER") == "1":
        jax.distributed.initialize(shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT_S)
    if jax.distributed.is_initialized():
        # On CPUs the first collective sets up connections and gives up after 30 s, and processes drift apart by that
        # much while they compile. Later collectives wait as long as it takes. So the first one is done here.
        multihost_utils.sync_global_devices("ecgjax start")


def make_mesh(*, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the axes `data` and `model`.

    Args:
        model: Number of devices that share one replica of the parameters; the rest go to `data`.
        devices: Devices in the order of the mesh; None for all devices of the run, in the order that suits their
            interconnect.

    Raises:
        ConfigError: `model` does not divide the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    if model < 1 or count % model:
        raise ConfigError(f"config.mesh.model={model} does not divide the {count} devices of this run")
    types = (AxisType.Auto, AxisType.Auto)
    # JAX arranges all devices by how they are connected; devices that are named keep the order that they are given in.
    if devices is None:
        return jax.make_mesh((count // model, model), AXES, axis_types=types)
    return Mesh(np.asarray(devices).reshape(count // model, model), AXES, axis_types=types)


def rules_of(sharding: str, rules: Sequence[str]) -> Rules:
    """Reads `config.mesh.sharding` and `config.mesh.rules`.

    Args:
        sharding: Name of a layout, a key of `SHARDINGS`.
        rules: Exceptions from it, each `"REGEX=AXIS,AXIS"`: the mesh axis of every dimension of the parameters whose
            path the regular expression is found in; an empty axis leaves a dimension whole.

    Returns:
        The rules of the layout, after the exceptions.

    Raises:
        ConfigError: The layout or an axis does not exist, or a rule cannot be read.
    """
    layout = chosen(SHARDINGS, sharding, setting="config.mesh.sharding")
    return (*map(_rule, rules), *layout)


def _rule(text: str) -> tuple[str, PartitionSpec]:
    pattern, equals, axes = text.rpartition("=")
    named = [axis.strip() or None for axis in axes.split(",")]
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"config.mesh.rules: {pattern!r} is no regular expression ({error})") from error
    if not (pattern and equals):
        raise ConfigError(f"config.mesh.rules: {text!r} is no rule; write REGEX=AXIS,AXIS")
    if unknown := [axis for axis in named if axis is not None and axis not in AXES]:
        raise ConfigError(f"config.mesh.rules: {text!r} names the axis {unknown[0]!r}; there are: {', '.join(AXES)}")
    return pattern, PartitionSpec(*named)


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
        digest: Digest of what must be alike, hexadecimal, of an even length that is the same everywhere.
        what: Description of what must be alike, for the message.

    Raises:
        ConfigError: Processes differ; it is raised on every process, and names those that differ from the first.
    """
    if jax.process_count() == 1:
        return
    digests = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8))
    differing = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
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


def shardings_of(tree: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """Returns shardings for a tree of parameters (or of optimiser state, whose paths end as the parameters' do).

    Args:
        tree: Parameters, as arrays or shapes.
        mesh: Mesh to lay the parameters out on.
        rules: Layout rules, of which the first whose regex is found in the leaf's path counts; without a match a leaf
            is replicated.

    Returns:
        Tree with a `NamedSharding` for each leaf.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for pattern, spec in rules if re.search(pattern, name)), PartitionSpec())
        # A pattern may be found in the path of a scalar too, which has no dimensions to lay out.
        return NamedSharding(mesh, spec if len(spec) <= np.ndim(leaf) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, tree)
