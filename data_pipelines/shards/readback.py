"""Reads a newly written shard back and makes the columns of its index from what was really stored."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.calibration.size_and_polarity import MEASURES, measures_of
from data_pipelines.duplicates.order_free import envelope, order_free_signature
from data_pipelines.duplicates.signature import band_of, correlations, signature_of
from data_pipelines.errors import DataError
from data_pipelines.prepared.index import COLUMN_WIDTHS, scalar_column, task_column
from data_pipelines.records import LabelSchema, SignalFormat, content_hash
from data_pipelines.signals.quality import clipped_samples, quality_flags
from data_pipelines.storage.array_record_shard import opened
from data_pipelines.storage.example_format import parse, seconds_of

#: Columns of digests of ids, which tell equal ids without holding the ids themselves.
RECORD_KEY, PATIENT_KEY, RECORDING_KEY = "record_key", "patient_key", "recording_key"
KEY_BYTES = 16


# Columns of numbers that are used as stored: the type, and the list of the feature that holds the number.
_NUMBERS = {
    "fold": (np.int16, "int64_list"),
    "sex": (np.int8, "int64_list"),
    "age_years": (np.float32, "float_list"),
    "valid_start": (np.int32, "int64_list"),
    "valid_samples": (np.int32, "int64_list"),
}

# Columns of seconds, and the features of whole microseconds that store them.
_SECONDS = {"recording_seconds": "recording_microseconds", "start_seconds": "start_microseconds"}


def columns_of_shard(
    path: Path, *, num_records: int, signal_format: SignalFormat, schema: LabelSchema
) -> dict[str, np.ndarray]:
    """Reads a shard, recomputing every content hash and judging every signal.

    Args:
        path: Path of the ArrayRecord shard.
        num_records: Number of records that were written.
        signal_format: Format of the shard's signals.
        schema: Names of the records' labels.

    Returns:
        The columns of the index (`index.py`) that depend on single records, the keys of the ids (`uint8[n, 16]`) and
        the measurements that the gain is judged by (`f32[n, 9]`, `size_and_polarity.py`); scalars and tasks are named
        as their columns are.

    Raises:
        DataError: A stored record is damaged, or there are not `num_records` records.
    """
    make_row = _row_maker(signal_format, schema)
    rows: list[dict[str, Any]] = []
    for number, example in enumerate(_examples(path)):
        try:
            rows.append(make_row(parse(example)))
        except (DataError, IndexError, ValueError) as error:
            raise DataError(
                f"{path}: record {number} does not read back as it was written ({error}); check the disk, then build "
                "again"
            ) from error
    if len(rows) != num_records:
        raise DataError(f"{path}: {len(rows)} records read back where {num_records} were written; build again")
    return {
        name: np.array([row[name] for row in rows], dtype).reshape(len(rows), *shape)
        for name, (dtype, shape) in _column_types(schema).items()
    }


def _column_types(schema: LabelSchema) -> dict[str, tuple[type, tuple[int, ...]]]:
    types: dict[str, tuple[type, tuple[int, ...]]] = {name: (dtype, ()) for name, (dtype, _) in _NUMBERS.items()}
    types |= {"record_id": (np.str_, ()), "patient_id": (np.str_, ())}
    types |= {key: (np.uint8, (KEY_BYTES,)) for key in (RECORD_KEY, PATIENT_KEY, RECORDING_KEY)}
    types |= {name: (np.float64, ()) for name in _SECONDS}
    types |= {"content_hash": (np.uint8, (COLUMN_WIDTHS["content_hash"],))}
    types |= {name: (np.int8, (COLUMN_WIDTHS[name],)) for name in ("signature", "order_free_signature", "envelope")}
    types |= {"measures": (np.float32, (len(MEASURES),))}
    types |= {"clipped_samples": (np.int32, ()), "quality": (np.int32, ())}
    types |= {scalar_column(position): (np.float32, ()) for position in range(len(schema.scalars))}
    sizes = map(len, schema.tasks.values())
    return types | {task_column(position): (np.int8, (size,)) for position, size in enumerate(sizes)}


def _examples(path: Path) -> Iterator[bytes]:
    try:
        with contextlib.closing(opened(path)) as reader:
            for _ in range(reader.num_records()):
                yield reader.read()
    except (RuntimeError, ValueError) as error:  # ArrayRecord checks its own hashes.
        raise DataError(f"{path}: damaged ({error}); check the disk, then build again") from error


def _row_maker(signal_format: SignalFormat, schema: LabelSchema) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    # The names are put together once and not for each of a million records.
    scalars = {scalar_column(position): f"scalars/{name}" for position, name in enumerate(schema.scalars)}
    tasks = {task_column(position): f"tasks/{name}" for position, name in enumerate(schema.tasks)}

    def make_row(feature: Mapping[str, Any]) -> dict[str, Any]:
        def bytes_of(name: str) -> bytes:
            return feature[name].bytes_list.value[0]

        signal = np.frombuffer(bytes_of("signal"), np.int16).reshape(signal_format.shape)
        if content_hash(signal) != bytes_of("content_hash"):
            raise DataError(f"'{bytes_of('record_id').decode()}' has another content than its hash says")
        row = {name: getattr(feature[name], kind).value[0] for name, (_, kind) in _NUMBERS.items()}
        recorded = {
            "sampling_rate_hz": signal_format.sampling_rate_hz,
            "valid_start": row["valid_start"],
            "valid_samples": row["valid_samples"],
        }
        band = band_of(signal, **recorded)
        correlated = correlations(band)
        start = row["valid_start"]
        return row | {
            "record_id": bytes_of("record_id").decode(),
            "patient_id": bytes_of("patient_id").decode(),
            RECORD_KEY: _key(bytes_of("record_id")),
            PATIENT_KEY: _key(bytes_of("patient_id")),
            RECORDING_KEY: _key(bytes_of("recording_id")),
            **{column: seconds_of(feature[name].int64_list.value[0]) for column, name in _SECONDS.items()},
            "content_hash": np.frombuffer(bytes_of("content_hash"), np.uint8),
            "signature": signature_of(correlated),
            "order_free_signature": order_free_signature(correlated),
            "envelope": envelope(band),
            "measures": measures_of(signal[start : start + row["valid_samples"]], band, correlated),
            "clipped_samples": clipped_samples(signal),
            "quality": int(quality_flags(signal, **recorded)),
            **{column: feature[name].float_list.value[0] for column, name in scalars.items()},
            **{column: np.frombuffer(bytes_of(name), np.int8) for column, name in tasks.items()},
        }

    return make_row


def _key(identifier: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(identifier, digest_size=KEY_BYTES).digest(), np.uint8)
