"""Makes a large simulated cohort as index and packed copy alone, for runs that need many distinct recordings.

Every signal is the simulator's own, each of another patient or visit, and no two are equal, which is checked. What
`python -m data_pipelines.build` computes for every record besides is left out, because it takes ten times as long:
there are no ArrayRecord shards, signatures for near-duplicates are zero, and no quality is judged.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.errors import DataError
from data_pipelines.metadata.demographics import fold_of_patient
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
from data_pipelines.simulation.cohort import SCALARS, SIMULATED_NOTICE, UNITS, Cohort, CohortConfig
from data_pipelines.storage.packed_format import (
    PACKED_DIR,
    PackedShard,
    new_digest,
    npy_header,
    record_bytes,
    shard_name,
    shard_spans,
    write_contents,
)
from data_pipelines.system.workers import map_ordered

_VISITS_PER_PATIENT = 2.5  # on average

# Records are simulated in batches, which does not change them.
_RECORDS_AT_A_TIME = 128


class _Made(NamedTuple):
    """A shard that was written, and the columns of its records."""

    shard: PackedShard
    columns: Mapping[str, np.ndarray]


def make_packed_cohort(
    folder: Path, *, num_records: int, seed: int, signal_format: SignalFormat, num_workers: int
) -> Dataset:
    """Simulates a cohort into a new data set that has a packed copy and no ArrayRecord shards.

    Args:
        folder: Folder of the data set, which must not exist.
        num_records: Smallest number of records; whole patients are added until there are so many.
        seed: Seed of the cohort.
        signal_format: Rate and length of the signals.
        num_workers: Number of processes that simulate, each a shard at a time.

    Returns:
        The data set, opened.

    Raises:
        DataError: Two signals are equal, or the simulator does not support such a cohort.
    """
    cohort = _cohort_of(num_records, seed=seed, signal_format=signal_format)
    (folder / PACKED_DIR).mkdir(parents=True)
    spans = shard_spans(cohort.num_records, bytes_per_record=record_bytes(signal_format))
    make = functools.partial(_make_shard, cohort, folder / PACKED_DIR, signal_format)
    made = list(map_ordered(make, list(enumerate(spans)), num_workers=num_workers, chunk_size=1))
    shards = [each.shard for each in made]
    parts = {name: np.concatenate([each.columns[name] for each in made]) for name in made[0].columns}
    if len(np.unique(parts["content_hash"], axis=0)) < cohort.num_records:
        raise DataError(f"{folder}: two simulated signals are equal; give another seed or longer recordings")
    _write_index(folder / INDEX_DIR, cohort, parts)
    fingerprint = open_index(folder / INDEX_DIR).fingerprint(signal_format)
    write_contents(folder / PACKED_DIR, fingerprint=fingerprint, shards=shards)
    source = SimulatedSource(num_patients=cohort.config.num_patients, seed=seed, signal_format=signal_format)
    card = {
        "name": source.card.name,
        "recipe": source.recipe.to_json(),
        "description": f"{SIMULATED_NOTICE} Seed {seed}; made without ArrayRecord shards, signatures and quality.",
        "simulated": True,
        "layout_version": LAYOUT_VERSION,
        "leads": list(STORED_LEADS),
        "signal_format": dataclasses.asdict(signal_format),
        "num_records": cohort.num_records,
        "fingerprint": fingerprint,
        "scalars": {name: {"unit": unit} for name, unit in UNITS.items()},
        "shards": ["simulated-ecgs.array_record-00000-of-00001"],
        "shard_lengths": [cohort.num_records],
    }
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")
    return open_dataset(folder)


def _cohort_of(num_records: int, *, seed: int, signal_format: SignalFormat) -> Cohort:
    num_patients = max(1, round(num_records / _VISITS_PER_PATIENT))
    while True:
        config = CohortConfig(
            seed=seed,
            num_patients=num_patients,
            sampling_rate_hz=signal_format.sampling_rate_hz,
            seconds=signal_format.seconds,
        )
        if (cohort := Cohort(config)).num_records >= num_records:
            return cohort
        num_patients += max(1, num_patients // 1000)


def _make_shard(cohort: Cohort, folder: Path, signal_format: SignalFormat, numbered: tuple[int, range]) -> _Made:
    """Simulates the records of a shard in order and writes them; returns the shard's entry and its records' columns."""
    number, span = numbered
    path, digest = folder / shard_name(number), new_digest()
    parts: list[dict[str, np.ndarray]] = []
    with path.open("xb") as file:
        header = npy_header((len(span), *signal_format.shape))
        digest.update(header)
        file.write(header)
        for start in range(span.start, span.stop, _RECORDS_AT_A_TIME):
            records = cohort.simulate(start, min(start + _RECORDS_AT_A_TIME, span.stop))
            digest.update(records.signal.data)
            file.write(records.signal.data)
            hashes = b"".join(map(content_hash, records.signal))
            parts.append(
                {
                    "patient": records.patient.astype(np.int32),
                    "visit": records.visit,
                    "sex": records.sex,
                    "age_years": records.age_years,
                    "content_hash": np.frombuffer(hashes, np.uint8).reshape(len(records.signal), -1),
                    **{f"scalar {name}": records.scalars[name] for name in SCALARS},
                }
            )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    num_bytes = path.stat().st_size
    return _Made(
        PackedShard(name=path.name, num_records=len(span), num_bytes=num_bytes, blake2b=digest.hexdigest()), columns
    )


def _write_index(folder: Path, cohort: Cohort, parts: Mapping[str, np.ndarray]) -> None:
    num_records, config = cohort.num_records, cohort.config
    patient = parts["patient"]
    patient_ids = [cohort.patient_id(number) for number in range(config.num_patients)]
    folds = np.array([fold_of_patient(patient_id) for patient_id in patient_ids], np.int16)
    patient_id = np.array(patient_ids)[patient]
    columns = {
        "record_id": np.strings.add(np.strings.add(patient_id, "-"), parts["visit"].astype(str)),
        "patient_id": patient_id,
        "patient": patient,
        "group": patient,
        "fold": folds[patient],
        "sex": parts["sex"],
        "age_years": parts["age_years"],
        "content_hash": parts["content_hash"],
        "duplicate_of": np.full(num_records, NOT_A_DUPLICATE, np.int64),
        "valid_start": np.zeros(num_records, np.int32),
        "valid_samples": np.full(num_records, config.num_samples, np.int32),
        "quality": np.zeros(num_records, np.int32),
        "clipped_samples": np.zeros(num_records, np.int32),
        "signature": np.zeros((num_records, SIGNATURE_BYTES), np.int8),
        "order_free_signature": np.zeros((num_records, SIGNATURE_BYTES), np.int8),
        "envelope": np.zeros((num_records, ENVELOPE_SAMPLES), np.int8),
        "recording": np.arange(num_records, dtype=np.int32),
        "recording_seconds": np.full(num_records, config.seconds),
        "start_seconds": np.zeros(num_records),
        **{scalar_column(place): parts[f"scalar {name}"] for place, name in enumerate(SCALARS)},
    }
    folder.mkdir()
    for name, values in columns.items():
        save_column(folder, name, values)
    save_contents(folder, num_records=num_records, scalars=SCALARS, tasks={})
