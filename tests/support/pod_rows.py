"""Run with 64 devices: hands them out to 1 … 64 made-up processes and compares what all of them read with one's batch.

A process is a share of the devices. What it reads follows from the batch sharding alone, as on a pod.
"""

import itertools

import jax
import numpy as np

from data_pipelines.streaming.batches import batches
from data_pipelines.streaming.orders import MixtureOrder, PatientOrder, RecordOrder
from data_pipelines.streaming.sampler import Sampler
from ecgjax.training import device_mesh
from tests.support.fixtures import MadeUpStore

BATCH, STEPS, START, NUM_RECORDS, NUM_DEVICES = 128, 2, 7, 1000, 64
PATIENT = np.arange(NUM_RECORDS, dtype=np.int32) // 3
STORE = MadeUpStore(num_records=NUM_RECORDS, shape=(2, 8), num_threads=1)


class ShareOfSharding:
    """The batch sharding as the process that has `devices` sees it."""

    def __init__(self, sharding, devices):
        self.mesh, self._sharding, self._devices = sharding.mesh, sharding, devices

    def addressable_devices_indices_map(self, shape):
        return {d: i for d, i in self._sharding.devices_indices_map(shape).items() if d in self._devices}


def read(sampler, rows):
    stream = batches(STORE, sampler, rows=rows, start_step=START, columns={"patient": PATIENT})
    taken = list(itertools.islice(stream, STEPS))
    stream.close()
    return taken


def shares(devices, num_processes, *, interleaved):
    return [set(devices[p::num_processes]) for p in range(num_processes)] if interleaved else [
        set(part.tolist()) for part in np.array_split(np.asarray(devices), num_processes)
    ]  # fmt: skip


def check(sampler, *, num_processes, model, interleaved, order):
    devices = jax.devices()
    sharding = device_mesh.batch_sharding(device_mesh.make_mesh(model=model, devices=[devices[i] for i in order]))
    expected = read(sampler, np.arange(BATCH))
    found = [{name: np.full_like(values, -1) for name, values in batch.items()} for batch in expected]
    placed = np.zeros(BATCH, int)
    for share in shares(devices, num_processes, interleaved=interleaved):
        rows = device_mesh.local_rows(ShareOfSharding(sharding, share), BATCH)
        placed[rows] += 1
        for whole, batch in zip(found, read(sampler, rows), strict=True):
            for name, values in batch.items():
                # Rows that several processes hold are the same in each.
                shared = placed[rows] > 1
                np.testing.assert_array_equal(whole[name][rows][shared], values[shared])
                whole[name][rows] = values
    for whole, batch in zip(found, expected, strict=True):
        for name, values in batch.items():
            np.testing.assert_array_equal(whole[name], values, err_msg=name)
    return int(placed.max())


def main():
    assert jax.device_count() == NUM_DEVICES, "start with JAX_NUM_CPU_DEVICES=64"
    rng = np.random.default_rng(0)
    records = np.arange(5, NUM_RECORDS)
    patients = PatientOrder(records, patients=PATIENT[records], records_per_patient=2, seed=1)
    mixed = MixtureOrder(
        [RecordOrder(records[:300], seed=1), RecordOrder(records[300:], seed=2)], weights=(1, 3), block=64, seed=1
    )
    samplers = [Sampler(order, batch_size=BATCH) for order in (RecordOrder(records, seed=1), patients, mixed)]
    most = {}
    cases = list(itertools.product((1, 2, 8, 64), (1, 4), (False, True)))
    for number, (num_processes, model, interleaved) in enumerate(cases):
        order = rng.permutation(NUM_DEVICES) if number % 2 else np.arange(NUM_DEVICES)
        most[num_processes, model] = check(
            samplers[number % 3], num_processes=num_processes, model=model, interleaved=interleaved, order=order
        )
    assert most[64, 1] == 1, "without a model axis nobody shares rows"
    assert most[64, 4] == 4, "with one of four, four processes share every row"
    print(f"{len(cases)} meshes agree")


if __name__ == "__main__":
    main()
