"""Embeddings of many records, made once for all studies that ask for the same.

Files are named by what decides their content: the encoder's weights and settings, the data sets, the records, and those
that batch norm was recalibrated on. One folder therefore serves any number of studies, also at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.errors import DataError
from ecgjax import inference
from ecgjax.evaluation.features import Read, map_records

#: Records embedded at a time.
_BATCH = 256


def kept_embeddings(
    folder: Path,
    encoder: inference.Encoder,
    records: np.ndarray,
    *,
    name: str,
    settings: Mapping[str, Any],
    read: Read,
    datasets: Sequence[str],
    recalibrate_on: np.ndarray,
    seed: int,
    progress: bool = True,
) -> np.ndarray:
    """Returns the embeddings of an encoder with recalibrated batch norm, from a file where they were made before.

    Args:
        folder: of the files.
        encoder: whose embeddings; its running statistics are replaced by those of unaugmented records.
        records: `int64[n]`, records to embed.
        name: of the encoder, in the file's name and on the progress bar.
        settings: of the encoder, `config.encoder`; its weights alone do not tell what is computed with them.
        read: record numbers → `int16[n, time, lead]`.
        datasets: fingerprints of what is read.
        recalibrate_on: `int64[m]`, training records.
        seed: of the draw among them.
        progress: whether to draw a progress bar.

    Returns:
        `f32[n, dim]`, memory-mapped.

    Raises:
        DataError: the file is damaged.
    """
    digest = hashlib.blake2b(digest_size=12)
    decides = {
        "encoder": dict(settings),
        "layer": encoder.layer,
        "datasets": list(datasets),
        "seed": seed,
        "batches": inference.RECALIBRATION_BATCHES,
        "records": [len(records), len(recalibrate_on)],
    }
    digest.update(json.dumps(decides, sort_keys=True).encode())
    for values in (records, recalibrate_on, *jax.tree.leaves((encoder.split.params, encoder.split.stats))):
        digest.update(np.ascontiguousarray(values).tobytes())
    path = folder / f"{name}-{digest.hexdigest()}.npy"
    if not path.is_file():
        recalibrated = inference.recalibrate_batch_norm(encoder, read, records=recalibrate_on, seed=seed)
        _save(
            path,
            map_records(
                recalibrated.embed, records, read=read, batch_size=_BATCH, title=f"embeddings, {name}",
                progress=progress,
            ),
        )  # fmt: skip
    try:
        embeddings = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: these embeddings are damaged ({error}); remove the file to make them again"
        ) from error
    if len(embeddings) != len(records):
        raise DataError(
            f"{path}: these embeddings are damaged: {len(embeddings)} of {len(records)} records; remove the file to "
            "make them again"
        )
    return embeddings


def _save(path: Path, embeddings: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: another study may be making the same file.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, embeddings)
        os.chmod(temporary, 0o644)  # mkstemp's file is its owner's alone, other studies may be a colleague's.
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
