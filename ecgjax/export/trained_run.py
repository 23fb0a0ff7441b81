"""The encoder of a run as it is exported, with its batch-norm statistics and what its checkpoint says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.data.moved import known_sets, open_where_they_lie
from ecgjax.data.recordings import Recordings
from ecgjax.defaults import RunSettings
from ecgjax.errors import CheckpointError, check_known
from ecgjax.evaluation.features.frozen_encoder import Encoder, load_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.training.about import About, about_run
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.run_batches import sampled_side

#: Batch-norm statistics that can be exported: those that `evaluate` sets, or those of training.
STATISTICS = ("recalibrated", "running")

_WHERE = "Say where they lie now with --pretraining_data=DIR"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A run whose encoder is exported.

    Attributes:
        settings: Settings of the run.
        encoder: Encoder with the statistics that are exported.
        statistics: Kind of these, of `STATISTICS`; `"none"` for an encoder without batch norm.
        about: What the run says of itself.
        training: What an exported model says of its training, of a run that went on from one; None for a run whose
            settings are known.
    """

    settings: RunSettings
    encoder: Encoder
    statistics: str
    about: About
    training: Mapping[str, Any] | None = None

    @property
    def weights(self) -> str:
        """Kind of the weights in words."""
        return "last step" if self.settings.optimizer.ema_decay is None else "moving average"

    @property
    def num_samples(self) -> int:
        """Number of samples of a recording."""
        return int(self.about["signals"]["num_samples"])

    @property
    def simulated(self) -> bool:
        """Whether any data set of the training, or of one before it, was simulated."""
        begun_from = self.about.get("begun_from")
        earlier = () if begun_from is None else begun_from["data"]
        return any(dataset["simulated"] for dataset in (*self.about["data"], *earlier))


def open_trained_run(
    workdir: str | Path,
    *,
    step: int | None = None,
    statistics: str = "recalibrated",
    layer: str | None = None,
    pretraining_data: Sequence[str] = (),
) -> TrainedRun:
    """Opens a run for its export.

    Args:
        workdir: Folder of the run.
        step: Step of the checkpoint; the latest by default.
        statistics: Batch-norm statistics, of `STATISTICS`; an encoder without batch norm has none of either.
        layer: Layer whose activations are exported; that of the run's config by default.
        pretraining_data: Folders in which the data sets of the pretraining may lie, beside those of its config.

    Raises:
        ConfigError: The folder holds no run, or there are no such statistics.
        CheckpointError: The folder holds no such checkpoint, or a damaged one.
        DataError: The recordings are needed, for recalibration or since the checkpoint says nothing of itself, and are
            not where they were.
    """
    check_known(statistics, STATISTICS, setting="statistics")
    settings = defaults.settings_of_run(workdir)
    _check_has_checkpoint(workdir)
    encoder = load_encoder(workdir, step=step, layer=layer)
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        metadata = checkpoints.metadata(encoder.step)
    statistics = statistics if jax.tree.leaves(encoder.split.stats) else "none"
    about = metadata.get("about")
    if statistics == "recalibrated":
        remedy = f"{_WHERE}, or export the statistics of training with --statistics=running"
        purpose = "recompute batch-norm statistics as evaluate does"
        recordings = _recordings_of(settings, metadata, purpose=purpose, remedy=remedy, places=pretraining_data)
        encoder = recalibrated_as_evaluated(encoder, settings, recordings)
    elif about is None:
        purpose = (
            f"describe them: the checkpoints of {workdir} are older than what checkpoints say of themselves, which the "
            "recordings tell"
        )
        recordings = _recordings_of(settings, metadata, purpose=purpose, remedy=_WHERE, places=pretraining_data)
    if about is None:
        about = _about_older(settings, recordings, encoder)
    return TrainedRun(settings=settings, encoder=encoder, statistics=statistics, about=about)


def recalibrated_as_evaluated(encoder: Encoder, settings: RunSettings, recordings: Recordings) -> Encoder:
    """Returns an encoder with the batch-norm statistics that `ecgjax.evaluate` gives it.

    Args:
        encoder: Encoder with the statistics of training.
        settings: Settings of the run.
        recordings: Recordings of the run.
    """
    features = LabelledFeatures(recordings, recordings.split.train, seed=settings.probe.seed, progress=False)
    return features.recalibrated(encoder)


def _check_has_checkpoint(workdir: str | Path) -> None:
    folder = run_config.checkpoint_dir(workdir)
    if not folder.is_dir() or not any(entry.name.isdigit() for entry in folder.iterdir()):
        raise CheckpointError(
            f"--workdir={workdir} has no finished checkpoint in {folder}; give the command that began the run once "
            "more, or name another run"
        )


def _recordings_of(
    settings: RunSettings, metadata: Mapping[str, Any], *, purpose: str, remedy: str, places: Sequence[str]
) -> Recordings:
    """Opens the recordings that a checkpoint was trained on.

    Args:
        settings: Settings of the run.
        metadata: Metadata of the checkpoint.
        purpose: Words for what the recordings are needed for, after "are needed to".
        remedy: What can be done without them, for the message.
        places: Folders in which they may lie too.

    Raises:
        DataError: They are not where they were, or others are there.
    """
    known = known_sets((metadata.get("about") or {}).get("data", ()), metadata.get("datasets", ()))
    return open_where_they_lie(settings.data, known, purpose=purpose, remedy=remedy, places=places)


def _about_older(settings: RunSettings, recordings: Recordings, encoder: Encoder) -> About:
    side = sampled_side(settings, recordings, recordings.split.train)
    sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)
    examples = sampler.examples_per_epoch
    return about_run(settings, recordings, side, encoder.split, examples_per_epoch=examples, this_code=False)
