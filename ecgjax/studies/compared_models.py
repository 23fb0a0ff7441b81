"""The models that a cross-validation compares: encoders with their readouts, the same at random, and baselines."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.physiology import median_beat
from ecgjax.data.recordings import Recordings
from ecgjax.defaults import RunSettings
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures, NormRecords
from ecgjax.finetuning import trainer
from ecgjax.settings.probe import ProbeSettings
from ecgjax.settings.sections import tree_of
from ecgjax.studies.model_names import BASELINES, PLAIN, ModelName, labels_only_titles, short_title, told_apart
from ecgjax.studies.models import StudyModels
from ecgjax.studies.pretrained_runs import PretrainedRun
from ecgjax.studies.readouts import MODELS_OF_READOUT, TITLES, models_of, words_of


class ComparedModel(NamedTuple):
    """A model that is cross-validated.

    Attributes:
        name: Key of the model, see `models`.
        title: Title in tables.
        encoder: Title of the model's encoder; empty for models without one.
        labels_only: Title of the same encoder trained with labels alone; empty for models without an encoder.
        identity: Values that determine the model's predictions, besides data set and method, as JSON can hold them.
        models: Function that returns the object that fits the model.
    """

    name: ModelName
    title: str
    encoder: str
    labels_only: str
    identity: Mapping[str, Any]
    models: Callable[[], StudyModels]

    @property
    def folder(self) -> str:
        """Name of the folder that holds the model's files."""
        return re.sub("[#()]", "", re.sub("[ /]", "-", self.title).replace(":", "_"))

    @property
    def against(self) -> tuple[str, ...]:
        """Titles of the models that this one is compared with, if these are in the study; empty without encoder."""
        plain_titles = (*(short_title(name, "") for name in PLAIN), TITLES["measured"])
        twin, words = short_title("random", self.encoder), words_of(self.name)
        grid = short_title("random_grid", self.encoder)
        if self.name.startswith("random"):
            return () if self.name == "random_grid" else plain_titles
        if words and self.name != "finetuned":
            # The readout of the random encoder, and the encoder's own linear probe.
            twin = told_apart(twin, self.name)
        own = [self.title.removesuffix(told_apart("", self.name))] if words else []
        return (twin, self.labels_only, *plain_titles, grid, *own) if self.encoder and self.name != "supervised" else ()


