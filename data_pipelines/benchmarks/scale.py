"""Measures costs of a large data set that do not depend on its signals: opening, first batch, record numbers, memory.

The data set is synthetic: the index is written in full, every record with a patient, fold and scalar, and the packed
copy is one shard of zeros under as many names as there would be shards. So a million ten-second recordings are made in
seconds, and everything but the use of the page cache is as with real recordings.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.benchmarks.harness import timed
from data_pipelines.benchmarks.machine import describe_machine
from data_pipelines.prepared.dataset import CARD_FILE, Dataset, open_dataset
from data_pipelines.prepared.index import (
    INDEX_DIR,
    NOT_A_DUPLICATE,
    open_index,
    save_column,
    save_contents,
    scalar_column,
)
from data_pipelines.records import (
    ENVELOPE_SAMPLES,
    LAYOUT_VERSION,
    SIGNATURE_BYTES,
    STORED_LEADS,
    SignalFormat,
    content_hash,
)
from data_pipelines.storage.packed_format import (
    PACKED_DIR,
    PackedShard,
    file_hash,
    npy_header,
    record_bytes,
    shard_name,
    shard_spans,
    write_contents,
)
from data_pipelines.storage.store import open_store
from data_pipelines.streaming.batches import batches
from data_pipelines.streaming.orders import MixtureOrder, Order, PatientOrder, RecordOrder, component_seed
from data_pipelines.streaming.sampler import Sampler
from data_pipelines.system.process_usage import own_memory_bytes

#: Numbers of rows of the global batches whose record numbers are timed.
BATCH_SIZES = (1024, 16384, 65536)

#: Number of processes, of which one computes only its own rows.
NUM_PROCESSES = 64

FORMAT = SignalFormat(sampling_rate_hz=250, num_samples=2500)

_RECORDS_A_PATIENT = 2.5
_STEPS_TIMED = 15
_SECONDS_BETWEEN_READINGS = 5.0
_MIB = 2**20


def measure(folder: Path, *, num_records: int, batch_size: int, minutes: float) -> dict[str, Any]:
    """Makes a synthetic data set, and times what does not depend on its signals.

    Args:
        folder: Empty folder in which the data set is made.
        num_records: Number of records of the index.
        batch_size: Number of rows of the batches that are streamed.
        minutes: Minutes to stream while memory is watched.

    Returns:
        Figures for JSON: seconds to open and to split the data set, to open its store, and from the start to the first
        batch; for every way of drawing the seconds and memory to set it up and the milliseconds of a step's record
        numbers, for all rows and for those of one of `NUM_PROCESSES` processes; and the process's own memory while
        batches are streamed.
    """
    _make_up(folder, num_records)
    started = time.perf_counter()
    dataset, open_s = timed(open_dataset, folder)
    split, split_s = timed(lambda: dataset.index.split(train_folds=range(1, 9), val_folds=(9,), test_folds=(10,)))
    store, store_s = timed(open_store, folder)
    sampler, sampler_s = timed(lambda: Sampler(RecordOrder(split.train, seed=0), batch_size=batch_size))
    stream = batches(store, sampler, rows=np.arange(batch_size), columns={"patient": dataset.index.group})
    with closing(stream):
        next(stream)
        first_batch_s = time.perf_counter() - started
        memory = _watch(stream, minutes=minutes, batch_size=batch_size)
    return {
        "made_up": True,
        "num_records": num_records,
        "num_training_records": len(split.train),
        "num_patients": dataset.index.num_patients,
        "signal_bytes": num_records * record_bytes(FORMAT),
        "index_bytes": sum(path.stat().st_size for path in (folder / INDEX_DIR).iterdir()),
        "open_dataset_s": round(open_s, 3),
        "split_s": round(split_s, 3),
        "open_store_s": round(store_s, 3),
        "sampler_s": round(sampler_s, 3),
        "first_batch_s": round(first_batch_s, 3),
        "record_numbers": _time_orders(dataset, split.train),
        "streaming": memory,
        "machine": describe_machine(),
    }


def _time_orders(dataset: Dataset, records: np.ndarray) -> dict[str, Any]:
    """Times every order of drawing on the same records; returns figures by order, for JSON."""
    index = dataset.index
    lvef = index.label("lvef")[records]
    low, high = records[lvef < 40], records[lvef >= 40]

    def mixture(weights: tuple[float, ...] | None, block: int) -> Order:
        orders = [RecordOrder(part, seed=component_seed(0, number)) for number, part in enumerate((low, high))]
        return MixtureOrder(orders, weights=weights, block=block, seed=0)

    makers: dict[str, Callable[[], Order]] = {
        "records": lambda: RecordOrder(records, seed=0),
        "pairs_of_a_patient": lambda: PatientOrder(
            records, patients=index.group[records], records_per_patient=2, seed=0
        ),
        "mixture": lambda: mixture((0.3, 0.7), 4096),
        "balanced": lambda: mixture(None, BATCH_SIZES[0]),
    }
    found = {}
    for name, make in makers.items():
        before = own_memory_bytes()
        order, seconds = timed(make)
        found[name] = {
            "setup_s": round(seconds, 3),
            "setup_mib": round((own_memory_bytes() - before) / _MIB, 1),
            "ms": {str(size): _milliseconds(Sampler(order, batch_size=size), None) for size in BATCH_SIZES},
            f"ms_of_one_of_{NUM_PROCESSES}": {
                str(size): _milliseconds(Sampler(order, batch_size=size), np.arange(size // NUM_PROCESSES))
                for size in BATCH_SIZES
            },
        }
    return found


def _milliseconds(sampler: Sampler, rows: np.ndarray | None) -> float:
    seconds = [timed(sampler.record_numbers, step, rows)[1] for step in range(_STEPS_TIMED)]
    return round(1e3 * statistics.median(seconds), 3)


def _watch(stream: Iterator[dict[str, np.ndarray]], *, minutes: float, batch_size: int) -> dict[str, Any]:
    """Streams for some minutes and samples the process's memory without mapped files; returns figures for JSON."""
    readings: list[float] = []
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < 60 * minutes or count == 0:
        next(stream)
        count += 1
        if elapsed >= len(readings) * _SECONDS_BETWEEN_READINGS:
            readings.append(round(own_memory_bytes() / _MIB, 1))
    return {
        "minutes": minutes,
        "batches": count,
        "batch_mib": round(batch_size * record_bytes(FORMAT) / _MIB, 1),
        "own_memory_mib": {
            "first": readings[0],
            "after_a_tenth": readings[len(readings) // 10],
            "last": readings[-1],
            "highest": max(readings),
        },
    }


def _make_up(folder: Path, num_records: int) -> None:
    columns = _made_up_columns(num_records)
    (folder / INDEX_DIR).mkdir()
    for name, values in columns.items():
        save_column(folder / INDEX_DIR, name, values)
    save_contents(folder / INDEX_DIR, num_records=num_records, scalars=("lvef",), tasks={})
    fingerprint = open_index(folder / INDEX_DIR).fingerprint(FORMAT)
    card = {
        "name": "made_up",
        "simulated": True,
        "layout_version": LAYOUT_VERSION,
        "leads": list(STORED_LEADS),
        "signal_format": dataclasses.asdict(FORMAT),
        "num_records": num_records,
        "fingerprint": fingerprint,
        "shards": ["made_up-ecgs.array_record-00000-of-00001"],
        "shard_lengths": [num_records],
    }
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")
    _make_up_packed(folder / PACKED_DIR, num_records, fingerprint)


def _made_up_columns(num_records: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    patient = np.sort(rng.integers(0, max(1, round(num_records / _RECORDS_A_PATIENT)), num_records))
    patient = np.unique(patient, return_inverse=True)[1].astype(np.int32)
    silence = np.frombuffer(content_hash(np.zeros(FORMAT.shape, np.int16)), np.uint8)
    return {
        "record_id": np.char.mod("record-%08d", np.arange(num_records)),
        "patient_id": np.char.mod("patient-%08d", patient),
        "patient": patient,
        "group": patient,
        "fold": (1 + patient % 10).astype(np.int16),
        "sex": rng.integers(0, 2, num_records).astype(np.int8),
        "age_years": rng.uniform(18, 95, num_records).astype(np.float32),
        "content_hash": np.broadcast_to(silence, (num_records, len(silence))),
        # No record is marked as a duplicate though all are silence: else nothing would be left to draw from.
        "duplicate_of": np.full(num_records, NOT_A_DUPLICATE, np.int64),
        "valid_start": np.zeros(num_records, np.int32),
        "valid_samples": np.full(num_records, FORMAT.num_samples, np.int32),
        "quality": np.zeros(num_records, np.int32),
        "clipped_samples": np.zeros(num_records, np.int32),
        "signature": np.zeros((num_records, SIGNATURE_BYTES), np.int8),
        "order_free_signature": np.zeros((num_records, SIGNATURE_BYTES), np.int8),
        "envelope": np.zeros((num_records, ENVELOPE_SAMPLES), np.int8),
        "recording": np.arange(num_records, dtype=np.int32),
        "recording_seconds": np.full(num_records, FORMAT.seconds),
        "start_seconds": np.zeros(num_records),
        scalar_column(0): rng.normal(55, 12, num_records).astype(np.float32),
    }


def _make_up_packed(folder: Path, num_records: int, fingerprint: str) -> None:
    """Writes a shard of zeros for every length of shard; further shards of a length are hard links to the first."""
    folder.mkdir()
    shards: list[PackedShard] = []
    of_length: dict[int, PackedShard] = {}
    for number, span in enumerate(shard_spans(num_records, bytes_per_record=record_bytes(FORMAT))):
        path = folder / shard_name(number)
        if len(span) in of_length:
            os.link(folder / of_length[len(span)].name, path)
        else:
            _write_silence(path, len(span))
            of_length[len(span)] = PackedShard(
                name=path.name, num_records=len(span), num_bytes=path.stat().st_size, blake2b=file_hash(path)
            )
        shards.append(dataclasses.replace(of_length[len(span)], name=path.name))
    write_contents(folder, fingerprint=fingerprint, shards=shards)


def _write_silence(path: Path, num_records: int) -> None:
    silence = bytes(record_bytes(FORMAT))
    with path.open("wb") as file:
        file.write(npy_header((num_records, *FORMAT.shape)))
        for _ in range(num_records):
            file.write(silence)
