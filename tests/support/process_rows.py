"""Run as one process of several: stores the rows of the first global batches that landed on its devices.

And trains on them; process 0 stores the losses and what is learnt.
"""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.storage.store import open_store
from data_pipelines.streaming.batches import batches
from data_pipelines.streaming.orders import RecordOrder
from data_pipelines.streaming.sampler import Sampler
from ecgjax import processes
from ecgjax.objectives.losses.nt_xent import nt_xent
from ecgjax.objectives.pairs.relations import same_record
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.training import device_mesh
from ecgjax.training.embedding_rows import Layout, embedding_rows
from ecgjax.training.steps import init_state, train_step

BATCH, STEPS, START = 8, 3, 5


def make_sampler(dataset):
    return Sampler(RecordOrder(np.arange(dataset.index.num_records), seed=3), batch_size=BATCH)


def linear_loss(params, stats, batch, step, *, train, mesh):
    """NT-Xent between the halves of a recording, each embedded by one matrix."""
    del step, train
    halves = batch["signal"].astype(jnp.float32).reshape(2 * BATCH, -1) / 1000
    metadata = {name: batch[name] for name in ("row", "record")}
    rows = embedding_rows(metadata | {"patient": batch["record"], "valid": batch["row"] >= 0}, Layout(views=2))
    out = nt_xent(halves @ params["encoder"], rows, relation=same_record, tiling=Tiling("ring", mesh=mesh))
    return out.loss, (stats, {"loss": out.loss})


def training(mesh, size):
    """A first state of a matrix for signals of so many numbers, and the compiled step."""
    optimizer = optax.sgd(0.1)
    step = jax.jit(train_step(functools.partial(linear_loss, mesh=mesh), optimizer))
    matrix = np.random.default_rng(0).normal(size=(size // 2, 4)).astype(np.float32)
    return jax.device_put(init_state({"encoder": matrix}, {}, optimizer), device_mesh.replicated(mesh)), step


def main(directory, out):
    processes.begin()
    dataset = open_dataset(directory)
    # Devices alternate between the processes, so that neither has a contiguous block of rows.
    devices = sorted(jax.devices(), key=lambda device: (device.id % jax.local_device_count(), -device.process_index))
    mesh = device_mesh.make_mesh(devices=devices)
    sharding = device_mesh.batch_sharding(mesh)
    rows = device_mesh.local_rows(sharding, BATCH)
    stream = batches(open_store(directory), make_sampler(dataset), rows=rows, start_step=START)
    state, update = training(mesh, int(np.prod(dataset.format.shape)))
    losses = []
    for step in range(STEPS):
        batch = device_mesh.put_batch(next(stream), sharding=sharding, rows=rows, batch_size=BATCH)
        placed = [
            (np.arange(BATCH)[shard.index[0]], *(np.asarray(part.data) for part in parts))
            for shard, *parts in zip(
                batch["row"].addressable_shards,
                *(batch[name].addressable_shards for name in ("row", "record", "signal")),
                strict=True,
            )
        ]
        position, row, record, signal = (np.concatenate(parts) for parts in zip(*placed, strict=True))
        path = Path(out) / f"{step}_{jax.process_index()}.npz"
        np.savez(path, position=position, row=row, record=record, signal=signal)
        state, metrics = update(state, batch)
        losses.append(float(metrics["loss"]))
    stream.close()
    if jax.process_index() == 0:
        np.savez(Path(out) / "trained.npz", losses=losses, matrix=np.asarray(state.params["encoder"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
