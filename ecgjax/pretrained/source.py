"""A pretrained encoder from which a training or an evaluation goes on: the folder of a run, or an exported model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.records import SignalFormat
from data_pipelines.system.digests import file_digest
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.defaults import RunSettings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features.frozen_encoder import Encoder, load_encoder
from ecgjax.export.file_names import CONFIG_FILE
from ecgjax.export.licence_terms import data_of_training
from ecgjax.export.preprocessor_file import preprocessor
from ecgjax.export.tensors import digest_of, flat_tensors
from ecgjax.leakage.trained_on import RECORDS_FILE, PretrainingRecords, read_pretraining_records
from ecgjax.model.exported_folder import is_of_a_run
from ecgjax.model.json_file import read_json
from ecgjax.model.load import load
from ecgjax.model.preprocessor import Preprocessor, read_preprocessor
from ecgjax.training.about import ABOUT_FILE
from ecgjax.training.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """A pretrained encoder with what is known of its training.

    Attributes:
        place: Folder that the encoder was read from.
        encoder: Encoder; its `trained_on` is None where no list of the pretraining's records came with it.
        settings: Settings of the encoder.
        statistics: Origin of its batch-norm statistics: `"running"` for those of training, `"recalibrated"` for those
            of unaugmented recordings, `"none"` for an encoder without batch norm.
        preprocessor: Preparation of the recordings that it was trained on; None for a run that is older than what runs
            say of themselves.
        data: Statements about the data sets of the pretraining, one for each: name, fingerprint, counts, whether
            simulated, and licence; then those of the labels that it was trained with. Empty for such a run.
        weights_digest: Digest of parameters and statistics.
        run: Settings of the run; None for an exported model.
        begun_from: Statements about the encoder whose weights the training began with (`beginning.py`); None for
            random ones.
    """

    place: Path
    encoder: Encoder
    settings: EncoderSettings
    statistics: str
    preprocessor: Preprocessor | None
    data: tuple[Mapping[str, Any], ...]
    weights_digest: str
    run: RunSettings | None
    begun_from: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """Title of the source, the last part of its path."""
        return self.place.resolve().name

    @property
    def format(self) -> SignalFormat | None:
        """Rate and length of the recordings that the encoder was trained on, where they are known."""
        return None if self.preprocessor is None else self.preprocessor.recipe.signal_format

    @property
    def simulated(self) -> bool:
        """Whether any data set of the pretraining was simulated."""
        return any(each.get("simulated") for each in self.data)


def open_source(place: str | Path, *, step: int | None = None, layer: str | None = None) -> EncoderSource:
    """Opens a pretrained encoder.

    Args:
        place: Folder of a pretraining run, or folder that `python -m ecgjax.export` wrote.
        step: Step of the run's checkpoint; the latest by default. An exported model has one step.
        layer: Layer whose activations are the embedding; the one that the place states by default.

    Raises:
        ConfigError: The place is neither, is damaged, or has no such step or layer.
        CheckpointError: The run has no such checkpoint, or a damaged one.
    """
    path = Path(place)
    if _is_run(path):
        return _of_run(path, step=step, layer=layer)
    return _of_export(path, step=step, layer=layer)


def _is_run(path: Path) -> bool:
    config = path / CONFIG_FILE
    return run_config.checkpoint_dir(path).is_dir() or (config.is_file() and is_of_a_run(config))


def _of_run(path: Path, *, step: int | None, layer: str | None) -> EncoderSource:
    settings = defaults.settings_of_run(path)
    encoder = load_encoder(path, step=step, layer=layer)
    with Checkpoints(run_config.checkpoint_dir(path), read_only=True) as checkpoints:
        about = checkpoints.metadata(encoder.step).get("about")
    tensors = flat_tensors(encoder.split)
    return EncoderSource(
        place=path,
        encoder=encoder,
        settings=settings.encoder,
        statistics="running" if any(name.startswith("stats/") for name in tensors) else "none",
        preprocessor=None if about is None else read_preprocessor(path / ABOUT_FILE, preprocessor(about)),
        data=() if about is None else tuple(data_of_training(about)),
        weights_digest=digest_of(tensors),
        run=settings,
        begun_from=None if about is None else about.get("begun_from"),
    )


def _of_export(path: Path, *, step: int | None, layer: str | None) -> EncoderSource:
    model = load(path)
    known = int(model.training.get("steps", 0))
    if step not in (None, known):
        raise ConfigError(f"{path}: is an export of step {known}, and step {step} was asked for; leave the step out")
    # An encoder that was trained with labels has seen their recordings too.
    labelled = () if model.head is None else model.head.data
    data = tuple(each for each in (*model.description.data, *labelled) if isinstance(each, Mapping))
    encoder = Encoder(
        model.split,
        num_leads=model.description.num_leads,
        layer=model.layer if layer is None else layer,
        step=known,
        pretrained_on=tuple(str(each["fingerprint"]) for each in data if "fingerprint" in each),
        trained_on=_listed(path),
    )
    return EncoderSource(
        place=path,
        encoder=encoder,
        settings=model.description.settings,
        statistics=model.description.statistics,
        preprocessor=model.preprocessor,
        data=data,
        weights_digest=model.weights_digest,
        run=None,
        begun_from=model.training.get("begun_from"),
    )


def _listed(folder: Path) -> Callable[[], PretrainingRecords] | None:
    """Returns a function that opens the list of the pretraining's records; None for an export without it."""
    files = read_json(folder / CONFIG_FILE)["files"]
    if RECORDS_FILE not in files:
        return None
    return functools.partial(_open_listed, folder / RECORDS_FILE, digest=files[RECORDS_FILE].get("sha256"))


def _open_listed(path: Path, *, digest: str | None) -> PretrainingRecords:
    remedy = "copy the folder again, or export it again"
    found = read_pretraining_records(path, remedy=remedy)
    if file_digest(path) != digest:
        raise CheckpointError(f"{path}: is not the list that {CONFIG_FILE} describes; {remedy}")
    return found
