"""What several test modules build their inputs from: data sets through the real builder, small WFDB files."""

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import wfdb

from data_pipelines.builders.base import Quarantined, Reader, Source
from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.prepared.dataset import Dataset, open_dataset
from data_pipelines.records import STANDARD_LEADS, EcgRecord, SignalFormat
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.shards.plan import SPLIT
from data_pipelines.system.workers import map_ordered

#: Records in a packed shard of the fixture `stored_dataset`: what 16 kB each take to fill whole memory pages.
RECORDS_A_PACKED_SHARD = 32


def make_simulated_dataset(
    folder: Path,
    *,
    num_patients: int = 40,
    rate: int = 100,
    seconds: float = 10.0,
    seed: int = 0,
    name: str = "simulated",
    site: str | None = None,
) -> Dataset:
    """Builds and opens a simulated data set at `folder / name`: one to four records a patient."""
    signal_format = SignalFormat(sampling_rate_hz=rate, num_samples=round(rate * seconds))

    def make_source() -> SimulatedSource:
        return SimulatedSource(num_patients=num_patients, seed=seed, signal_format=signal_format, site=site)

    out = Path(folder) / name
    build_dataset(make_source, out, request={"builder": "simulated", "num_patients": num_patients, "seed": seed})
    return open_dataset(out)


def results_of(source: Source, *, num_workers: int = 1) -> list[EcgRecord | Quarantined]:
    """Returns what a source gives for all its items, read in this process or in others."""
    step = -(-len(source.items) // num_workers)
    slices = [source.items[start : start + step] for start in range(0, len(source.items), step)]
    read = functools.partial(_results, source.reader())
    return list(itertools.chain.from_iterable(map_ordered(read, slices, num_workers=num_workers, chunk_size=1)))


def _results(reader: Reader, items: Sequence) -> list[EcgRecord | Quarantined]:
    return list(reader(items))


def as_given(items: Sequence[EcgRecord | Quarantined]) -> Iterator[EcgRecord | Quarantined]:
    """The reader of a source whose items are the results themselves."""
    yield from items


def stored_examples(directory: Path) -> Iterator[dict[str, Any]]:
    """Yields every stored record in order, decoded by TFDS itself: `signal` is `int16[time, lead]`, texts are bytes."""
    yield from tfds.builder_from_directory(directory).as_data_source(SPLIT)


def in_threads(work: Callable[[int], None], seeds: Iterable[int]) -> None:
    """Runs `work(seed)` for all seeds at once."""
    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class MadeUpStore:
    """A store whose records say their number."""

    kind = "made_up"

    def __init__(self, *, num_records: int, shape: tuple[int, int], num_threads: int):
        self.num_records, self.shape, self.num_threads = num_records, shape, num_threads

    def read(self, record_numbers: np.ndarray, out: np.ndarray, *, valid: np.ndarray | None = None) -> np.ndarray:
        """Fills every record with its number."""
        out[...] = record_numbers[:, None, None]
        return out

    def in_stored_order(self, record_numbers: np.ndarray) -> np.ndarray:
        """Returns record numbers in ascending order."""
        return np.sort(record_numbers)

    def announce(self, record_numbers: np.ndarray) -> None:
        """Does nothing."""


def twelve_lead_mv(*, seconds: float = 10.0, rate: int = 500, seed: int = 0) -> np.ndarray:
    """Returns a smooth made-up 12-lead signal that obeys Einthoven: `f64[time, 12]`, mV, whole µV."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    frequency, phase = generator.uniform(0.5, 12, (8, 4)), generator.uniform(0, 2 * np.pi, (8, 4))
    waves = np.sin(2 * np.pi * frequency[:, :, None] * time + phase[:, :, None]).sum(axis=1)
    # Even µV in I and II, so that their halves are whole as well.
    eight = np.rint(waves * 100).T * 2 / 1000
    one, two, chest = eight[:, :1], eight[:, 1:2], eight[:, 2:]
    return np.concatenate([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, chest], axis=1)


def write_wfdb(
    folder: Path,
    name: str,
    signal_mv: np.ndarray,
    *,
    leads: tuple[str, ...] = STANDARD_LEADS,
    units: str = "mV",
    gain: float = 1000.0,
    rate: int = 500,
    comments: tuple[str, ...] = (),
) -> Path:
    """Writes `f64[time, channel]`, taken to be in `units`, as a 16-bit WFDB record; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    channels = len(leads)
    wfdb.wrsamp(
        name,
        fs=rate,
        units=[units] * channels,
        sig_name=list(leads),
        p_signal=signal_mv,
        fmt=["16"] * channels,
        adc_gain=[gain] * channels,
        baseline=[0] * channels,
        comments=list(comments),
        write_dir=str(folder),
    )
    return folder / name


def flip_bit(path: Path, position: int) -> None:
    """Damages one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)
