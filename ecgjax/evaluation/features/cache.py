"""Features of many records, computed once for all studies that ask for the same.

A file is named by a digest of what decides its content: the data sets and the records, and for embeddings also the
encoder's weights and settings, and the records that batch norm was recalibrated on. One folder therefore serves any
number of studies, also several at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import Read, map_records
from ecgjax.settings.sections import Tree

#: Number of records that are embedded, and measured, at a time. Each part is measured in newly started processes.
_BATCH = 256
_MEASURED_AT_ONCE = 8192


def kept_embeddings(
    folder: Path,
    encoder: frozen_encoder.Encoder,
    records: np.ndarray,
    *,
    name: str,
    settings: Tree,
    read: Read,
    datasets: Sequence[str],
    recalibrate_on: np.ndarray,
    seed: int,
    progress: bool = True,
) -> np.ndarray:
    """Returns the embeddings of an encoder with recalibrated batch norm, from a file if they were computed before.

    Args:
        folder: Folder of the files.
        encoder: Encoder that embeds the records; its running statistics are replaced by those of unaugmented records.
        records: Numbers of the records to embed, `int64[n]`.
        name: Name of the encoder, in the file's name and on the progress bar.
        settings: Values of `config.encoder`; the weights alone do not tell what is computed with them.
        read: Function of record numbers that returns their signals, `int16[n, time, lead]`.
        datasets: Fingerprints of the data sets that are read.
        recalibrate_on: Numbers of training records, `int64[m]`, among which those for recalibration are drawn.
        seed: Seed of the draw among them.
        progress: Whether a progress bar is drawn.

    Returns:
        Embeddings, `f32[n, dim]`, memory-mapped.

    Raises:
        DataError: The file is damaged.
    """

    def embed() -> np.ndarray:
        recalibrated = frozen_encoder.recalibrate_batch_norm(encoder, read, records=recalibrate_on, seed=seed)
        return map_records(
            recalibrated.embed, records, read=read, batch_size=_BATCH, title=f"embeddings, {name}", progress=progress
        )

    decides = {
        "encoder": dict(settings),
        "layer": encoder.layer,
        "datasets": list(datasets),
        "seed": seed,
        "batches": frozen_encoder.RECALIBRATION_BATCHES,
        "records": [len(records), len(recalibrate_on)],
    }
    arrays = (records, recalibrate_on, *jax.tree.leaves((encoder.split.params, encoder.split.stats)))
    return _kept(folder, name, decides, arrays, make=embed, count=len(records))


def kept_measurements(
    folder: Path,
    records: np.ndarray,
    *,
    read: Read,
    datasets: Sequence[str],
    sampling_rate_hz: int,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the results of `median_beat.measure` for records, from a file if they were measured before.

    Args:
        folder: Folder of the files.
        records: Numbers of the records to measure, `int64[n]`; each takes 20 to 30 ms of a core.
        read: Function of record numbers that returns their signals, `int16[n, time, lead]`.
        datasets: Fingerprints of the data sets that are read.
        sampling_rate_hz: Sampling rate of the signals in Hz.
        progress: Whether progress bars are drawn.

    Returns:
        The measurements, `f32[n, len(median_beat.NAMES)]`, and the median beats, `f32[n, samples * leads]`, both
        memory-mapped; NaN where a value or a beat could not be computed.

    Raises:
        DataError: The file is damaged.
    """

    def measured() -> np.ndarray:
        parts = []
        for start in range(0, len(records), _MEASURED_AT_ONCE):
            found = median_beat.measure(
                read(records[start : start + _MEASURED_AT_ONCE]), sampling_rate_hz=sampling_rate_hz, progress=progress
            )
            parts.append(np.c_[found.values, found.median_beats.reshape(len(found.values), -1)])
        return np.concatenate(parts)

    decides = {"datasets": list(datasets), "rate": sampling_rate_hz, "version": median_beat.VERSION}
    found = _kept(folder, "measurements", decides, (records,), make=measured, count=len(records))
    return found[:, : len(median_beat.NAMES)], found[:, len(median_beat.NAMES) :]


def _kept(
    folder: Path,
    name: str,
    decides: Mapping[str, Any],
    arrays: Sequence[np.ndarray],
    *,
    make: Callable[[], np.ndarray],
    count: int,
) -> np.ndarray:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps(decides, sort_keys=True).encode())
    for values in arrays:
        digest.update(np.ascontiguousarray(values).tobytes())
    path = folder / f"{name}-{digest.hexdigest()}.npy"
    if not path.is_file():
        _save(path, make())
    try:
        features = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: these features are damaged ({error}); remove the file to make them again") from error
    if len(features) != count:
        raise DataError(
            f"{path}: these features are damaged: {len(features)} of {count} records; remove the file to make them "
            "again"
        )
    return features


def _save(path: Path, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary file has a name of its own, since another study may be making the same file.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, features)
        os.chmod(temporary, 0o644)  # mkstemp lets only the owner read; other studies may be a colleague's.
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
