"""What a fine-tuning run begins with: a pretrained encoder and labelled recordings that fit it."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.signals.recipe import SignalRecipe
from ecgjax.data.groups import check_groups
from ecgjax.data.labels import ProbeData, probe_data
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.finetuning import trainer
from ecgjax.finetuning.settings import FineTuningSettings
from ecgjax.leakage import guard
from ecgjax.leakage.trained_on import PretrainingRecords, pretraining_records, seen_by
from ecgjax.pages.page import SIMULATED
from ecgjax.pretrained.source import EncoderSource, open_source
from ecgjax.studies.one_task.fine_tuned import check_trainable
from ecgjax.studies.questions import asked, check_answerable

#: Fields of a recipe that change what an encoder sees, whatever the rate and length.
_FILTERS = ("notch_hz", "highpass_hz", "lowpass_hz", "baseline")

#: Sentence on an exported model that came without the list of its pretraining records.
_NOT_WITH_EXPORT = (
    "Which records the encoder was pretrained on did not come with the exported model: copies and patients of theirs "
    "may be among the validation and test records. An export with --with_signatures has the list, and so has the "
    "workdir of the pretraining."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledStart:
    """A pretrained encoder, and labelled recordings that fit it.

    Attributes:
        source: Pretrained encoder.
        recordings: Recordings of the run, opened and divided.
        data: Labelled records of the task.
        seen: List of the records that the encoder was pretrained on; None where none came with it, or where it is
            damaged and overlaps are only marked.
        cautions: Sentences that a reader of the results must know.
    """

    source: EncoderSource
    recordings: Recordings
    data: ProbeData
    seen: PretrainingRecords | None
    cautions: tuple[str, ...]

    @property
    def simulated(self) -> bool:
        """Whether any recording of this run was simulated, whatever those of the pretraining were."""
        return self.recordings.simulated


def open_start(settings: FineTuningSettings) -> LabelledStart:
    """Opens encoder and recordings, and refuses what does not fit together before anything is computed.

    Args:
        settings: Settings of the run.

    Raises:
        ConfigError: There is no source or it is damaged, the recordings have another rate, length or filter than those
            that it was trained on, settings contradict each other or the question, or validation and test records were
            pretrained on and are to be refused.
        DataError: The data set or its labels do not allow the training.
    """
    if not settings.init.source:
        raise ConfigError(
            "--config.init.source=DIR is needed: the workdir of a pretraining run, or a model that python -m "
            "ecgjax.export wrote"
        )
    _check_data_settings(settings)
    recordings = open_recordings(settings.data)
    task = asked(settings.task, recordings.index)
    trainer.check_settings(settings.training, kind_of(task), section="config.training")
    check_groups(settings.groups, recordings, leaf="config.groups")
    labelled = functools.partial(probe_data, task=task, label_fraction=settings.label_fraction, seed=settings.seed)
    data = labelled(recordings.index, recordings.split)
    check_answerable(data, recordings.index)
    check_trainable(data, batch_size=settings.training.batch_size)
    source = _opened(settings)
    unknown = check_signals(source, recordings, directory=settings.data.dir)
    judged = np.concatenate([data.val.records, data.test.records])
    recordings, seen, found = _guarded(settings, source, recordings, judged)
    # The labels are taken again, because records may have been dropped.
    data = labelled(recordings.index, recordings.split)
    few = check_answerable(data, recordings.index)
    data, left_out = check_trainable(data, batch_size=settings.training.batch_size)
    simulated = (SIMULATED,) if recordings.simulated else guard.simulated_before(source.simulated, recordings)
    cautions = (*simulated, *unknown, *found, *left_out, *few)
    return LabelledStart(source=source, recordings=recordings, data=data, seen=seen, cautions=cautions)


def _opened(settings: FineTuningSettings) -> EncoderSource:
    place = str(settings.init.source)
    try:
        return open_source(place, step=settings.init.step, layer="features")
    except ConfigError as error:
        moved = "" if Path(place).exists() else "; a source that lies elsewhere by now is named by its new place"
        raise ConfigError(f"config.init.source: {error}{moved}") from error


def _check_data_settings(settings: FineTuningSettings) -> None:
    data = settings.data
    if data.weights:
        raise ConfigError(
            f"config.data.weights={data.weights}: training with labels draws every labelled record equally often; "
            "leave the weights out, or balance a yes or no with --config.training.balance"
        )
    if data.allow_bad_shards:
        raise ConfigError(
            "config.data.allow_bad_shards=True: training with labels needs every recording that has one; bring the "
            "damaged shards anew (python -m data_pipelines.verify names them), and leave the setting out"
        )


def check_signals(source: EncoderSource, recordings: Recordings, *, directory: str) -> tuple[str, ...]:
    """Refuses recordings that are not of the form that an encoder was trained on.

    Args:
        source: Pretrained encoder.
        recordings: Recordings that it is to see.
        directory: Value of `config.data.dir`, for messages.

    Returns:
        A sentence where the form of its recordings is not known, else none.

    Raises:
        ConfigError: Rate, length or filters differ.
    """
    known, own = source.format, recordings.format
    if known is None or source.preprocessor is None:
        return (
            f"Rate, length and filters of the recordings of {source.title} are not known, which is older than what "
            "runs say of themselves; whether the recordings here are alike is not known either.",
        )
    seconds = known.num_samples / known.sampling_rate_hz
    remedy = "convert the data set with python -m data_pipelines.build --builder=prepared"
    if known != own:
        raise ConfigError(
            f"config.data.dir={directory} has {own.num_samples} samples at {own.sampling_rate_hz} Hz, and the encoder "
            f"of config.init.source={source.place} was trained on {known.num_samples} at {known.sampling_rate_hz} Hz: "
            f"{remedy} --source={directory} --target_rate_hz={known.sampling_rate_hz} --seconds={seconds:g} --out=…"
        )
    recipe = source.preprocessor.recipe
    for dataset in recordings.datasets:
        here = SignalRecipe(name="", version=0).to_json() | dict(dataset.card["recipe"])
        for field in _FILTERS:
            if here[field] != (there := recipe.to_json()[field]):
                raise ConfigError(
                    f"{dataset.directory} was prepared with {field}={here[field]}, and the recordings of "
                    f"config.init.source={source.place} with {field}={there}: build the data set again with the recipe "
                    "of the encoder (python -m data_pipelines.build --recipe=…), so that it sees what it was trained on"
                )
    return ()


class _Guarded(NamedTuple):
    """Recordings without what an encoder has seen of them, what is known of that, and what a reader must know."""

    recordings: Recordings
    seen: PretrainingRecords | None
    cautions: tuple[str, ...]


def _guarded(
    settings: FineTuningSettings, source: EncoderSource, recordings: Recordings, records: np.ndarray
) -> _Guarded:
    """Refuses, drops or marks validation and test records that the encoder was pretrained on.

    Args:
        settings: Settings of the run.
        source: Pretrained encoder.
        recordings: Recordings of the run.
        records: Validation and test records, `int64[n]`.
    """
    seen: PretrainingRecords | None = None
    found: tuple[str, ...] = (_NOT_WITH_EXPORT,)
    if source.encoder.trained_on is not None:
        seen, found = guard.opened_list(source.encoder.trained_on, overlaps=settings.overlaps)
    elif source.run is not None:
        found = (guard.not_listed("the encoder", among="the validation and test records"),)
    if source.encoder.trained_on is None:
        recordings, told = guard.guard_by_folds(
            recordings,
            records,
            trained_folds=source.trained_folds,
            overlaps=settings.overlaps,
            leaf="config.overlaps",
        )
        found = (*told, *found)
    if seen is not None:
        recordings, found = guard.guard(
            recordings,
            seen,
            records,
            overlaps=settings.overlaps,
            directories=source.directories,
            leaf="config.overlaps",
        )
    labels: tuple[str, ...] = ()
    if source.run is not None:
        looked = guard.watched(source.run.health.task, chooses=source.run.chosen_by_health)
        labels = (*guard.labelled(labels_looked_at(source.run.column_use)), *looked)
    return _Guarded(recordings, seen, (*found, *guard.unlinked(recordings), *labels))


def source_of(start: LabelledStart) -> dict[str, object]:
    """Returns what is told of the source of a run, without paths."""
    source = start.source
    return {
        "title": source.title,
        "step": source.encoder.step,
        "encoder": source.settings.name,
        "statistics": source.statistics,
        "weights_digest": source.weights_digest,
        "is_exported_model": source.run is None,
        "data": [dict(each) for each in source.data],
    }


def records_seen(start: LabelledStart, *, run: str) -> PretrainingRecords:
    """Returns the list of all that a fine-tuned model has seen, by which later evaluations find it.

    These are its own training and validation records, because validation chooses step, calibration and thresholds, and
    what its source was pretrained on.

    Args:
        start: Encoder and labelled recordings of the run.
        run: Fingerprint of the run.
    """
    data = start.data
    own = np.union1d(data.train.records, data.val.records)
    return pretraining_records(start.recordings, own, run=run).after(seen_by(start.seen, name=start.source.title))
