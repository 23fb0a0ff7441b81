"""Pretrained encoders that are evaluated on one data set, and its records that they were trained on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgjax.config import recipes
from ecgjax.data.recordings import Recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.defaults import RunSettings, settings_of
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.features.labelled_features import NormRecords
from ecgjax.leakage import guard
from ecgjax.leakage.overlaps import describe, find_overlaps
from ecgjax.pages.provenance import Step
from ecgjax.pages.steps_before import pretraining_step
from ecgjax.pretrained.fit import check_fits
from ecgjax.pretrained.source import EncoderSource, chosen_place, open_source, settings_of_source
from ecgjax.settings.sections import tree_of
from ecgjax.studies.batch_norm import batch_norm, plain_records

#: Recipe from which the leaves of a pretraining are told to differ: a run does not keep the name of its own.
_RECIPE = "simclr"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedRun:
    """A pretrained encoder, of a finished run or of an exported model.

    Attributes:
        title: Title of the encoder, made of the last parts of its path.
        settings: Settings of the run; of an exported model, those of its encoder and else the defaults.
        encoder: Encoder, of a run that of its last checkpoint.
        recordings: Recordings of the pretraining, where they set batch norm; None where they are not needed.
        source: Encoder with what is known of its training.
        batch_norm: Sentence on what sets its batch norm; empty for an encoder without it.
    """

    title: str
    settings: RunSettings
    encoder: frozen_encoder.Encoder
    recordings: Recordings | None = None
    source: EncoderSource | None = None
    batch_norm: str = ""

    @property
    def exported(self) -> bool:
        """Whether the encoder is an exported model."""
        return self.source is not None and self.source.run is None

    @property
    def recorded(self) -> RunSettings | None:
        """Settings of the pretraining; None for an exported model that does not say them."""
        return self.source.recorded if self.source is not None else self.settings

    @property
    def pretrained_on(self) -> list[tuple[str, int, bool]]:
        """Name, number of training records, and whether simulated, of every data set of the pretraining, if known."""
        if self.recordings is not None:
            parts = self.recordings.numbers_by_dataset(self.recordings.split.train)
            return [(dataset.card["name"], len(own), dataset.simulated) for dataset, own in parts]
        rows = () if self.source is None else self.source.data
        return [(str(each.get("name")), int(each.get("records", 0)), bool(each.get("simulated"))) for each in rows]

    @functools.cached_property
    def norm(self) -> NormRecords | None:
        """Records of the pretraining that set batch norm; None where records of the tested data set do."""
        return None if self.recordings is None else plain_records(self.recordings)

    @functools.cached_property
    def norm_digest(self) -> str | None:
        """Digest of the contents of the records of `norm`, as hexadecimal text; None where there are none."""
        if self.recordings is None or self.norm is None:
            return None
        parts = self.recordings.numbers_by_dataset(self.norm.records)
        return digests.of_arrays(np.concatenate([np.asarray(each.index.content_hash[own]) for each, own in parts]))


def step_of(source: EncoderSource, *, title: str = "the encoder") -> Step:
    """Returns the step of a report that tells how an encoder was pretrained.

    Args:
        source: Pretrained encoder.
        title: Title of the encoder in words.
    """
    recorded = source.recorded
    return pretraining_step(
        None if recorded is None else tree_of(recorded),
        recipe=_RECIPE,
        default=tree_of(settings_of(recipes.load_recipe(_RECIPE))),
        title=title,
        workdir=str(source.place),
        exported=source.run is None,
    )


def open_runs(
    workdirs: Sequence[str],
    *,
    layer: str,
    recordings: Recordings,
    models: Sequence[str] = (),
    statistics: str | None = None,
    pretraining_data: Sequence[str] = (),
) -> list[PretrainedRun]:
    """Opens pretrained encoders.

    Args:
        workdirs: Folders of runs.
        layer: Layer whose activations are the embeddings, see `frozen_encoder.Encoder`.
        recordings: Recordings to embed.
        models: Folders of exported models.
        statistics: What sets batch norm, of `batch_norm.STATISTICS`; by default the records of a run's pretraining, and
            what an exported model has stored.
        pretraining_data: Folders in which data sets of the pretrainings may lie, beside those of the runs.

    Returns:
        The encoders of the runs, then of the models, in the order of the folders.

    Raises:
        ConfigError: A folder holds no run or no model or is given twice, or the recordings do not fit it.
        CheckpointError: There is no finished checkpoint, or the checkpoint is damaged.
        DataError: The data of a run's pretraining are needed, and are not found.
    """
    for flag, folders in (("--workdir", workdirs), ("--model", models)):
        if len({Path(folder).resolve() for folder in folders}) < len(folders):
            raise ConfigError(f"{flag} names {'a run' if flag == '--workdir' else 'a model'} twice")
    places = [chosen_place(workdir, None) for workdir in workdirs] + [chosen_place(None, model) for model in models]
    runs = []
    for title, place in zip(_titles(places), places, strict=True):
        settings = settings_of_source(place)
        source = open_source(place, layer=layer)
        check_fits(source, recordings)
        chosen = batch_norm(
            source,
            statistics,
            default="pretraining",
            judged=f"records of {recordings.name}, those of the tested fold among them, without their labels",
            pretraining_data=pretraining_data,
        )
        runs.append(
            PretrainedRun(
                title=title,
                settings=settings,
                encoder=chosen.encoder,
                recordings=chosen.recordings,
                source=source,
                batch_norm=chosen.words,
            )
        )
    return runs


def _titles(places: Sequence[str | Path]) -> list[str]:
    """Returns for each path its last parts, joined by `/`: as few as make all of them different."""
    paths = [Path(place).resolve().parts[1:] for place in places]
    for count in range(1, max(map(len, paths), default=0) + 1):
        titles = ["/".join(parts[-count:]) for parts in paths]
        if len(set(titles)) == len(titles):
            return titles
    return []


def told_of_batch_norm(runs: Sequence[PretrainedRun]) -> list[str]:
    """Returns what sets the batch norm of each encoder, a sentence for all that share it."""
    titles: dict[str, list[str]] = {}
    for run in runs:
        if run.batch_norm:
            titles.setdefault(run.batch_norm, []).append(run.title)
    return [f"{', '.join(names)}: {words}" for words, names in titles.items()]


def keep_apart(
    runs: Sequence[PretrainedRun], recordings: Recordings, *, overlaps: str, pretraining_data: Sequence[str] = ()
) -> tuple[Recordings, tuple[str, ...]]:
    """Finds the records that an encoder was pretrained on, or copies of these, and refuses, drops or marks them.

    Args:
        runs: Pretrained runs.
        recordings: Recordings of the data set.
        overlaps: Value of `config.probe.overlaps`, `"refuse"`, `"drop"` or `"mark"` (`guard.py`).
        pretraining_data: Folders in which data sets of the pretrainings may lie, beside those of the runs.

    Returns:
        The recordings, without those that any run was pretrained on if these are to be dropped, so that all models are
        evaluated on the same records; and sentences that a reader of the report must know.

    Raises:
        ConfigError: There are overlaps, and they are to be refused.
        CheckpointError: The list of what a run was pretrained on is missing or damaged, and overlaps are not marked.
    """
    found: list[str] = []
    seen, compared = [np.zeros(0, np.int64)], {}
    for run in runs:
        earlier = run.source is not None and run.source.simulated
        simulated = earlier or any(made for _, _, made in run.pretrained_on)
        found += guard.simulated_before(simulated, recordings, name=run.title)
        if run.encoder.trained_on is None:
            not_listed = guard.not_listed if run.source is None else run.source.not_listed
            of_folds, told = guard.seen_by_folds(
                recordings,
                recordings.split.train,
                trained_folds={} if run.source is None else run.source.trained_folds,
                overlaps=overlaps,
                name=run.title,
                leaf="overlaps",
            )
            seen.append(of_folds)
            found += [*told, not_listed(run.title, among="the records here")]
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
                recordings,
                trained_on,
                recordings.split.train,
                directories=[*run.settings.data.directories, *pretraining_data],
            )
        result = compared[trained_on.digest]
        found += [
            *(f"{run.title}: {each}" for each in result.cautions),
            *guard.earlier_trainings(trained_on, name=run.title),
        ]
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
    for run in runs:
        if run.recorded is None:
            found.append(f"Whether {run.title} was pretrained with labels is not known: the model does not say it.")
        else:
            recorded = run.recorded
            found += guard.labelled(labels_looked_at(recorded.column_use), name=run.title)
            found += guard.watched(recorded.health.task, chooses=recorded.chosen_by_health, name=run.title)
    found += guard.unlinked(recordings, kept="kept in one fold", flag="--links")
    if overlaps == "drop":
        kept = np.setdiff1d(recordings.split.train, np.concatenate(seen))
        recordings = dataclasses.replace(recordings, split=dataclasses.replace(recordings.split, train=kept))
    # Several runs may give cause for the same caution.
    return recordings, tuple(dict.fromkeys(found))
