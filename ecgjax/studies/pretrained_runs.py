"""Finished pretraining runs whose encoders are evaluated on one data set, and its records that they were trained on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.records import SignalFormat
from ecgjax import defaults
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.defaults import RunSettings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.features.labelled_features import NormRecords
from ecgjax.leakage import guard
from ecgjax.leakage.overlaps import describe, find_overlaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedRun:
    """A finished pretraining run.

    Attributes:
        title: Title of the run, made of the last parts of its path.
        settings: Settings of the run.
        encoder: Encoder of the last checkpoint.
        recordings: Recordings of the data sets that the encoder was pretrained on.
    """

    title: str
    settings: RunSettings
    encoder: frozen_encoder.Encoder
    recordings: Recordings

    @property
    def directories(self) -> list[str]:
        """Directories of the data sets of the pretraining."""
        return [directory.strip() for directory in self.settings.data.dir.split(",")]

    @property
    def pretrained_on(self) -> list[tuple[str, int, bool]]:
        """Name, number of training records, and whether simulated, of every data set of the pretraining."""
        parts = self.recordings.numbers_by_dataset(self.recordings.split.train)
        return [(dataset.card["name"], len(own), dataset.simulated) for dataset, own in parts]

    @functools.cached_property
    def norm(self) -> NormRecords:
        """Training records on which batch-norm statistics are computed; only those of real data sets, if any."""
        parts = self.recordings.by_dataset(self.recordings.split.train)
        real = [own for dataset, own in zip(self.recordings.datasets, parts, strict=True) if not dataset.simulated]
        records = np.concatenate(real) if any(map(len, real)) else self.recordings.split.train
        return NormRecords(self.recordings.store.read, records)

    @functools.cached_property
    def norm_digest(self) -> str:
        """Digest of the contents of the records of `norm`, as hexadecimal text."""
        parts = self.recordings.numbers_by_dataset(self.norm.records)
        return digests.of_arrays(np.concatenate([np.asarray(each.index.content_hash[own]) for each, own in parts]))


def open_runs(workdirs: Sequence[str], *, layer: str, format: SignalFormat) -> list[PretrainedRun]:
    """Opens pretraining runs.

    Args:
        workdirs: Folders of the runs.
        layer: Layer whose activations are the embeddings, see `frozen_encoder.Encoder`.
        format: Signal format of the recordings to embed.

    Returns:
        The runs, in the order of the folders.

    Raises:
        ConfigError: A folder holds no run or is given twice, or its recordings have another sampling rate or length.
        CheckpointError: There is no finished checkpoint, or the checkpoint is damaged.
        DataError: The data of a run's pretraining are not in the folder that its config names.
    """
    if len({Path(workdir).resolve() for workdir in workdirs}) < len(workdirs):
        raise ConfigError("--workdir names a run twice")
    runs = []
    for title, workdir in zip(_titles(workdirs), workdirs, strict=True):
        settings = defaults.settings_of_run(workdir)
        recordings = open_recordings(settings.data)
        if recordings.format != format:
            raise ConfigError(
                f"--workdir={workdir} was pretrained on {recordings.format.num_samples} samples at "
                f"{recordings.format.sampling_rate_hz} Hz, --dataset has {format.num_samples} at "
                f"{format.sampling_rate_hz} Hz: convert it with python -m data_pipelines.build --builder=prepared"
            )
        encoder = frozen_encoder.load_encoder(workdir, layer=layer)
        runs.append(PretrainedRun(title=title, settings=settings, encoder=encoder, recordings=recordings))
    return runs


def _titles(workdirs: Sequence[str]) -> list[str]:
    """Returns for each path its last parts, joined by `/`: as few as make all of them different."""
    paths = [Path(workdir).resolve().parts[1:] for workdir in workdirs]
    for count in range(1, max(map(len, paths), default=0) + 1):
        titles = ["/".join(parts[-count:]) for parts in paths]
        if len(set(titles)) == len(titles):
            return titles
    return []


def keep_apart(
    runs: Sequence[PretrainedRun], recordings: Recordings, *, overlaps: str
) -> tuple[Recordings, tuple[str, ...]]:
    """Finds the records that an encoder was pretrained on, or copies of these, and refuses, drops or marks them.

    Args:
        runs: Pretrained runs.
        recordings: Recordings of the data set.
        overlaps: Value of `config.probe.overlaps`, `"refuse"`, `"drop"` or `"mark"` (`guard.py`).

    Returns:
        The recordings, without those that any run was pretrained on if these are to be dropped, so that all models are
        evaluated on the same records; and sentences that a reader of the report must know.

    Raises:
        ConfigError: There are overlaps, and they are to be refused.
        CheckpointError: The list of what a run was pretrained on is missing or damaged, and overlaps are not marked.
    """
    found, seen, compared = [], [np.zeros(0, np.int64)], {}
    for run in runs:
        if run.encoder.trained_on is None:
            found.append(guard.not_listed(run.title, among="the records here"))
            continue
        try:
            trained_on = run.encoder.trained_on()
        except CheckpointError as error:
            if overlaps != "mark":
                raise
            found.append(f"Whether records here were pretrained on by {run.title} is not known: {error}.")
            continue
        # Runs with one list have the same overlaps, and finding them takes long.
        if trained_on.digest not in compared:
            # All records stand on this side of the split, since a cross-validation tests each of them.
            compared[trained_on.digest] = find_overlaps(
                recordings, trained_on, recordings.split.train, directories=run.directories
            )
        result = compared[trained_on.digest]
        found += [*result.cautions, *guard.earlier_trainings(trained_on, name=run.title)]
        if not result.found:
            continue
        described = f"{run.title}: {describe(result, recordings, trained_on)}"
        if overlaps == "refuse":
            raise ConfigError(
                f"{described}. Pretrain without these records; or leave them out of the test of all models with "
                "--overlaps=drop, or keep them and say so in the report with --overlaps=mark"
            )
        seen.append(result.records)
        found.append(f"{described}{': they are left out for all models' if overlaps == 'drop' else ''}.")
    found += [
        caution for run in runs for caution in guard.labelled(labels_looked_at(run.settings.column_use), name=run.title)
    ]
    found += guard.unlinked(recordings, kept="kept in one fold", flag="--links")
    if overlaps == "drop":
        kept = np.setdiff1d(recordings.split.train, np.concatenate(seen))
        recordings = dataclasses.replace(recordings, split=dataclasses.replace(recordings.split, train=kept))
    # Several runs may give cause for the same caution.
    return recordings, tuple(dict.fromkeys(found))
