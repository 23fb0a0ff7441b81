"""Parts shared by the commands that evaluate a finished run: flags, and checks of the records it was trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags
from ml_collections.config_flags import config_flags

from data_pipelines import command
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.data.recordings import Recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.data.settings import DataSettings
from ecgjax.defaults import RunSettings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features.frozen_encoder import Encoder
from ecgjax.leakage import guard
from ecgjax.settings.sections import flat, tree_of
from ecgjax.training.settings import PretrainingSettings

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the pretraining run.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest by default.")

NOT_LISTED = guard.not_listed("the encoder", among="the validation and test records")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags of a command line; the configuration's flags are defined from the config of the run's workdir.

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
    if not WORKDIR.value:
        command.fail("--workdir=DIR, the folder of a pretraining run, is needed (--help tells more)")
    # Defining another flag makes all of them unreadable until they are parsed again.
    workdir = WORKDIR.value
    try:
        config = load_config(workdir)
        known = Path(workdir) / run_config.CONFIG_FILE
        run_config.check_leaves(argv, config, of=f"this run ({known} has all that it was begun with)")
        given = config_flags.DEFINE_config_dict("config", config, sys_argv=run_config.without_none(argv))
    except ConfigError as error:
        command.fail(str(error))
    rest = command.parse_flags(run_config.without_none(argv))
    run_config.set_none(given.value, argv)
    return rest


def load_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """Reads the config that a run was trained with; leaves newer than the run have their defaults.

    Raises:
        ConfigError: The folder holds no run, or its config is damaged.
    """
    config = defaults.get_config()
    for leaf, value in flat(tree_of(defaults.settings_of_run(workdir))).items():
        config.update_from_flattened_dict({leaf: value})
    return config


def with_question(settings: RunSettings, question: str | None, *, workdir: str | Path) -> RunSettings:
    """Returns settings whose `probe.task` is the question of `--task`, if that is given.

    Args:
        settings: Settings of the run, perhaps changed by the command line.
        question: Value of `--task`; None where it is not given.
        workdir: Folder of the run.

    Raises:
        ConfigError: The command line asks another question by `--config.probe.task`.
    """
    if not question:
        return settings
    if settings.probe.task not in (question, defaults.settings_of_run(workdir).probe.task):
        raise ConfigError(
            f"--task={question!r} and --config.probe.task={settings.probe.task!r} are two questions; give one"
        )
    return dataclasses.replace(settings, probe=dataclasses.replace(settings.probe, task=question))


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
    own: PretrainingSettings,
    data: DataSettings,
    recordings: Recordings,
    *,
    overlaps: str,
    encoder: Encoder,
    records: np.ndarray,
) -> tuple[Recordings, tuple[str, ...]]:
    """Finds the records of an evaluation that were seen in pretraining, and drops, marks or refuses them.

    Args:
        own: Settings of the pretraining.
        data: Settings of the evaluation's data.
        recordings: Recordings of the evaluation.
        overlaps: Treatment of records seen in pretraining, `config.probe.overlaps`: `"drop"` takes them out of the
            split, `"mark"` only reports them, `"refuse"` raises.
        encoder: Pretrained encoder.
        records: Validation and test records, `int64[n]`.

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
        found = (*_seen_folds(own.data, data, recordings, encoder), NOT_LISTED)
    else:
        try:
            trained_on = encoder.trained_on()
        except CheckpointError as error:
            if overlaps != "mark":
                raise
            found = (f"Whether validation and test records were pretrained on is not known: {error}.",)
        else:
            directories = [directory.strip() for directory in own.data.dir.split(",")]
            recordings, found = guard.guard(recordings, trained_on, records, overlaps=overlaps, directories=directories)
    found += (*guard.unlinked(recordings), *guard.labelled(labels_looked_at(own.column_use)))
    return recordings, found


def _seen_folds(own: DataSettings, data: DataSettings, recordings: Recordings, encoder: Encoder) -> list[str]:
    """Returns sentences on what data sets and folds alone reveal about records seen in pretraining.

    Data sets are recognised by their contents, wherever they are stored.

    Args:
        own: Data settings of the pretraining.
        data: Data settings of the evaluation.
        recordings: Recordings of the evaluation.
        encoder: Pretrained encoder, with the fingerprints of its data sets.
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
    seen = sorted({*data.val_folds, *data.test_folds} & {*own.train_folds})
    if names[True] and seen:
        folds = ", ".join(map(str, seen))
        found.append(f"The encoder was pretrained on the signals of fold {folds}, which is validation or test here.")
    return found
