"""Speed of the input stream beside a bare memory map of the same rows, in the same run.

What is timed is the stream that training reads: sampler, store, Grain, columns, batches on the host. The memory map is
what no loader can beat by much: one `np.take` a batch from one plain `.npy`, by the same number of threads, into memory
used again in the same way, as far ahead. All read the same records in the same random order from a warm page cache, one
after the other within each repetition, so that a slow moment of the machine meets them alike.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.lib.format import open_memmap

from data_pipelines.buffers import BatchBuffers
from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.building import build_dataset
from data_pipelines.dataset import Dataset, open_dataset
from data_pipelines.errors import DataError
from data_pipelines.orders import RecordOrder
from data_pipelines.packed_store import PACKED_DIR
from data_pipelines.packing import pack
from data_pipelines.records import SignalFormat
from data_pipelines.sampling import Sampler
from data_pipelines.shard_making import LocalProcesses
from data_pipelines.shard_plan import SPLIT
from data_pipelines.store import Store, open_store
from data_pipelines.stream import BATCHES_AHEAD, batches

#: Timed repetitions; the median is reported, after one that is thrown away.
REPEATS = 5

#: Format of the cohort that is simulated where no data set is given.
SIMULATED_FORMAT = SignalFormat(sampling_rate_hz=250, num_samples=2500)

# More epochs of the fast readers, whose repetitions would else be too short to time.
_EPOCHS_A_REPETITION = {"packed": 12, "array_record": 2}
_EPOCHS_A_REPETITION_OF_MAP = 12

_SAMPLES_A_PAGE = 4096 // 2

_VISITS_PER_PATIENT = 2

#: Number of batches to batches of signals.
Reader = Callable[[int], Iterator[np.ndarray]]

_PACKAGES = ("array_record", "grain", "numpy")


def simulated_dataset(directory: Path, *, num_records: int, num_workers: int) -> Dataset:
    """Builds and packs a simulated data set of at least about `num_records` records at `directory`.

    Args:
        directory: must not exist.
        num_records: wanted; patients have two visits or more on average.
        num_workers: processes that simulate.
    """

    def make_source() -> SimulatedSource:
        return SimulatedSource(
            num_patients=-(-num_records // _VISITS_PER_PATIENT),
            seed=0,
            signal_format=SIMULATED_FORMAT,
        )

    build_dataset(make_source, directory, request={"builder": "simulated"}, make_shards=LocalProcesses(num_workers))
    dataset = open_dataset(directory)
    pack(dataset)
    return dataset


def measure(
    dataset: Dataset,
    *,
    scratch: Path,
    num_records: int,
    batch_size: int,
    num_threads: int | None = None,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """Times the stream from every store of a data set.

    Args:
        dataset: whose stores; the packed one is left out where there is no packed copy.
        scratch: directory for the bare memory map, 40 kB a record.
        num_records: how many records to read over and over; few enough to stay in memory.
        batch_size: rows of a batch.
        num_threads: threads that read; without, as many as training uses for the store.
        repeats: timed repetitions.

    Returns:
        JSON. For `packed` (None where there is no copy) and `array_record`: ECGs/s (median, and every repetition), the
        same of the memory map read by as many threads, their ratio, and the checksum of a whole epoch, equal to the
        independent read's. Beside them what machine this is and the peak resident memory, mapped files included.

    Raises:
        DataError: fewer records than a batch, or a store gave other samples than TFDS did.
    """
    num_records = min(num_records, dataset.index.num_records)
    if num_records < batch_size:
        raise DataError(f"{num_records} records are less than a batch of {batch_size}; give a smaller --batch_size")
    records = np.linspace(0, dataset.index.num_records - 1, num_records).astype(np.int64)
    rows_of_map = _RowsOfMap(records, Sampler(RecordOrder(records, seed=0), batch_size=batch_size))
    bare_map = _independent_map(dataset, records, scratch / "memory_map.npy")
    page_sums = _page_samples(bare_map).sum(axis=1, dtype=np.int64)
    steps_an_epoch = num_records // batch_size
    stores = {kind: open_store(dataset.directory, kind=kind) for kind in _stores_of(dataset)}
    threads = {kind: num_threads or store.num_threads for kind, store in stores.items()}
    readers: dict[str, Reader] = {
        _map_name(count): _map_reader(bare_map, rows_of_map, num_threads=count) for count in set(threads.values())
    }
    for kind, store in stores.items():
        readers[kind] = _stream_reader(store, rows_of_map.sampler, dataset=dataset, num_threads=threads[kind])
    checksums = {name: _checksum(read(steps_an_epoch)) for name, read in readers.items()}
    of_map = checksums[next(iter(readers))]
    wrong = [name for name, checksum in checksums.items() if checksum != of_map]
    if wrong:
        raise DataError(f"{', '.join(wrong)} gave other samples than TFDS reads from the same shards: {checksums}")
    speeds: dict[str, list[float]] = {name: [] for name in readers}
    for repetition in range(1 + repeats):
        for name, read in readers.items():
            num_steps = steps_an_epoch * _EPOCHS_A_REPETITION.get(name, _EPOCHS_A_REPETITION_OF_MAP)
            seconds, touched = _time(read, num_steps)
            if touched != sum(int(page_sums[rows_of_map(step)].sum()) for step in range(num_steps)):
                raise DataError(f"{name} gave other samples while it was timed than before")
            if repetition:
                speeds[name].append(num_steps * batch_size / seconds)
    return {
        "what": "input",
        "dataset": {
            "name": dataset.card["name"],
            "simulated": dataset.simulated,
            "fingerprint": dataset.fingerprint,
            "num_records": dataset.index.num_records,
        },
        "record_shape": list(dataset.format.shape),
        "records_read": num_records,
        "batch_size": batch_size,
        "batches_ahead": BATCHES_AHEAD,
        "packed": None,
        **{
            kind: _comparison(speeds[kind], speeds[_map_name(threads[kind])])
            | {"threads": threads[kind], "checksum": checksums[kind]}
            for kind in stores
        },
        "machine": _machine(),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _map_name(num_threads: int) -> str:
    return f"memory_map_{num_threads}"


def _comparison(speeds: list[float], speeds_of_map: list[float]) -> dict[str, Any]:
    median, median_of_map = statistics.median(speeds), statistics.median(speeds_of_map)
    return {
        "ecgs_per_sec": round(median),
        "repetitions": [round(speed) for speed in speeds],
        "memory_map_ecgs_per_sec": round(median_of_map),
        "memory_map_repetitions": [round(speed) for speed in speeds_of_map],
        "ratio_to_memory_map": round(median / median_of_map, 3),
    }


@dataclasses.dataclass(frozen=True)
class _RowsOfMap:
    """Rows of the bare map, which holds `records` in order, that a step reads."""

    records: np.ndarray
    sampler: Sampler

    def __call__(self, step: int) -> np.ndarray:
        return np.searchsorted(self.records, self.sampler.record_numbers(step))


def _stores_of(dataset: Dataset) -> tuple[str, ...]:
    has_copy = (dataset.directory / PACKED_DIR).exists()
    return ("packed", "array_record") if has_copy else ("array_record",)


def _stream_reader(store: Store, sampler: Sampler, *, dataset: Dataset, num_threads: int) -> Reader:
    """Reads the signals of the first batches of the stream that training reads."""

    def read(num_steps: int) -> Iterator[np.ndarray]:
        rows = np.arange(sampler.batch_size)
        columns = {"patient": dataset.index.patient}
        stream = batches(store, sampler, rows=rows, columns=columns, num_threads=num_threads)
        with contextlib.closing(stream):
            for batch in itertools.islice(stream, num_steps):
                yield batch["signal"]

    return read


def _map_reader(bare_map: np.ndarray, rows_of_map: _RowsOfMap, *, num_threads: int) -> Reader:
    """Reads the same from the bare map, by as many threads, as far ahead."""

    def read(num_steps: int) -> Iterator[np.ndarray]:
        buffers = BatchBuffers((rows_of_map.sampler.batch_size, *bare_map.shape[1:]), bare_map.dtype)

        def take(step: int) -> np.ndarray:
            return np.take(bare_map, rows_of_map(step), axis=0, out=buffers.take(), mode="clip")

        with ThreadPoolExecutor(num_threads) as executor:
            ahead: collections.deque = collections.deque()
            for step in range(num_steps):
                ahead.append(executor.submit(take, step))
                if len(ahead) > BATCHES_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    return read


def _independent_map(dataset: Dataset, records: np.ndarray, path: Path) -> np.ndarray:
    """Writes the records as TFDS reads them to one plain `.npy`; returns it mapped."""
    source = tfds.builder_from_directory(dataset.directory).as_data_source(SPLIT)
    written = open_memmap(path, mode="w+", dtype=np.int16, shape=(len(records), *dataset.format.shape))
    for start in range(0, len(records), 256):
        numbers = records[start : start + 256].tolist()
        written[start : start + len(numbers)] = [stored["signal"] for stored in source.__getitems__(numbers)]
    written.flush()
    return np.load(path, mmap_mode="r").view(np.ndarray)


def _checksum(signals: Iterator[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for batch in signals:
        digest.update(batch)
    return digest.hexdigest()


def _time(read: Reader, num_steps: int) -> tuple[float, int]:
    """Returns the seconds that a number of batches took and what was touched of them."""
    start = time.perf_counter()
    touched = sum(_touch(batch) for batch in read(num_steps))
    return time.perf_counter() - start, touched


def _touch(signals: np.ndarray) -> int:
    return int(_page_samples(signals).sum(dtype=np.int64))


def _page_samples(signals: np.ndarray) -> np.ndarray:
    """Returns a sample of every memory page: enough for each page to have arrived at whoever consumes it."""
    return signals.reshape(len(signals), -1)[:, ::_SAMPLES_A_PAGE]


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
