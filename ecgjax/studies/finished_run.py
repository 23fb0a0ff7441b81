"""Parts shared by the commands that evaluate a pretrained encoder: flags, data, checks of what it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags
from ml_collections.config_flags import config_flags

from data_pipelines import command
from data_pipelines.errors import DataError
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.data.moved import if_relative, in_words
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.data.settings import DataSettings
from ecgjax.defaults import RunSettings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.frozen_encoder import Encoder
from ecgjax.leakage import guard
from ecgjax.pages.texts import ANONYMOUS_WORDS
from ecgjax.pretrained.source import chosen_place, known_sets_of_run, settings_of_source
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.batch_norm import STATISTICS
from ecgjax.training.settings import PretrainingSettings

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the pretraining run.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest by default.")
MODEL = flags.DEFINE_string("model", None, "Folder of an exported model (python -m ecgjax.export), in place of a run.")
DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Data set to evaluate on, or several with commas between: short for --config.data.dir. By default that of the run.",
)
_WORDS = (
    "What sets batch norm: stored keeps the encoder's statistics (the default of an exported model), evaluation sets "
    "them by the training records here (the default of a run), pretraining by those that it was pretrained on."
)
STATISTICS_FLAG = flags.DEFINE_enum("statistics", None, STATISTICS, _WORDS)
PRETRAINING_DATA = flags.DEFINE_multi_string(
    "pretraining_data",
    [],
    "Folder where data sets of the pretraining lie now, if not where they were. Repeat for several.",
)
ANONYMOUS = flags.DEFINE_bool("anonymous", False, ANONYMOUS_WORDS)

NOT_LISTED = guard.not_listed("the encoder", among="the validation and test records")

_LABELS_UNKNOWN = "Whether the encoder was pretrained with labels is not known: the model does not say it."

#: Leaves, or beginnings of their paths, that change an evaluation; others of a run's config are of its pretraining.
_EVALUATED = ("data.", "probe.", "optimizer.", "seed")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags of a command line; the configuration's flags are defined from the run or the exported model.

    Ends the program with a message if a flag is wrong.

    Args:
        argv: Command line, with the program's name first.

    Returns:
        The arguments that are no flags, with the program's name first.
    """
    if command.asks_for_help(argv):
        leaves = defaults.leaves().items()
        run_config.show_help(argv, {name: leaf for name, leaf in leaves if name.startswith("probe.")})
    command.parse_flags(argv, known_only=True)
    if not (WORKDIR.value or MODEL.value):
        # Their names may be misspelt, which is then what is told.
        command.parse_flags([word for word in argv if not word.lstrip("-").startswith("config.")])
    try:
        place, exported = chosen_place(WORKDIR.value, MODEL.value), bool(MODEL.value)
        config = load_config(place)
        of = "an evaluation (python -m ecgjax.pretrain --help lists all)"
        if not exported:
            of = f"this run ({place / run_config.CONFIG_FILE} has all that it was begun with)"
        # Defining another flag makes all of them unreadable until they are parsed again.
        run_config.check_leaves(argv, config, of=of)
        given = config_flags.DEFINE_config_dict("config", config, sys_argv=run_config.without_none(argv))
    except (ConfigError, DataError) as error:  # A bucket may hold what is evaluated.
        command.fail(str(error))
    rest = command.parse_flags(run_config.without_none(argv))
    run_config.set_none(given.value, argv)
    return rest


def load_config(place: str | Path) -> ml_collections.ConfigDict:
    """Returns the config that an evaluation begins with: a run's own, or the defaults around an exported encoder.

    Leaves that are newer than a run have their defaults.

    Raises:
        ConfigError: The folder holds neither, or is damaged.
    """
    config = defaults.get_config()
    for leaf, value in flat(tree_of(settings_of_source(place))).items():
        config.update_from_flattened_dict({leaf: value})
    return config


def with_flags(settings: RunSettings, own: RunSettings, *, task: str | None, dataset: str | None) -> RunSettings:
    """Returns settings with the question of `--task` and the data set of `--dataset`, where these are given.

    Args:
        settings: Settings from the command line.
        own: Settings that the evaluation began with, of the run or of the exported model.
        task: Value of `--task`; None where it is not given.
        dataset: Value of `--dataset`; None where it is not given.

    Raises:
        ConfigError: The command line asks another question by `--config.probe.task`, or names other data by
            `--config.data.dir`.
    """
    if task:
        if settings.probe.task not in (task, own.probe.task):
            raise ConfigError(
                f"--task={task!r} and --config.probe.task={settings.probe.task!r} are two questions; give one"
            )
        settings = dataclasses.replace(settings, probe=dataclasses.replace(settings.probe, task=task))
    if dataset:
        if settings.data.dir not in (dataset, own.data.dir):
            raise ConfigError(
                f"--dataset={dataset} and --config.data.dir={settings.data.dir} are two data sets; give one (several "
                "are joined with commas between)"
            )
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, dir=dataset))
    return settings


def check_model_settings(settings: RunSettings, own: RunSettings) -> None:
    """Refuses settings of a pretraining where an exported model is evaluated, since they would change nothing.

    Args:
        settings: Settings from the command line.
        own: Settings that the evaluation began with.

    Raises:
        ConfigError: Such a setting was changed.
    """
    before = flat(tree_of(own))
    for name, value in flat(tree_of(settings)).items():
        if value != before.get(name) and not name.startswith(_EVALUATED):
            raise ConfigError(
                f"config.{name}={value!r} is of a pretraining, and changes nothing where an exported model is "
                "evaluated: leave it out"
            )


