"""The health metric of a run: its frozen encoder embeds labelled records on the mesh, and the nearest vote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from data_pipelines.storage.store import Store
from ecgjax import encoders
from ecgjax.encoders.lead_wise import of_recordings
from ecgjax.health.asked_records import AskedRecords
from ecgjax.health.neighbour_vote import vote
from ecgjax.leads import prepare
from ecgjax.processes.joint_answers import number_of_first_process
from ecgjax.training import device_mesh
from ecgjax.training.steps import Weights

#: Number of rows that a device embeds at a time. It is the same on any number of devices, and so is the program.
_ROWS_OF_A_DEVICE = 32


class NeighbourProbe:
    """Function from weights to the health metric, by its full name; all processes call it together.

    Args:
        asked: Records and labels.
        store: Store of the signals.
        graph: Graph definition of the encoder.
        num_leads: Number of input leads of the encoder.
        layer: Layer that is embedded with, `"features"` or `"embedding"`.
        mesh: Mesh of the run.
        allow_bad_shards: Whether records that cannot be read are left out instead of an error.
    """

    def __init__(
        self,
        asked: AskedRecords,
        *,
        store: Store,
        graph: Any,
        num_leads: int,
        layer: str,
        mesh: Mesh,
        allow_bad_shards: bool = False,
    ):
        self._asked, self._store, self._mesh, self._lenient = asked, store, mesh, allow_bad_shards
        self._size = _ROWS_OF_A_DEVICE * mesh.shape["data"]
        self._sharding = device_mesh.batch_sharding(mesh)
        self._rows = device_mesh.local_rows(self._sharding, self._size)
        self._embed = _embedding(graph, mesh, num_leads=num_leads, layer=layer)

    def __call__(self, weights: Weights) -> Mapping[str, float]:
        """Returns the metric of these weights, the same number in every process."""
        found = vote(self._asked, *self.embedded(weights))
        # A last digit that differs between machines would have them disagree on which checkpoint is the best.
        return {self._asked.metric: number_of_first_process(found)}

    def embedded(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Returns the embeddings of all records, `f32[n, dim]`, and which could be read, `bool[n]`."""
        params, stats = weights.params["encoder"], weights.stats["encoder"]
        records, embeddings, readable = self._asked.records, [], []
        for start in range(0, len(records), self._size):
            block = records[start : start + self._size]
            signal, votes = self._read(np.pad(block, (0, self._size - len(block)), mode="edge"))
            found, could = jax.device_get(self._embed(params, stats, signal, votes))
            embeddings.append(found[: len(block)])
            readable.append(could[: len(block)])
        return np.concatenate(embeddings), np.concatenate(readable)

    def _read(self, block: np.ndarray) -> tuple[Array, Array]:
        """Puts signals of a block of records on the mesh, and whether this process could read them."""
        own, valid = block[self._rows], np.ones(len(self._rows), bool)
        signal = self._store.read(own, valid=valid if self._lenient else None)
        batch = device_mesh.put_batch(
            {"signal": signal}, sharding=self._sharding, rows=self._rows, batch_size=self._size
        )
        votes = device_mesh.put_votes(valid, mesh=self._mesh, rows=self._rows, batch_size=self._size)
        return batch["signal"], votes


def _embedding(graph: Any, mesh: Mesh, *, num_leads: int, layer: str) -> Callable[..., tuple[Array, Array]]:
    """Returns the compiled function `(params, stats, signal, votes) → (embeddings, readable)`, whole on every device.

    Each device embeds its own rows with whole parameters, so that no sum depends on how many devices there are.
    """

    def of_rows(params: Any, stats: Any, signal: Array) -> Array:
        split = encoders.Split(graph, params, stats)
        ecg = prepare(signal, num_leads=num_leads)
        return of_recordings(encoders.apply(split, ecg, train=False, features=layer == "features")[0])

    rows, whole = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(of_rows, mesh=mesh, in_specs=(whole, whole, rows), out_specs=rows, check_vma=False)

    def embed(params: Any, stats: Any, signal: Array, votes: Array) -> tuple[Array, Array]:
        return mapped(params, stats, signal), device_mesh.unanimous(votes)

    return jax.jit(embed, out_shardings=device_mesh.replicated(mesh))
