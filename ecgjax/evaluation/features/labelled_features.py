"""Features of many records, computed once and kept in files for all models of a study, or for several studies.

A file is named by a digest of everything that determines its content: the data sets and the records, and for embeddings
also the encoder's weights and settings, and the records that batch norm was recalibrated on. One folder therefore
serves any number of studies, also several at a time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from data_pipelines.system.visible_text import visible
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import Task
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import Read, SplitFeatures, map_records
from ecgjax.evaluation.features.measurements import demographic_columns
from ecgjax.settings.sections import Tree

#: Number of records that are measured at a time. Each part is measured in newly started processes.
_MEASURED_AT_ONCE = 8192


class NormRecords(NamedTuple):
    """Recordings that batch norm is recalibrated on.

    Attributes:
        read: Function that reads stored signals by record number.
        records: Record numbers, `int64[n]`.
        fingerprints: Fingerprints of their data sets; empty where they are among the recordings of the study.
        title: Words for the records, after "the".
    """

    read: Read
    records: np.ndarray
    fingerprints: tuple[str, ...] = ()
    title: str = "training records"


class LabelledFeatures:
    """Features of the labelled records of a study: embeddings, measurements, median beats, age and sex.

    Args:
        recordings: Recordings of the study.
        records: Numbers of all labelled records, `int64[n]`.
        folder: Folder in which features are kept; None to keep them in memory alone.
        norm: Recordings that batch norm is recalibrated on; by default the training records of the split.
        seed: Seed of the order in which records are drawn for the recalibration.
        progress: Whether progress bars are drawn.

    Attributes:
        failures: Number of records that lack an interval or amplitude, by reason; empty where nothing was measured.
    """

    def __init__(
        self,
        recordings: Recordings,
        records: np.ndarray,
        *,
        folder: Path | None = None,
        norm: NormRecords | None = None,
        seed: int = 0,
        progress: bool = True,
    ):
        self.recordings, self.records, self._seed = recordings, records, seed
        self._norm = norm or NormRecords(recordings.store.read, recordings.split.train)
        self._folder, self._progress = folder, progress
        self.failures: Mapping[str, int] = {}

    def of(self, values: np.ndarray, data: ProbeData) -> SplitFeatures:
        """Returns the features of the training, validation and test records.

        Args:
            values: Features of all labelled records, `[n, d]`.
            data: Labelled records of a task.
        """
        parts = {"train": data.train, "val": data.val, "test": data.test}
        return SplitFeatures(**{name: values[self._rows(part.records)] for name, part in parts.items()})

    def _rows(self, records: np.ndarray) -> np.ndarray:
        """Returns the row of each record among the labelled ones, `int64[n]`."""
        rows = np.full(len(records), -1, np.int64)
        known = records < len(self._row)
        rows[known] = self._row[records[known]]
        if (rows < 0).any():
            raise ValueError(f"{np.count_nonzero(rows < 0)} records are not among those that the features are of")
        return rows

    def recalibrated(self, encoder: frozen_encoder.Encoder) -> frozen_encoder.Encoder:
        """Returns an encoder with batch-norm statistics of unaugmented recordings.

        An encoder without batch norm, and one that keeps its statistics, is returned as it is.
        """
        if encoder.keeps_statistics or not jax.tree.leaves(encoder.split.stats):
            return encoder
        start = time.monotonic()
        found = frozen_encoder.recalibrate_batch_norm(
            encoder, self._norm.read, records=self._norm.records, seed=self._seed
        )
        # What the statistics of a random encoder were before says nothing.
        if self._progress and encoder.step:
            print(self._told(encoder, found, seconds=time.monotonic() - start))
        return found

    def _told(self, before: frozen_encoder.Encoder, after: frozen_encoder.Encoder, *, seconds: float) -> str:
        """Returns what a recalibration used, how long it took and what it changed, in a line."""
        number = len(self._norm.records)
        drawn = f"{frozen_encoder.RECALIBRATION_BATCHES} batches of {min(before.batch_size, number)}"
        moved = frozen_encoder.moved_statistics(before.split.stats, after.split.stats)
        return visible(
            f"batch norm: statistics computed anew on {drawn} of the {number:,} {self._norm.title}, {seconds:.1f} s"
            f"{moved and f'; {moved}'}"
        )

    def embeddings(self, encoder: frozen_encoder.Encoder, *, name: str, settings: Tree) -> np.ndarray:
        """Returns the embeddings of all labelled records, `f32[n, dim]`.

        Batch norm is recalibrated on unaugmented training records, for pretrained and random encoders alike: otherwise
        a comparison of the two would also compare these statistics.

        Args:
            encoder: Encoder that embeds the records.
            name: Name of the encoder, with which the file's name begins.
            settings: Values of `config.encoder`, which are part of the digest; equal weights can belong to different
                computations.

        Raises:
            DataError: The file of these features is damaged.
        """

        def make() -> np.ndarray:
            embed, read = self.recalibrated(encoder).embed, self.recordings.store.read
            return map_records(embed, self.records, read=read, title=f"embeddings, {name}", progress=self._progress)

        # The numbers of records tell apart where one array ends and the next begins.
        numbers, batches = [len(self.records), len(self._norm.records)], frozen_encoder.RECALIBRATION_BATCHES
        recalibrated: dict[str, Any] = {"seed": self._seed, "batches": batches, "records": numbers}
        if encoder.keeps_statistics:
            recalibrated = {"kept": True, "records": numbers}
        elif self._norm.fingerprints:
            recalibrated["datasets of batch norm"] = list(self._norm.fingerprints)
        decides = {"encoder": dict(settings), "layer": encoder.layer, **recalibrated}
        arrays = (self.records, self._norm.records, *jax.tree.leaves((encoder.split.params, encoder.split.stats)))
        return self._kept(name, decides, arrays, make=make)

    @functools.cached_property
    def _measured(self) -> np.ndarray:
        """Measurements and, in further columns, median beats of labelled records, `f32[n, …]`, NaN where undefined."""
        decides = {"rate": self.recordings.format.sampling_rate_hz, "version": median_beat.VERSION}
        return self._kept("measurements", decides, (self.records,), make=self._measure)

    def _measure(self) -> np.ndarray:
        rate_hz, parts = self.recordings.format.sampling_rate_hz, []
        failures: dict[str, int] = {}
        for start in range(0, len(self.records), _MEASURED_AT_ONCE):
            signals = self.recordings.store.read(self.records[start : start + _MEASURED_AT_ONCE])
            found = median_beat.measure(signals, sampling_rate_hz=rate_hz, progress=self._progress)
            parts.append(np.c_[found.values, found.median_beats.reshape(len(found.values), -1)])
            failures |= {reason: failures.get(reason, 0) + count for reason, count in found.failures.items()}
        self.failures = failures
        return np.concatenate(parts)

    @property
    def intervals(self) -> np.ndarray:
        """Intervals and amplitudes, `f32[n, len(median_beat.NAMES)]`, NaN where missing."""
        return self._measured[:, : len(median_beat.NAMES)]

    @functools.cached_property
    def median_beats(self) -> np.ndarray:
        """Samples of the median beat, by time, then lead, and last the RR interval, `f32[n, …]`, NaN where missing."""
        return np.c_[self._measured[:, len(median_beat.NAMES) :], self.intervals[:, median_beat.NAMES.index("rr")]]

    def demographics(self, task: Task) -> np.ndarray:
        """Returns age in years and sex (1 female, 0 male), `f32[n, ≤ 2]`, without the one that the task asks for."""
        columns = [self.recordings.index.label(column)[self.records] for column, _ in demographic_columns(task)]
        return np.stack(columns, axis=1)

    def _kept(
        self, name: str, decides: Mapping[str, Any], arrays: Sequence[np.ndarray], *, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Returns features of all labelled records from their file, which is written first if it is missing.

        Args:
            name: Beginning of the file's name.
            decides: Values that determine the features, as JSON can hold them.
            arrays: Arrays that determine the features.
            make: Function that computes the features, `[n, …]`.

        Raises:
            DataError: The file is damaged.
        """
        if self._folder is None:
            return make()
        digest = hashlib.blake2b(digest_size=12)
        decides = {**decides, "datasets": list(self.recordings.fingerprints)}
        digest.update(json.dumps(decides, sort_keys=True).encode())
        for values in arrays:
            digest.update(np.ascontiguousarray(values).tobytes())
        path = self._folder / f"{name}-{digest.hexdigest()}.npy"
        if not path.is_file():
            _save(path, make())
        damaged = f"{path}: these features are damaged"
        try:
            features = np.load(path, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{damaged} ({error}); remove the file to make them again") from error
        if (number := len(features)) != (count := len(self.records)):
            raise DataError(f"{damaged}: {number} of {count} records; remove the file to make them again")
        return features

    @functools.cached_property
    def _row(self) -> np.ndarray:
        """Row of each labelled record among the labelled records, by record number, `int64[…]`; -1 for others."""
        row = np.full(int(self.records.max()) + 1, -1, np.int64)
        row[self.records] = np.arange(len(self.records))
        return row


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
