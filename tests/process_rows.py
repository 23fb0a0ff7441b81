"""Run as one process of several: stores the rows of the first global batches that landed on its devices."""

import sys
from pathlib import Path

import jax
import numpy as np

from data_pipelines.dataset import open_dataset
from data_pipelines.orders import RecordOrder
from data_pipelines.sampling import Sampler
from data_pipelines.store import open_store
from data_pipelines.stream import batches
from ecgjax import parallel

BATCH, STEPS, START = 8, 3, 5


def make_sampler(dataset):
    return Sampler(RecordOrder(np.arange(dataset.index.num_records), seed=3), batch_size=BATCH)


def main(directory, out):
    parallel.start_processes()
    dataset = open_dataset(directory)
    # Devices alternate between the processes, so that neither has a contiguous block of rows.
    devices = sorted(jax.devices(), key=lambda device: (device.id % jax.local_device_count(), -device.process_index))
    sharding = parallel.batch_sharding(parallel.make_mesh(devices=devices))
    rows = parallel.local_rows(sharding, BATCH)
    stream = batches(open_store(directory), make_sampler(dataset), rows=rows, start_step=START)
    for step in range(STEPS):
        batch = parallel.put_batch(next(stream), sharding=sharding, rows=rows, batch_size=BATCH)
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
    stream.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