def open_judged(data: DataSettings, own: DataSettings, place: Path) -> Recordings:
    """Opens the recordings of an evaluation; where those of a run are gone, the message says which they were.

    Args:
        data: Settings of the evaluation's data.
        own: Settings that the evaluation began with.
        place: Folder of the run or of the exported model.

    Raises:
        ConfigError: No data set is named.
        DataError: A data set cannot be opened, or is not what the settings need.
    """
    if not data.dir:
        raise ConfigError(f"--dataset=DIR, the data set to evaluate {place} on, is needed (--help tells more)")
    try:
        return open_recordings(data)
    except DataError as error:
        if data.dir != own.dir or all(Path(each).exists() for each in data.directories):
            raise
        raise DataError(
            f"--workdir={place} is evaluated on the recordings of its pretraining, "
            f"{in_words(known_sets_of_run(place))}, and they are not where they were: {error}"
            f"{if_relative(data.directories)}. Say where they lie now with --dataset=DIR, or name there another data "
            "set to evaluate on"
        ) from error


def check_encoder(own: EncoderSettings, asked: EncoderSettings, *, workdir: str) -> None:
    """Refuses an encoder that differs from the run's.

    Args:
        own: Settings of the run's encoder.
        asked: Encoder settings of the evaluation.
        workdir: Folder of the run, for the message.

    Raises:
        ConfigError: The settings differ.
    """
    if own != asked:
        raise ConfigError(
            f"config.encoder is not that of the run in {workdir}: the baselines would be other networks than the "
            "pretrained one; leave config.encoder as it is, or pretrain with it in another --workdir"
        )


def guarded(
    own: PretrainingSettings | None,
    recordings: Recordings,
    *,
    overlaps: str,
    encoder: Encoder,
    records: np.ndarray,
    trained_folds: Mapping[str, Collection[int]],
    not_listed: str = NOT_LISTED,
    pretraining_data: Sequence[str] = (),
) -> tuple[Recordings, tuple[str, ...]]:
    """Finds the records of an evaluation that were seen in pretraining, and drops, marks or refuses them.

    Args:
        own: Settings of the pretraining; None where they are not known.
        recordings: Recordings of the evaluation.
        overlaps: Treatment of records seen in pretraining, `config.probe.overlaps`: `"drop"` takes them out of the
            split, `"mark"` only reports them, `"refuse"` raises.
        encoder: Pretrained encoder.
        records: Validation and test records, `int64[n]`.
        trained_folds: Folds that the pretraining trained on, by the fingerprint of each of its data sets.
        not_listed: Caution on an encoder without a list of its pretraining records.
        pretraining_data: Folders in which the data sets of the pretraining may lie, beside those that it names.

    Returns:
        Recordings, without such records in their split if they are to be dropped; and what a reader must know, one
        sentence each: whether records were seen in pretraining, and how copies were looked for.

    Raises:
        ConfigError: There are such records and they are to be refused, or the setting is unknown.
        CheckpointError: The list of pretraining records is missing or damaged, and `overlaps` is not `"mark"`.
    """
    guard.check_overlaps(overlaps)
    if encoder.trained_on is None:
        # Without a list there is no more to compare than data sets and folds.
        recordings, told = guard.guard_by_folds(
            recordings, records, trained_folds=trained_folds, overlaps=overlaps, leaf="config.probe.overlaps"
        )
        found = (*_of_other_data(recordings, encoder, folds_known=own is not None), *told, not_listed)
    else:
        trained_on, found = guard.opened_list(encoder.trained_on, overlaps=overlaps)
        if trained_on is not None:
            directories = [*(own.data.directories if own else ()), *pretraining_data]
            recordings, found = guard.guard(recordings, trained_on, records, overlaps=overlaps, directories=directories)
    labels: tuple[str, ...] = (_LABELS_UNKNOWN,)
    if own is not None:
        looked = guard.watched(own.health.task, chooses=own.chosen_by_health)
        labels = (*guard.labelled(labels_looked_at(own.column_use)), *looked)
    return recordings, (*found, *guard.unlinked(recordings), *labels)


def _of_other_data(recordings: Recordings, encoder: Encoder, *, folds_known: bool) -> list[str]:
    """Returns sentences on what data sets alone reveal about records seen in pretraining.

    Data sets are recognised by their contents, wherever they are stored.

    Args:
        recordings: Recordings of the evaluation.
        encoder: Pretrained encoder, with the fingerprints of its data sets.
        folds_known: Whether the folds of the pretraining are known.
    """
    names: dict[bool, list[str]] = {True: [], False: []}
    for each in recordings.datasets:
        names[each.fingerprint in encoder.pretrained_on].append(each.card["name"])
    found = []
    if names[False]:
        which = f"other data than {' and '.join(names[False])}" if names[True] else "other data"
        found.append(
            f"The encoder was pretrained on {which}: whether it has seen patients or signals of these is not known."
        )
    if names[True] and not folds_known:
        found.append(
            f"The encoder was pretrained on recordings of {' and '.join(names[True])} itself; of which folds is not "
            "known."
        )
    return found
