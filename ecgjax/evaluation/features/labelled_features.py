"""Features of many records, computed once and kept in files for all models of a study, or for several studies.

A file is named by a digest of everything that determines its content: the data sets and the records, and for embeddings
also the encoder's weights and settings, and the records that batch norm was recalibrated on. One folder therefore
serves any number of studies, also several at a time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.command import print_report
from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from data_pipelines.records import STORED_LEADS
from data_pipelines.system.visible_text import visible
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import Task
from ecgjax.evaluation.features import frozen_encoder, pooled_tokens
from ecgjax.evaluation.features.features import Read, SplitFeatures, map_records
from ecgjax.evaluation.features.measurements import demographic_columns
from ecgjax.settings.sections import Tree

#: Number of records that are measured at a time. Each part is measured in newly started processes.
_MEASURED_AT_ONCE = 8192


#: Number of encoders that are kept in memory with recalibrated statistics.
_RECALIBRATED = 4


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


class Tokens(NamedTuple):
    """Tokens of labelled records in half precision.

    Attributes:
        read: Function from rows of the labelled records, `int64[m]`, to their tokens, `f16[m, tokens, dim]`.
        mask: Mask of the tokens of every labelled record that stand for what was recorded, `bool[n, tokens]`.
    """

    read: Read
    mask: np.ndarray


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
        self._recalibrated: list[tuple[frozen_encoder.Encoder, frozen_encoder.Encoder]] = []

    def of(self, values: np.ndarray, data: ProbeData) -> SplitFeatures:
        """Returns the features of the training, validation and test records.

        Args:
            values: Features of all labelled records, `[n, d]`.
            data: Labelled records of a task.
        """
        parts = {"train": data.train, "val": data.val, "test": data.test}
        return SplitFeatures(**{name: values[self.rows(part.records)] for name, part in parts.items()})

    def rows(self, records: np.ndarray) -> np.ndarray:
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
        for known, found in self._recalibrated:
            if known is encoder:
                return found
        start = time.monotonic()
        found = frozen_encoder.recalibrate_batch_norm(
            encoder, self._norm.read, records=self._norm.records, seed=self._seed, progress=self._progress
        )
        # Several readouts of one encoder follow each other; of an encoder that is over nothing is kept for long.
        self._recalibrated = [*self._recalibrated[1 - _RECALIBRATED :], (encoder, found)]
        # What the statistics of a random encoder were before says nothing.
        if self._progress and encoder.step:
            print_report(self._told(encoder, found, seconds=time.monotonic() - start))
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

        return self._of_encoder(encoder, name, settings, make=make)

    def moments(self, encoder: frozen_encoder.Encoder, *, name: str, settings: Tree) -> np.ndarray:
        """Returns the moments over time of an encoder's tokens, of which `pooled_tokens.pooled` makes features.

        Padding of a recording counts for nothing. Batch norm is recalibrated as for embeddings.

        Args:
            encoder: Encoder that makes the tokens.
            name: Name of the encoder, with which the file's name begins.
            settings: Values of `config.encoder`.

        Returns:
            Means and standard deviations of all labelled records, `f32[n, leads, 2, dim]`.

        Raises:
            DataError: The file of these features is damaged.
        """

        def make() -> np.ndarray:
            recalibrated, masks = self.recalibrated(encoder), self._masks(encoder)

            def of(rows: np.ndarray) -> np.ndarray:
                signals = self.recordings.store.read(self.records[rows])
                return pooled_tokens.moments_of(recalibrated, signals, masks[rows])

            return self._by_rows(of, title=f"moments of tokens, {name}", size=encoder.batch_size)

        return self._of_encoder(encoder, f"{name}-moments", settings, {"readout": "moments"}, make=make)

    def tokens(self, encoder: frozen_encoder.Encoder, *, name: str, settings: Tree, cache_gb: float) -> Tokens:
        """Returns the tokens of all labelled records in half precision.

        Where they are larger than a limit they are computed anew for every batch that is asked for; the numbers are the
        same either way, but for the last bit where XLA adds in another order.

        Args:
            encoder: Encoder that makes the tokens.
            name: Name of the encoder, with which the file's name begins.
            settings: Values of `config.encoder`.
            cache_gb: Largest size of tokens that are kept, in GB (1e9 bytes).

        Raises:
            DataError: The file of the tokens is damaged.
        """
        recalibrated = functools.cache(lambda: self.recalibrated(encoder))
        size = encoder.batch_size

        def compute(rows: np.ndarray) -> np.ndarray:
            return pooled_tokens.tokens_of(recalibrated(), self.recordings.store.read(self.records[rows]))

        def anew(rows: np.ndarray) -> np.ndarray:
            return self._by_rows(compute, rows, title="", size=size, progress=False)

        stored = self.recordings.format
        shape = pooled_tokens.token_shape(encoder, stored.num_samples, len(STORED_LEADS))
        if 2 * len(self.records) * math.prod(shape) > cache_gb * 1e9:
            return Tokens(anew, self._masks(encoder))
        make = functools.partial(self._by_rows, compute, title=f"tokens, {name}", size=size)
        kept = self._of_encoder(encoder, f"{name}-tokens", settings, {"readout": "tokens"}, make=make)
        return Tokens(kept.__getitem__, self._masks(encoder))

    def _masks(self, encoder: frozen_encoder.Encoder) -> np.ndarray:
        """Returns which tokens of each labelled record stand for what was recorded, `bool[n, tokens]`."""
        index, number = self.recordings.index, self.recordings.format.num_samples
        start, samples = index.valid_start[self.records], index.valid_samples[self.records]
        return pooled_tokens.token_mask(encoder, number, start=start, samples=samples)

    def _by_rows(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        rows: np.ndarray | None = None,
        *,
        title: str,
        size: int,
        progress: bool = True,
    ) -> np.ndarray:
        """Applies a function to rows of the labelled records, all by default, in batches of one size."""
        chosen = np.arange(len(self.records)) if rows is None else rows
        shown = self._progress and progress
        return map_records(function, chosen, read=np.asarray, title=title, batch_size=size, progress=shown)

    def _of_encoder(
        self,
        encoder: frozen_encoder.Encoder,
        name: str,
        settings: Tree,
        further: Mapping[str, Any] | None = None,
        *,
        make: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """Returns what an encoder makes of all labelled records from its file, which is written first if it is missing.

        Args:
            encoder: Encoder.
            name: Beginning of the file's name.
            settings: Values of `config.encoder`.
            further: What else decides the features.
            make: Function that computes the features, `[n, …]`.
        """
        # The numbers of records tell apart where one array ends and the next begins.
        numbers, batches = [len(self.records), len(self._norm.records)], frozen_encoder.RECALIBRATION_BATCHES
        recalibrated: dict[str, Any] = {"seed": self._seed, "batches": batches, "records": numbers}
        if encoder.keeps_statistics:
            recalibrated = {"kept": True, "records": numbers}
        elif self._norm.fingerprints:
            recalibrated["datasets of batch norm"] = list(self._norm.fingerprints)
        decides = {"encoder": dict(settings), "layer": encoder.layer, **recalibrated, **(further or {})}
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
