"""Measures the speed of the input stream, and of a bare memory map of the same rows in the same run.

What is timed is the stream that training reads: sampler, store, Grain, columns, batches on the host. Records are drawn
singly, as pairs of one patient, and where there are several data sets as a weighted mixture of them.

Warm means from the page cache. The ceiling is a memory map, which no loader can beat by much: each batch is one
`np.take` from one plain `.npy`, by the same number of threads, into memory reused in the same way, with as many batches
read ahead. All readers read the same records in the same order, one after the other within each repetition, so that a
slow moment of the machine affects them alike.

Cold means from the disk: the files are dropped from the page cache before every repetition, and every record is read
once. The ceiling is the disk read from start to end. The packed copy is read in random order, and by the block-shuffle.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import gc
import hashlib
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.lib.format import open_memmap

from data_pipelines.benchmarks import harness
from data_pipelines.benchmarks.disk import disk_bytes_per_second, drop_from_page_cache
from data_pipelines.benchmarks.machine import describe_machine
from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.errors import DataError
from data_pipelines.packing.packed_copy import pack
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.prepared.joint import join
from data_pipelines.records import SignalFormat
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.shards.making import LocalProcesses
from data_pipelines.shards.plan import SPLIT
from data_pipelines.storage.joint_store import JointStore
from data_pipelines.storage.packed_format import PACKED_DIR
from data_pipelines.storage.store import Store, open_store
from data_pipelines.storage.stored_order import ORDER_FILE
from data_pipelines.streaming.batches import BATCHES_AHEAD, batches
from data_pipelines.streaming.block_order import BlockOrder
from data_pipelines.streaming.orders import MixtureOrder, Order, PatientOrder, RecordOrder, component_seed
from data_pipelines.streaming.sampler import Sampler
from data_pipelines.system.buffers import BatchBuffers
from data_pipelines.system.process_usage import bytes_from_disk, peak_memory_bytes

#: Format of the simulated cohorts, which are used where no data set is given.
SIMULATED_FORMAT = SignalFormat(sampling_rate_hz=250, num_samples=2500)

#: Weight of the first data set in the mixture; the others have equal parts of the rest.
MIXTURE_WEIGHT = 0.7

# Fast readers go through more epochs, since their repetitions would otherwise be too short to time.
_EPOCHS_A_REPETITION, _EPOCHS_OF_ARRAY_RECORDS = 12, 2

#: Records of a block and blocks of a window of the block-shuffle that is read from the disk.
COLD_BLOCK, COLD_WINDOW = 256, 4

_SAMPLES_A_PAGE = 4096 // 2
_VISITS_PER_PATIENT = 2

#: Function of a number of batches that yields their signals.
Reader = Callable[[int], Iterator[np.ndarray]]

#: File of a TFDS dataset directory, which a staged copy does not have.
_TFDS_FILE = "dataset_info.json"


def simulated_dataset(
    directory: Path,
    *,
    num_records: int,
    seed: int,
    num_workers: int,
    signal_format: SignalFormat = SIMULATED_FORMAT,
) -> Dataset:
    """Builds and packs a simulated data set of at least about `num_records` records at `directory`.

    Args:
        directory: Directory of the data set, which must not exist.
        num_records: Number of records wanted; patients have two visits or more on average.
        seed: Seed of the cohort.
        num_workers: Number of processes that simulate.
        signal_format: Rate and length to simulate.

    Returns:
        The data set, opened.
    """

    def make_source() -> SimulatedSource:
        return SimulatedSource(
            num_patients=-(-num_records // _VISITS_PER_PATIENT), seed=seed, signal_format=signal_format
        )

    build_dataset(make_source, directory, request={"builder": "simulated"}, make_shards=LocalProcesses(num_workers))
    dataset = open_dataset(directory)
    pack(dataset)
    return dataset


def measure(
    datasets: Sequence[Dataset],
    *,
    scratch: Path,
    num_records: int,
    batch_size: int,
    num_threads: int | None = None,
    repeats: int = harness.REPEATS,
) -> dict[str, Any]:
    """Times the stream from every store of one or several data sets.

    Args:
        datasets: Data sets of one rate and length; packed stores are left out where one of them has no packed copy.
        scratch: Directory for the bare memory map, which takes 40 kB a record.
        num_records: Number of records to read repeatedly, few enough to stay in memory. Single records, and pairs of a
            patient's records, are drawn from so many first records of the first data set, and the mixture from as many
            of all data sets together.
        batch_size: Number of rows of a batch.
        num_threads: Number of threads that read; None for as many as training uses for the store.
        repeats: Number of timed repetitions.

    Returns:
        Figures for JSON. `warm` holds for every way of drawing (single records, pairs, mixture) and every store ECGs/s
        (median, and every repetition), the same of the memory map read by as many threads, their ratio, and the
        checksum of a whole epoch, equal to that of an independent read. `cold` holds for every store ECGs/s and
        those of the disk read from start to end, with the bytes for each record that really came from the disk, and the
        same of the packed copy read by the block-shuffle; `is_cold` is False where most bytes did not come from the
        disk. Further entries describe the machine and give the peak resident memory, mapped files included.

    Raises:
        DataError: A data set has no ArrayRecord shards, there are fewer records than rows of a batch, or a store gave
            other samples than TFDS did.
    """
    for dataset in datasets:
        if not (Path(dataset.directory) / _TFDS_FILE).is_file():
            raise DataError(
                f"{dataset.directory} holds a packed copy alone, and not the ArrayRecord shards that are timed too; "
                "give the folder that python -m data_pipelines.build wrote, or take --what=input_wait"
            )
    kinds = _stores_of(datasets)
    # Single records and pairs come from the first data set, a mixture from all.
    first, warm = _Drawn.from_datasets(datasets[:1], num_records), {}
    for drawn in (first, *([_Drawn.from_datasets(datasets, num_records)] if len(datasets) > 1 else [])):
        if len(drawn.records) < batch_size:
            raise DataError(
                f"{len(drawn.records)} records are less than a batch of {batch_size}; give a smaller --batch_size"
            )
        bare_map = _independent_map(drawn, scratch / f"memory_map_{len(drawn.datasets)}.npy")
        for name, order in drawn.orders().items():
            sampler = Sampler(order, batch_size=batch_size)
            warm[name] = _measure_warm(drawn, bare_map, sampler, kinds, num_threads, repeats)
    full = RecordOrder(first.records, seed=0)
    blocks = BlockOrder(first.records, block=COLD_BLOCK, window=COLD_WINDOW, seed=0)
    cold = {kind: _measure_cold(first, kind, full, batch_size, num_threads, repeats) for kind in kinds}
    if "packed" in kinds:
        cold["packed_by_blocks"] = _measure_cold(first, "packed", blocks, batch_size, num_threads, repeats)
    return {
        "datasets": [
            {
                "name": dataset.card["name"],
                "simulated": dataset.simulated,
                "fingerprint": dataset.fingerprint,
                "num_records": dataset.index.num_records,
            }
            for dataset in datasets
        ],
        "record_shape": list(datasets[0].format.shape),
        "records_read": {len(drawn.datasets): len(drawn.records) for drawn in (first, drawn)},
        "batch_size": batch_size,
        "batches_ahead": BATCHES_AHEAD,
        "warm": warm,
        "cold": cold,
        "machine": describe_machine(),
        "peak_rss_mib": peak_memory_bytes() // 2**20,
    }


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """Records that are read, by their numbers over all data sets.

    Attributes:
        datasets: Data sets of the records.
        records: Record numbers, `int64[m]`, ascending.
        parts: Record numbers of each data set.
        starts: Record number at which each data set begins.
        groups: Group of each record, `int32[m]`; the records of a group count as those of one patient.
    """

    datasets: Sequence[Dataset]
    records: np.ndarray
    parts: tuple[np.ndarray, ...]
    starts: tuple[int, ...]
    groups: np.ndarray

    @classmethod
    def from_datasets(cls, datasets: Sequence[Dataset], num_records: int) -> _Drawn:
        joint = join(datasets)
        starts = tuple(joint.starts[:-1].tolist())
        # The first records of each data set are taken, so that patients stay together.
        counts = [min(-(-num_records // len(datasets)), dataset.index.num_records) for dataset in datasets]
        parts = tuple(start + np.arange(count) for start, count in zip(starts, counts, strict=True))
        records = np.concatenate(parts)
        return cls(datasets, records, parts, starts, joint.index.group[records])

    def orders(self) -> dict[str, Order]:
        """Returns the orders in which the records are drawn, by name."""
        if len(self.parts) == 1:
            return {
                "records": RecordOrder(self.records, seed=0),
                "pairs_of_a_patient": PatientOrder(self.records, patients=self.groups, records_per_patient=2, seed=0),
            }
        others = len(self.parts) - 1
        parts = [RecordOrder(part, seed=component_seed(0, number)) for number, part in enumerate(self.parts)]
        weights = [MIXTURE_WEIGHT, *[(1 - MIXTURE_WEIGHT) / others] * others]
        return {"mixture": MixtureOrder(parts, weights=weights, block=4096, seed=0)}


def _measure_warm(
    drawn: _Drawn,
    bare_map: np.ndarray,
    sampler: Sampler,
    kinds: Sequence[str],
    num_threads: int | None,
    repeats: int,
) -> dict[str, Any]:
    """Times every store and the memory map for one order, from the page cache; returns figures by store, for JSON."""
    stores = {kind: _open(drawn.datasets, kind) for kind in kinds}
    threads = {kind: num_threads or store.num_threads for kind, store in stores.items()}
    steps_an_epoch = sampler.examples_per_epoch // sampler.batch_size

    def rows_of_map(step: int) -> np.ndarray:
        return np.searchsorted(drawn.records, sampler.record_numbers(step))

    readers: dict[str, Reader] = {
        _map_name(count): _map_reader(bare_map, rows_of_map, sampler.batch_size, num_threads=count)
        for count in sorted(set(threads.values()))
    }
    columns = {"patient": np.zeros(stores[kinds[0]].num_records, np.int32)}
    for kind, store in stores.items():
        readers[kind] = _stream_reader(store, sampler, columns=columns, num_threads=threads[kind])
    checksums = {name: _checksum(read(steps_an_epoch)) for name, read in readers.items()}
    of_map = checksums[next(iter(readers))]
    wrong = [name for name, checksum in checksums.items() if checksum != of_map]
    if wrong:
        raise DataError(f"{', '.join(wrong)} gave other samples than TFDS reads from the same shards: {checksums}")
    page_sums = _page_samples(bare_map).sum(axis=1, dtype=np.int64)
    num_steps = dict.fromkeys(readers, steps_an_epoch * _EPOCHS_A_REPETITION)
    num_steps["array_record"] = steps_an_epoch * _EPOCHS_OF_ARRAY_RECORDS
    # The sums are made before anything is timed, so that checking takes no part of a reader's time.
    of_steps = [int(page_sums[rows_of_map(step)].sum()) for step in range(max(num_steps.values()))]

    def read_again(name: str) -> None:
        if _touched(readers[name](num_steps[name])) != sum(of_steps[: num_steps[name]]):
            raise DataError(f"{name} gave other samples while it was timed than before")

    programs = {name: functools.partial(read_again, name) for name in readers}
    speeds = {
        name: [num_steps[name] * sampler.batch_size / seconds for seconds in repetitions]
        for name, repetitions in harness.repetitions(programs, repeats=repeats).items()
    }
    return {"packed": None} | {
        kind: harness.beside(speeds[kind], "memory_map", speeds[_map_name(threads[kind])])
        | {"threads": threads[kind], "checksum": checksums[kind]}
        for kind in kinds
    }


def _measure_cold(
    drawn: _Drawn, kind: str, order: Order, batch_size: int, num_threads: int | None, repeats: int
) -> dict[str, Any]:
    """Times one epoch of one store, read from the disk in some order; returns figures for JSON."""
    files = [path for dataset in drawn.datasets for path in _files_of(dataset, kind)]
    sampler = Sampler(order, batch_size=batch_size)
    num_steps = len(drawn.records) // batch_size
    record_bytes = 2 * math.prod(drawn.datasets[0].format.shape)
    speeds, of_disk, from_disk = [], [], []
    for _ in range(repeats):
        # Each repetition has a store of its own, since pages that are mapped and have been read cannot be dropped; and
        # a store that only a cycle of references still holds has them mapped.
        gc.collect()
        store = _open(drawn.datasets, kind)
        threads = num_threads or store.num_threads
        columns = {"patient": np.zeros(store.num_records, np.int32)}
        drop_from_page_cache(files)
        before = bytes_from_disk()
        read = _stream_reader(store, sampler, columns=columns, num_threads=threads)
        _, seconds = harness.timed(_touched, read(num_steps))
        from_disk.append((bytes_from_disk() - before) / (num_steps * batch_size))
        speeds.append(num_steps * batch_size / seconds)
        del store, read
        gc.collect()
        drop_from_page_cache(files)
        of_disk.append(disk_bytes_per_second(files) / record_bytes)
    bytes_a_record = statistics.median(from_disk)
    return harness.beside(speeds, "disk", of_disk) | {
        "threads": threads,
        "bytes_from_disk_a_record": round(bytes_a_record),
        "bytes_of_a_record": record_bytes,
        # Some file systems, such as those in memory, keep what is to be dropped.
        "is_cold": bytes_a_record >= record_bytes / 2,
    }


def _map_name(num_threads: int) -> str:
    return f"memory_map_{num_threads}"


def _stores_of(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    have_copies = all((dataset.directory / PACKED_DIR).exists() for dataset in datasets)
    return ("packed", "array_record") if have_copies else ("array_record",)


def _open(datasets: Sequence[Dataset], kind: str) -> Store:
    stores = [open_store(dataset.directory, kind=kind) for dataset in datasets]
    return stores[0] if len(stores) == 1 else JointStore(stores)


def _files_of(dataset: Dataset, kind: str) -> list[Path]:
    if kind != "packed":
        return list(dataset.shards)
    return sorted(path for path in (dataset.directory / PACKED_DIR).glob("*.npy") if path.name != ORDER_FILE)


def _stream_reader(store: Store, sampler: Sampler, *, columns: dict[str, np.ndarray], num_threads: int) -> Reader:
    """Returns a reader of the signals of the first batches of the stream that training reads."""

    def read(num_steps: int) -> Iterator[np.ndarray]:
        rows = np.arange(sampler.batch_size)
        stream = batches(store, sampler, rows=rows, columns=columns, num_threads=num_threads)
        with contextlib.closing(stream):
            for batch in itertools.islice(stream, num_steps):
                yield batch["signal"]

    return read


def _map_reader(
    bare_map: np.ndarray, rows_of_map: Callable[[int], np.ndarray], batch_size: int, *, num_threads: int
) -> Reader:
    """Returns a reader of the same signals from the memory map, with as many threads and as many batches read ahead."""

    def read(num_steps: int) -> Iterator[np.ndarray]:
        buffers = BatchBuffers((batch_size, *bare_map.shape[1:]), bare_map.dtype)

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


def _independent_map(drawn: _Drawn, path: Path) -> np.ndarray:
    """Writes the records, as TFDS reads them, to one plain `.npy`, and returns it mapped, `int16[m, time, 8]`."""
    shape = (len(drawn.records), *drawn.datasets[0].format.shape)
    written = open_memmap(path, mode="w+", dtype=np.int16, shape=shape)
    row = 0
    for dataset, part, start in zip(drawn.datasets, drawn.parts, drawn.starts, strict=True):
        source = tfds.builder_from_directory(dataset.directory).as_data_source(SPLIT)
        for first in range(0, len(part), 256):
            numbers = (part[first : first + 256] - start).tolist()
            written[row : row + len(numbers)] = [stored["signal"] for stored in source.__getitems__(numbers)]
            row += len(numbers)
    written.flush()
    return np.load(path, mmap_mode="r").view(np.ndarray)


def _checksum(signals: Iterator[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for batch in signals:
        digest.update(batch.data)
    return digest.hexdigest()


def _touched(signals: Iterator[np.ndarray]) -> int:
    """Returns the sum of one sample of every memory page, so that every page is read."""
    return sum(int(_page_samples(batch).sum(dtype=np.int64)) for batch in signals)


def _page_samples(signals: np.ndarray) -> np.ndarray:
    """Returns one sample of every memory page, `int16[batch, pages]`; reading it reads the page."""
    return signals.reshape(len(signals), -1)[:, ::_SAMPLES_A_PAGE]
