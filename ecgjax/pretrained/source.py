"""A pretrained encoder from which a training or an evaluation goes on: the folder of a run, or an exported model."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.buckets.addresses import is_remote
from data_pipelines.buckets.finished_folders import fetched_folder, fetched_if_finished
from data_pipelines.errors import DataError
from data_pipelines.records import SignalFormat
from data_pipelines.system.digests import file_digest
from ecgjax import defaults
from ecgjax.bucket_runs.workdirs import fetched
from ecgjax.config import earlier, run_config
from ecgjax.data.moved import KnownSet, known_sets
from ecgjax.defaults import RunSettings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features.frozen_encoder import Encoder, load_encoder
from ecgjax.export.file_names import CONFIG_FILE, FORMAT
from ecgjax.export.licence_terms import data_of_training
from ecgjax.export.preprocessor_file import preprocessor
from ecgjax.export.tensors import digest_of, flat_tensors
from ecgjax.leakage import guard
from ecgjax.leakage.trained_on import RECORDS_FILE, PretrainingRecords, read_pretraining_records
from ecgjax.model.applied import Model
from ecgjax.model.description import read_description
from ecgjax.model.exported_folder import is_of_a_run, model_of_fine_tuning, open_folder
from ecgjax.model.json_file import read_json
from ecgjax.model.load import load
from ecgjax.model.preprocessor import Preprocessor, read_preprocessor
from ecgjax.training.about import ABOUT_FILE, About
from ecgjax.training.checkpoints.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """A pretrained encoder with what is known of its training.

    Attributes:
        place: Folder that the encoder was read from.
        encoder: Encoder; its `trained_on` is None where no list of the pretraining's records came with it.
        settings: Settings of the encoder.
        statistics: Origin of its batch-norm statistics: `"running"` for those of training, `"recalibrated"` for those
            of unaugmented recordings, `"none"` for an encoder without batch norm.
        format: Rate and length of the recordings that it was trained on; None for a run that is older than what runs
            say of themselves.
        data: Statements about the data sets of the pretraining, one for each: name, fingerprint, counts, whether
            simulated, and licence; then those of the labels that it was trained with. Empty for such a run.
        weights_digest: Digest of parameters and statistics.
        run: Settings of the run; None for an exported model.
        training: What an exported model says of its training; empty for a run.
        model: Exported model; None for a run.
        read_preparation: Function that reads the preparation of these recordings; None where it was not recorded.
        begun_from: Statements about the encoder whose weights the training began with (`beginning.py`); None for
            random ones.
        about: What a run's checkpoint says of itself; None for an exported model, and for a run that says nothing.
    """

    place: Path
    encoder: Encoder
    settings: EncoderSettings
    statistics: str
    format: SignalFormat | None
    data: tuple[Mapping[str, Any], ...]
    weights_digest: str
    run: RunSettings | None
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Model | None = None
    read_preparation: Callable[[], Preprocessor] | None = None
    begun_from: Mapping[str, Any] | None = None
    about: About | None = None

    @property
    def title(self) -> str:
        """Title of the source, the last part of its path."""
        return self.place.resolve().name

    @functools.cached_property
    def preprocessor(self) -> Preprocessor | None:
        """Preparation of the recordings that the encoder was trained on; None where it was not recorded.

        Raises:
            ConfigError: It is one that this version of ecgjax cannot repeat.
        """
        return None if self.read_preparation is None else self.read_preparation()

    @functools.cached_property
    def recorded(self) -> RunSettings | None:
        """Settings of the pretraining, of an exported model without paths; None where they cannot be read."""
        if self.run is not None:
            return self.run
        try:
            return settings_recorded(self.training["settings"])
        except (ConfigError, DataError, KeyError, TypeError, AttributeError):
            return None

    @property
    def known_sets(self) -> tuple[KnownSet, ...]:
        """Data sets of the pretraining, without those that its weights began with; empty where not recorded."""
        own = [each for each in self.data if "begun_from" not in each]
        return known_sets(own, self.encoder.pretrained_on)

    @property
    def trained_folds(self) -> dict[str, tuple[int, ...]]:
        """Folds that the pretraining trained on, by the fingerprints of its own data sets; empty where not recorded."""
        folds = () if self.recorded is None else self.recorded.data.train_folds
        # Other rows are of the labels that a model was trained with, or of the encoder that its weights began with.
        rows = self.data if self.model is None else self.model.description.data
        own = [str(each["fingerprint"]) for each in rows if "begun_from" not in each and "fingerprint" in each]
        return dict.fromkeys(own or (self.encoder.pretrained_on if self.model is None else ()), folds)

    @property
    def directories(self) -> tuple[str, ...]:
        """Folders in which the data sets of a run's pretraining lay; empty for an exported model."""
        return () if self.run is None else self.run.data.directories

    def not_listed(self, name: str, *, among: str) -> str:
        """Returns the caution on an encoder that has no list of its pretraining records.

        Args:
            name: Name of the encoder within a sentence.
            among: Records of the evaluation, in words.
        """
        if self.run is not None:
            return guard.not_listed(name, among=among)
        return guard.unchecked(
            f"{name}, the exported model {self.place}, has no signatures of the records that it was pretrained on",
            among=among,
            remedy="python -m ecgjax.export --with_signatures writes them with an encoder, and python -m "
            "ecgjax.finetune --config.with_signatures with a model that answers",
        )

    @property
    def simulated(self) -> bool:
        """Whether any data set of the pretraining was simulated."""
        return any(each.get("simulated") for each in self.data)


