"""What commands that evaluate a finished run have in common: their flags, and what is said about its records."""

from __future__ import annotations

from pathlib import Path

import ml_collections
import numpy as np
from absl import flags
from ml_collections.config_flags import config_flags

from data_pipelines import command
from ecgjax import defaults, encoders, optim
from ecgjax.config import run_config
from ecgjax.data.recordings import Recordings
from ecgjax.errors import CheckpointError
from ecgjax.evaluation.features.frozen_encoder import Encoder
from ecgjax.leakage import guard

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the pretraining run.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest by default.")

# Sections of which an evaluation may set what the run left empty; the others decided the pretraining.
_SETTABLE = ("encoder.", "optimizer.", "probe.")

NOT_LISTED = (
    "Which records the encoder was pretrained on is not listed beside its checkpoints, which are older than such "
    "lists: copies and patients of theirs may be among the validation and test records. The command that pretrained "
    "it, given once more, adds the list."
)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; those of the configuration are known once the workdir is."""
    command.parse_flags(argv, known_only=True)
    if WORKDIR.value is None:
        command.fail("--workdir=DIR, the folder of a pretraining run, is needed (--help tells more)")
    workdir = WORKDIR.value  # Flags are to be parsed again, and cannot be asked until then.
    try:
        config = load_config(workdir)
    except run_config.ConfigError as error:
        command.fail(str(error))
    flags.FLAGS.unparse_flags()
    typed = {"encoder": encoders.default_config(), "optimizer": optim.default_config()}
    for name, value in run_config.leaves(config.to_dict()).items():
        if value is None and name.startswith(_SETTABLE):
            section, _, leaf = name.partition(".")
            known = typed.get(section, {})
            # JSON does not know the type of what was left empty; in config.probe all of it is numbers.
            kind = known.get_type(leaf) if leaf in known else float
            config[section].update_from_flattened_dict({leaf: ml_collections.config_dict.placeholder(kind)})
    known = Path(workdir) / run_config.CONFIG_FILE
    try:
        run_config.check_leaves(argv, config, of=f"this run ({known} has all that it was begun with)")
        config_flags.DEFINE_config_dict("config", config, sys_argv=argv)
    except run_config.ConfigError as error:
        command.fail(str(error))
    except (AttributeError, KeyError) as error:
        command.fail(str(error))
    return command.parse_flags(argv)


def load_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """Reads the config that a run was trained with, and gives `config.probe` the leaves that are newer than the run.

    Raises:
        ConfigError: as `run_config.load_resolved`.
    """
    config = run_config.load_resolved(workdir)
    _complete(config.probe, defaults.get_config().probe)
    return config


def _complete(config: ml_collections.ConfigDict, complete: ml_collections.ConfigDict) -> None:
    for name, value in complete.items():
        if name not in config:
            config[name] = value
        elif isinstance(value, ml_collections.ConfigDict):
            _complete(config[name], value)


def check_encoder(own: ml_collections.ConfigDict, config: ml_collections.ConfigDict, *, workdir: str) -> None:
    """Refuses an encoder that differs from the run's.

    Raises:
        ConfigError: it does.
    """
    if own.encoder.to_dict() != config.encoder.to_dict():
        raise run_config.ConfigError(
            f"config.encoder is not that of the run in {workdir}: the baselines would be other networks than the "
            "pretrained one; leave config.encoder as it is, or pretrain with it in another --workdir"
        )


def guarded(
    own: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    recordings: Recordings,
    *,
    encoder: Encoder,
    records: np.ndarray,
) -> tuple[Recordings, tuple[str, ...]]:
    """Keeps records that were seen in pretraining out of an evaluation, as `config.probe.overlaps` says.

    Args:
        own: the pretraining's configuration.
        config: the evaluation's.
        recordings: of the evaluation.
        encoder: pretrained.
        records: `int64[n]`, what is validated and tested on.

    Returns:
        The recordings, without such records in their split if these are to be dropped; and what a reader must know:
        whether records were seen in pretraining, and how copies were looked for, a sentence each.

    Raises:
        ConfigError: there are such records and they are to be refused, or the setting is unknown.
        CheckpointError: the list of what was pretrained on is missing or damaged, unless that too is to be marked.
    """
    overlaps = guard.overlaps_setting(config)
    if encoder.trained_on is None:
        found = (*_seen_folds(own, config, recordings, encoder), NOT_LISTED)
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
    found += (*guard.unlinked(recordings), *guard.labelled(own))
    return recordings, found


def _seen_folds(
    own: ml_collections.ConfigDict, config: ml_collections.ConfigDict, recordings: Recordings, encoder: Encoder
) -> list[str]:
    """Says what data sets and folds alone tell: the former are known by their contents, wherever they lie."""
    names = {
        known: [
            each.card["name"] for each in recordings.datasets if (each.fingerprint in encoder.pretrained_on) == known
        ]
        for known in (True, False)
    }
    found = []
    if names[False]:
        which = f"other data than {' and '.join(names[False])}" if names[True] else "other data"
        found.append(
            f"The encoder was pretrained on {which}: whether it has seen patients or signals of these is not known."
        )
    judged = {*config.data.val_folds, *config.data.test_folds}
    seen = sorted(judged & set(own.data.train_folds))
    if names[True] and seen:
        folds = ", ".join(map(str, seen))
        found.append(f"The encoder was pretrained on the signals of fold {folds}, which is validation or test here.")
    return found