def compared_models(
    runs: Sequence[PretrainedRun],
    recordings: Recordings,
    records: np.ndarray,
    *,
    layer: str,
    readouts: Sequence[str] = (),
    grid: Sequence[str] = (),
    baselines: Sequence[ModelName] = BASELINES,
    alone: RunSettings | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> list[ComparedModel]:
    """Returns all models: those without an encoder, then every encoder after the models that it is compared with.

    The latter are the same encoder at random initialisation and trained with labels alone. Encoders with equal settings
    share these models.

    Args:
        runs: Pretrained encoders.
        recordings: Recordings of the data set.
        records: Record numbers to represent, `int64[n]`.
        layer: Layer whose activations are the embeddings, see `frozen_encoder.Encoder`.
        readouts: Further readouts of the encoders, of `probe.READOUTS`.
        grid: Random encoders to choose from, as in `config.probe.grid`.
        baselines: Keys of the other models to compare with, as in `model_names.BASELINES`.
        alone: Settings of an encoder without pretraining that is compared where there is no run; None for no encoder.
        folder: Folder in which measurements of the ECG are kept, and features of encoders that several models need;
            None to keep them in memory alone.
        progress: Whether progress bars are drawn.
    """
    # Folds choose here, whatever chose in an evaluation of the run.
    chosen: dict[str, Any] = {
        "readouts": tuple(readouts), "grid": tuple(grid), "select": "validation", "strength": None,
    }  # fmt: skip
    further = models_of(ProbeSettings(readouts=tuple(readouts), grid=tuple(grid)))
    of_encoders = folder if further else None

    def study_models(
        settings: RunSettings,
        norm: NormRecords | None = None,
        encoder: frozen_encoder.Encoder | None = None,
        folder: Path | None = None,
    ) -> StudyModels:
        features = LabelledFeatures(recordings, records, folder=folder, norm=norm, progress=progress)
        probe = dataclasses.replace(settings.probe, layer=layer, **chosen)
        settings = dataclasses.replace(settings, probe=probe)
        return StudyModels(features, settings=settings, pretrained=encoder, validated=False, progress=progress)

    def beside(
        settings: RunSettings, title: str, labels_only: str, norm: NormRecords, digest: str | None
    ) -> list[ComparedModel]:
        """Returns an encoder at random initialisation, and the same encoder trained with labels alone, if new."""
        encoder = {"encoder": tree_of(settings.encoder), "batch_norm_records": digest, "layer": layer}
        optimizer = trainer.shared_settings(settings.optimizer)
        trained = encoder | {"training": tree_of(settings.probe.supervised), "optimizer": optimizer}
        # Made once, because compiling a training takes longer than a small training.
        once = functools.cache(functools.partial(study_models, settings, norm, folder=of_encoders))
        twin = short_title("random", title)
        found = [ComparedModel("random", twin, title, labels_only, encoder, once)]
        for name in (each for each in further if each.startswith("random")):
            own = short_title(name, title) if name == "random_grid" else told_apart(twin, name)
            about = encoder | {"readout": name} | _deciding(settings, name, grid=grid)
            found.append(ComparedModel(name, own, title, labels_only, about, once))
        if "supervised" in baselines:
            found.append(ComparedModel("supervised", labels_only, title, labels_only, trained, once))
        return [model for model in found if model.title not in {other.title for other in models}]

    rate_hz, measured = recordings.format.sampling_rate_hz, study_models(RunSettings(), folder=folder)
    plain: Mapping[ModelName, Any] = {
        "intervals": [median_beat.VERSION, rate_hz],
        "boosted": [median_beat.VERSION, rate_hz],
        "median_beat": [median_beat.MEDIAN_BEAT_RATE_HZ, rate_hz],
        "demographics": ["age_years", "sex"],
    }
    asked = [name for name in PLAIN if name in baselines]
    if "measured" in further:
        plain = {**plain, "measured": [median_beat.VERSION, rate_hz, median_beat.MEDIAN_BEAT_RATE_HZ]}
        asked.append("measured")
    models = [
        ComparedModel(name, short_title(name, ""), "", "", {name: plain[name]}, lambda: measured) for name in asked
    ]
    # Without recordings of a pretraining those of the data set set batch norm.
    here = NormRecords(recordings.store.read, records, title="records of this data set")
    if alone is not None and not runs:
        title = str(alone.encoder.name)
        models += beside(alone, title, short_title("supervised", title), here, digests.of_arrays(records))
    titles: dict[str, str] = {}
    encoders = []
    for run in runs:
        digest = _norm_digest(run, records)
        settings = json.dumps([tree_of(run.settings.encoder), digest, layer], sort_keys=True, default=str)
        name = str(run.settings.encoder.name)
        if settings not in titles:
            # Encoders of one name that are not alike are told apart by a number.
            same = sum(title.split(" #")[0] == name for title in titles.values())
            titles[settings] = name + (f" #{same + 1}" if same else "")
        encoders.append(titles[settings])
    for run, title, labels_only in zip(
        runs, encoders, labels_only_titles([run.settings for run in runs], encoders), strict=True
    ):
        digest, norm = _norm_digest(run, records), run.norm or here
        models += beside(run.settings, title, labels_only, norm, digest)
        if run.encoder.keeps_statistics:
            digest = f"stored {digests.of_arrays(*map(np.asarray, jax.tree.leaves(run.encoder.split.stats)))}"
        identity = {"weights": digests.of_weights(run.encoder.split), "batch_norm_records": digest, "layer": layer}
        of_run = functools.cache(functools.partial(study_models, run.settings, norm, run.encoder, of_encoders))
        models.append(ComparedModel("pretrained", run.title, title, labels_only, identity, of_run))
        for name in (each for each in further if each.startswith("pretrained") or each == "finetuned"):
            about = identity | {"readout": name} | _deciding(run.settings, name, grid=grid)
            own = told_apart(run.title, name)
            models.append(ComparedModel(name, own, title, labels_only, about, of_run))
    return models


def _deciding(settings: RunSettings, name: ModelName, *, grid: Sequence[str]) -> dict[str, Any]:
    """Returns the settings that decide what a readout gives, besides those of the encoder.

    Args:
        settings: Settings of the run.
        name: Key of the model.
        grid: Random encoders to choose from.
    """
    probe = settings.probe
    found: dict[str, Any] = {}
    if name == "random_grid":
        found["grid"] = list(grid)
    if name in MODELS_OF_READOUT["attention"]:
        found["attention"] = tree_of(probe.attention)
    if name == "finetuned":
        found |= {"training": tree_of(probe.finetune), "optimizer": trainer.shared_settings(settings.optimizer)}
        found["rate_factors"] = list(probe.rate_factors)
    return found


def _norm_digest(run: PretrainedRun, records: np.ndarray) -> str | None:
    """Returns a digest of the records that set batch norm of a run's random twin; None for one without batch norm.

    Args:
        run: Pretrained encoder.
        records: Numbers of the records of the study, `int64[n]`.
    """
    if not run.encoder.has_batch_norm:
        return None
    return run.norm_digest or digests.of_arrays(records)
