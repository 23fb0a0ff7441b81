"""Measures what the input gives to a device, by number of readers, and how long a step waits for it.

The step does nothing: it only lasts as long as one of an accelerator would, and leaves the processor to the readers. At
four fifths of what the input can give it should hardly wait; a loader that is slowed to half the step's pace is the
control, at which the step must wait for half of the time.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.benchmarks import harness
from data_pipelines.benchmarks.machine import describe_machine
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.storage.store import Store, open_store
from data_pipelines.streaming.batches import batches
from data_pipelines.streaming.orders import RecordOrder
from data_pipelines.streaming.sampler import Sampler
from ecgjax.benchmarks.paired_steps import spent
from ecgjax.training import device_mesh
from ecgjax.training.device_batches import put_ahead

#: Share of what the input can give that the step asks for.
PACE = 0.8

#: Cores of the host that the speed of one core is carried over to.
EXTRAPOLATED_CORES = 100

_SECONDS_A_REPETITION = 2.0
_STEPS_TO_ESTIMATE = 30

_Stream = Generator[jax.Array, None, None]


def measure(
    dataset: Dataset, *, num_records: int, batch_size: int, readers: Sequence[int] | None = None, repeats: int = 5
) -> dict[str, Any]:
    """Times the stream of a data set onto the devices, alone and beside a step that only lasts.

    Args:
        dataset: Data set; its packed copy is read where it has one.
        num_records: Number of first records that are read over and over, few enough to stay in memory.
        batch_size: Number of rows of a batch.
        readers: Numbers of reading threads; None for 1, 2, 4, … up to the cores, and at least for two.
        repeats: Number of timed repetitions.

    Returns:
        Figures for JSON: for every number of readers ECGs/s, and those of a second of processor time; the share of its
        time that a step waits at `PACE` of the best of these, and with a loader slowed to half the step's pace; and
        what as many cores as a large host has would give at the speed of one, which is an extrapolation.

    Raises:
        DataError: There are fewer records than rows of a batch.
    """
    count = min(num_records, dataset.index.num_records)
    if count < batch_size:
        raise DataError(f"{count} records are less than a batch of {batch_size}; give a smaller --batch_size")
    store = open_store(dataset.directory)
    sampler = Sampler(RecordOrder(np.arange(count), seed=0), batch_size=batch_size)
    store.read(np.arange(count))  # Everything is in memory, and mapped.
    readers = readers or _doubling(len(os.sched_getaffinity(0)))
    by_readers = {threads: _ceiling(store, sampler, threads, repeats) for threads in readers}
    best = max(readers, key=lambda threads: by_readers[threads]["ecgs_per_sec"])
    of_best = by_readers[best]
    record_bytes = store.shape[0] * store.shape[1] * np.dtype(np.int16).itemsize
    step_s = batch_size / (PACE * of_best["ecgs_per_sec"])
    return {
        "dataset": dataset.card["name"],
        "simulated": dataset.simulated,
        "store": store.kind,
        "record_shape": list(store.shape),
        "records_read": count,
        "batch_size": batch_size,
        "by_readers": {str(threads): figures for threads, figures in by_readers.items()},
        "readers": best,
        "step": {
            "pace": PACE,
            "step_ms": round(1e3 * step_s, 3),
            "input_wait_frac": _waits(store, sampler, best, step_s, repeats),
            "input_wait_frac_of_slowed_loader": _waits(_Slowed(store, 2 * step_s), sampler, 1, step_s, repeats),
        },
        "extrapolation": {
            "cores": EXTRAPOLATED_CORES,
            "ecgs_per_sec": EXTRAPOLATED_CORES * of_best["ecgs_per_core_sec"],
            "gb_per_sec": round(EXTRAPOLATED_CORES * of_best["ecgs_per_core_sec"] * record_bytes / 1e9, 1),
            "note": "not measured: cores times the ECGs of a core's second; memory would limit first",
        },
        "device": jax.devices()[0].device_kind,
        "machine": describe_machine(),
    }


class _Slowed:
    """A store of which every read takes longer."""

    def __init__(self, store: Store, seconds: float):
        self._store, self._seconds = store, seconds
        self.num_records, self.shape = store.num_records, store.shape

    def read(self, record_numbers: np.ndarray, out: np.ndarray) -> np.ndarray:
        time.sleep(self._seconds)
        return self._store.read(record_numbers, out)


def _doubling(cores: int) -> list[int]:
    return [2**power for power in range(max(2, cores.bit_length()))]


@contextlib.contextmanager
def _signals(store: Any, sampler: Sampler, threads: int) -> Iterator[_Stream]:
    """Yields a stream of signals on the devices, `int16[batch, time, lead]`, as training gets them."""
    sharding = device_mesh.batch_sharding(device_mesh.make_mesh())
    rows = np.arange(sampler.batch_size)

    def put() -> _Stream:
        for batch in batches(store, sampler, rows=rows, num_threads=threads):
            signal = {"signal": batch.pop("signal")}
            yield device_mesh.put_batch(signal, sharding=sharding, rows=rows, batch_size=sampler.batch_size)["signal"]

    with contextlib.closing(put_ahead(put())) as stream:
        next(stream)
        yield stream


def _ceiling(store: Store, sampler: Sampler, threads: int, repeats: int) -> dict[str, Any]:
    """Returns what a step that takes no time gets, for JSON."""
    speeds, of_core = [], []
    with _signals(store, sampler, threads) as stream:

        def take(steps: int) -> None:
            for _ in range(steps):
                next(stream).block_until_ready()

        estimate = harness.timed(take, _STEPS_TO_ESTIMATE)[1] / _STEPS_TO_ESTIMATE
        steps = max(_STEPS_TO_ESTIMATE, int(_SECONDS_A_REPETITION / estimate))
        for _ in range(repeats):
            took = spent(lambda: take(steps))
            speeds.append(steps * sampler.batch_size / took.wall)
            of_core.append(steps * sampler.batch_size / took.processor)
    return {
        "ecgs_per_sec": round(statistics.median(speeds)),
        "repetitions": [round(speed) for speed in speeds],
        "ecgs_per_core_sec": round(statistics.median(of_core)),
    }


def _waits(store: Any, sampler: Sampler, threads: int, step_s: float, repeats: int) -> dict[str, Any]:
    """Returns the share of its time that a step of a given length waits for its batch, for JSON."""
    shares = []
    with _signals(store, sampler, threads) as stream:
        for _ in range(repeats):
            shares.append(_waited(lambda: next(stream).block_until_ready(), step_s))
    return {"median": round(statistics.median(shares), 4), "repetitions": [round(share, 4) for share in shares]}


def _waited(take: Callable[[], Any], step_s: float) -> float:
    begun, waited = time.perf_counter(), 0.0
    steps = max(_STEPS_TO_ESTIMATE, int(_SECONDS_A_REPETITION / step_s))
    for _ in range(steps):
        waited += harness.timed(take)[1]
        time.sleep(step_s)
    return waited / (time.perf_counter() - begun)
