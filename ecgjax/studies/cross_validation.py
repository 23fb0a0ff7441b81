"""Frozen representations of one data set's recordings: pretrained encoders, their random twins, and median beats.

No recording of the data set influences an encoder. A pretrained encoder and its twin, the same encoder at random
initialisation, get their batch-norm statistics from the same unaugmented recordings of the pretraining (only from real
data sets if there were any). A tested record therefore has no effect on how it is embedded.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from sklearn.preprocessing import StandardScaler

from data_pipelines.physiology import median_beat
from data_pipelines.records import SignalFormat
from ecgjax import defaults
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.features.measurements import median_beat_preprocessor
from ecgjax.evaluation.metrics.weighting import check_finite
from ecgjax.evaluation.models.nested_cross_validation import MakePreprocessor
from ecgjax.settings.sections import tree_of

#: Title of the baseline that needs no network.
BASELINE = "median beat"

#: Number of records that are embedded at a time.
_BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """A frozen representation that is evaluated.

    Attributes:
        title: Title of the model in tables.
        kind: Origin of the representation: an encoder, `"pretrained"` or `"random"`, or a `"baseline"` without one.
        twin: Title of the same encoder at random initialisation; empty unless the model is a pretrained encoder.
        identity: Plain values that determine the features.
        features: Function from a seed to the features, `f32[records, dim]`.
        by_seed: Whether the features differ between seeds.
        make_preprocessor: Function from the number of training records to the preprocessor that precedes the probe.
    """

    title: str
    kind: Literal["pretrained", "random", "baseline"]
    twin: str
    identity: Mapping[str, Any]
    features: Callable[[int], np.ndarray]
    by_seed: bool
    make_preprocessor: MakePreprocessor

    @property
    def folder(self) -> str:
        """Name of the folder that holds the model's files."""
        return self.title.replace(" ", "-").replace("/", "-").replace(":", "_").replace("#", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedRun:
    """A finished pretraining run.

    Attributes:
        title: Title of the run, made of the last parts of its path.
        settings: Settings of the run.
        encoder: Encoder of its last checkpoint.
        recordings: Recordings that it was pretrained on.
    """

    title: str
    settings: RunSettings
    encoder: frozen_encoder.Encoder
    recordings: Recordings

    @property
    def directories(self) -> list[str]:
        """Directories of the data sets that it was pretrained on."""
        return [directory.strip() for directory in self.settings.data.dir.split(",")]

    @property
    def pretrained_on(self) -> list[tuple[str, int, bool]]:
        """Name, number of training records and whether simulated, for every data set of the pretraining."""
        parts = self.recordings.by_dataset(self.recordings.split.train)
        return [
            (dataset.card["name"], len(own), dataset.simulated)
            for dataset, own in zip(self.recordings.datasets, parts, strict=True)
        ]

    @property
    def norm_records(self) -> np.ndarray:
        """Training records that set the batch-norm statistics, `int64[n]`.

        They come from real data sets alone if there are any.
        """
        parts = self.recordings.by_dataset(self.recordings.split.train)
        real = [own for dataset, own in zip(self.recordings.datasets, parts, strict=True) if not dataset.simulated]
        return np.concatenate(real) if any(map(len, real)) else self.recordings.split.train


def open_runs(workdirs: Sequence[str], *, layer: str, format: SignalFormat) -> list[PretrainedRun]:
    """Opens pretraining runs.

    Args:
        workdirs: Folders of the runs.
        layer: Layer whose activations are the embeddings, see `frozen_encoder.Encoder`.
        format: Signal format of the recordings to embed.

    Raises:
        ConfigError: A folder holds no run or is given twice, or its recordings have another sampling rate or length.
        CheckpointError: There is no finished checkpoint, or the checkpoint is damaged.
        DataError: The data of a run's pretraining are no longer where its config says.
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
    """Returns for each path its last parts, as few as tell the paths apart."""
    paths = [Path(workdir).resolve().parts[1:] for workdir in workdirs]
    for count in range(1, max(map(len, paths), default=0) + 1):
        titles = ["/".join(parts[-count:]) for parts in paths]
        if len(set(titles)) == len(titles):
            return titles
    return []


def frozen_models(
    runs: Sequence[PretrainedRun], recordings: Recordings, records: np.ndarray, *, layer: str, progress: bool = True
) -> list[FrozenModel]:
    """Returns all models: the baseline, then the encoders, each preceded by its random twin.

    Encoders of the same kind share one twin, which stands before the first of them.

    Args:
        runs: Finished pretraining runs.
        recordings: Recordings of the data set.
        records: Record numbers to represent, `int64[n]`.
        layer: Layer whose activations are the embeddings, see `frozen_encoder.Encoder`.
        progress: Whether progress bars are drawn.
    """
    read = recordings.store.read

    def embed(encoder: frozen_encoder.Encoder, run: PretrainedRun, title: str) -> np.ndarray:
        if jax.tree.leaves(encoder.split.stats):
            encoder = frozen_encoder.recalibrate_batch_norm(
                encoder, run.recordings.store.read, records=run.norm_records
            )
        found = map_records(encoder.embed, records, read=read, batch_size=_BATCH, title=title, progress=progress)
        check_finite(found, f"numbers of the embeddings by {title}")
        return found

    def embed_random(run: PretrainedRun, title: str, seed: int) -> np.ndarray:
        return embed(frozen_encoder.random_encoder(run.settings.encoder, layer=layer, seed=seed), run, title)

    def embed_pretrained(run: PretrainedRun, seed: int) -> np.ndarray:
        del seed
        return embed(run.encoder, run, run.title)

    models = [_median_beats(recordings, records, progress=progress)]
    twins: dict[str, str] = {}
    for run in runs:
        norm = digests.of_arrays(_contents(run))
        settings = json.dumps([tree_of(run.settings.encoder), norm, layer], sort_keys=True, default=str)
        name = f"random {run.settings.encoder.name}"
        if settings not in twins:
            same = sum(title.split(" #")[0] == name for title in twins.values())
            twins[settings] = name + (f" #{same + 1}" if same else "")
            models.append(
                FrozenModel(
                    title=twins[settings],
                    kind="random",
                    twin="",
                    identity={"encoder": tree_of(run.settings.encoder), "batch_norm_records": norm, "layer": layer},
                    features=functools.partial(embed_random, run, twins[settings]),
                    by_seed=True,
                    make_preprocessor=_standardised,
                )
            )
        models.append(
            FrozenModel(
                title=run.title,
                kind="pretrained",
                twin=twins[settings],
                identity={
                    "weights": digests.of_weights(run.encoder.split),
                    "batch_norm_records": norm,
                    "layer": layer,
                },
                features=functools.partial(embed_pretrained, run),
                by_seed=False,
                make_preprocessor=_standardised,
            )
        )
    return models


def _contents(run: PretrainedRun) -> np.ndarray:
    """Returns the content hashes of the records that set the batch-norm statistics."""
    starts = np.cumsum([0, *(dataset.index.num_records for dataset in run.recordings.datasets)])
    parts = zip(run.recordings.datasets, run.recordings.by_dataset(run.norm_records), starts, strict=False)
    return np.concatenate([np.asarray(dataset.index.content_hash[own - start]) for dataset, own, start in parts])


def _standardised(train_records: int) -> StandardScaler:
    del train_records
    return StandardScaler()


def _median_beats(recordings: Recordings, records: np.ndarray, *, progress: bool) -> FrozenModel:
    rate_hz = recordings.format.sampling_rate_hz

    def features(seed: int) -> np.ndarray:
        del seed
        found = median_beat.measure(recordings.store.read(records), sampling_rate_hz=rate_hz, progress=progress)
        rr = found.values[:, median_beat.NAMES.index("rr")]
        return np.c_[found.median_beats.reshape(len(records), -1), rr]

    return FrozenModel(
        title=BASELINE,
        kind="baseline",
        twin="",
        identity={"median_beat": [median_beat.MEDIAN_BEAT_RATE_HZ, rate_hz]},
        features=features,
        by_seed=False,
        make_preprocessor=lambda number: median_beat_preprocessor(train_records=number),
    )