def open_source(place: str | Path, *, step: int | None = None, layer: str | None = None) -> EncoderSource:
    """Opens a pretrained encoder.

    Args:
        place: Folder of a pretraining run, or folder that `python -m ecgjax.export` wrote; it may lie in a bucket.
        step: Step of the run's checkpoint; the latest by default. An exported model has one step.
        layer: Layer whose activations are the embedding; the one that the place states by default.

    Raises:
        ConfigError: The place is neither, is damaged, or has no such step or layer.
        CheckpointError: The run has no such checkpoint, or a damaged one.
    """
    path = Path(_local(str(place)))
    if is_run(path):
        return _of_run(path, step=step, layer=layer)
    return _of_export(path, step=step, layer=layer)


def _local(place: str) -> str:
    """Returns a folder on this machine with what lies at a place, which may be an address in a bucket."""
    flag = "config.init.source"
    if not is_remote(place):
        return place
    return fetched_if_finished(place, flag=flag) or fetched(place, flag=flag)


def chosen_place(workdir: str | None, model: str | None) -> Path:
    """Returns the folder of the run or of the exported model that is evaluated.

    Args:
        workdir: Value of `--workdir`.
        model: Value of `--model`.

    Raises:
        ConfigError: Neither or both are given, or one is of the other kind.
    """
    if bool(workdir) == bool(model):
        raise ConfigError(
            f"{'one of the two' if workdir else 'something'} to evaluate is needed: --workdir=DIR, the folder of a "
            "pretraining run, or --model=DIR, an exported model (--help tells more)"
        )
    workdir = workdir and fetched(workdir)
    model = model and fetched_folder(model, flag="model")
    if workdir and is_export(workdir):
        raise ConfigError(f"--workdir={workdir} is an exported model and no run: give it as --model={workdir}")
    for flag, place in (("workdir", workdir), ("model", model)):
        if place and (own := model_of_fine_tuning(place)) is not None:
            raise ConfigError(f"--{flag}={place} is the folder of a fine-tuning run: give its model as --model={own}")
    if model and is_run(model):
        raise ConfigError(f"--model={model} is the folder of a run and no exported model: give it as --workdir={model}")
    return Path(workdir or model or "")


def is_export(place: str | Path) -> bool:
    """Returns whether a folder says that it is an exported model.

    Raises:
        ConfigError: Its configuration is no JSON object.
    """
    config = Path(place) / CONFIG_FILE
    # A folder that cannot be entered is told by whoever opens it, as a run or as an exported model.
    return os.path.isfile(config) and read_json(config).get("format") == FORMAT


def settings_of_source(place: str | Path) -> RunSettings:
    """Returns the settings that an evaluation of a source begins with, without reading weights.

    Those of a run are its own. An exported model has those of its encoder and the layer that it was exported with, and
    all others at their defaults.

    Raises:
        ConfigError: The place is neither a run nor an exported model, or is damaged.
    """
    if not is_export(place):
        return defaults.settings_of_run(place)
    description, plain = read_description(open_folder(place)), RunSettings()
    probe = dataclasses.replace(plain.probe, layer=description.layer)
    return dataclasses.replace(plain, encoder=description.settings, probe=probe)


def known_sets_of_run(workdir: str | Path, *, step: int | None = None) -> tuple[KnownSet, ...]:
    """Returns the data sets that a run was pretrained on, as its checkpoint knows them; empty where it does not.

    Args:
        workdir: Folder of the run.
        step: Step of the checkpoint; the latest by default.
    """
    try:
        with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
            latest = checkpoints.latest_step() if step is None else step
            metadata = {} if latest is None else checkpoints.metadata(latest)
    except CheckpointError:
        return ()
    return known_sets((metadata.get("about") or {}).get("data", ()), metadata.get("datasets", ()))


def is_run(place: str | Path) -> bool:
    """Returns whether a folder is that of a pretraining run.

    Raises:
        ConfigError: Its configuration is no JSON object.
    """
    path, config = Path(place), Path(place) / CONFIG_FILE
    return os.path.isdir(run_config.checkpoint_dir(path)) or (os.path.isfile(config) and is_of_a_run(config))


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
        format=None if about is None else _format_of(about),
        data=() if about is None else tuple(data_of_training(about)),
        weights_digest=digest_of(tensors),
        run=settings,
        read_preparation=None if about is None else functools.partial(_preparation, path, about),
        begun_from=None if about is None else about.get("begun_from"),
        about=about,
    )


def _format_of(about: About) -> SignalFormat:
    signals = about["signals"]
    return SignalFormat(sampling_rate_hz=signals["sampling_rate_hz"], num_samples=signals["num_samples"])


def _preparation(path: Path, about: About) -> Preprocessor:
    return read_preprocessor(path / ABOUT_FILE, preprocessor(about))


def settings_recorded(leaves: Mapping[str, Any]) -> RunSettings:
    """Returns the settings that an exported model keeps of its training.

    Args:
        leaves: Values by their paths in a config, such as `probe.task`.

    Raises:
        ConfigError: They are of another version, or a path leads below what is no section.
    """
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *above, name = path.split(".")
        inner = tree
        for section in above:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{path} is below {section}, which is no section")
        inner[name] = tuple(value) if isinstance(value, list) else value
    return defaults.settings_of(earlier.translated(tree))


def _of_export(path: Path, *, step: int | None, layer: str | None) -> EncoderSource:
    model = load(path)
    known = model.training.get("steps", 0)
    if isinstance(known, bool) or not isinstance(known, int):
        raise ConfigError(f"{path / CONFIG_FILE}: training.steps={ascii(known)[:60]} is no number; export it again")
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
        format=model.preprocessor.recipe.signal_format,
        data=data,
        weights_digest=model.weights_digest,
        run=None,
        training=model.training,
        model=model,
        read_preparation=lambda: model.preprocessor,
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
