"""What commands that evaluate a finished run have in common: their flags, and what is said about its records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import ml_collections
from absl import app, flags
from ml_collections.config_flags import config_flags

from ecgjax import configuration, encoders, optim
from ecgjax.recordings import Recordings

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the pretraining run.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest by default.")

# Sections of which an evaluation may set what the run left empty; the others decided the pretraining.
_SETTABLE = ("encoder.", "optimizer.", "probe.")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; those of the configuration are known once the workdir is."""
    flags.FLAGS(argv, known_only=True)
    if WORKDIR.value is None:
        _leave("--workdir=DIR, the folder of a pretraining run, is needed (--help tells more)")
    try:
        config = configuration.load_resolved(WORKDIR.value)
    except configuration.ConfigError as error:
        _leave(str(error))
    flags.FLAGS.unparse_flags()
    typed = {"encoder": encoders.default_config(), "optimizer": optim.default_config()}
    for name, value in configuration.leaves(config.to_dict()).items():
        if value is None and name.startswith(_SETTABLE):
            section, _, leaf = name.partition(".")
            known = typed.get(section, {})
            # JSON does not know the type of what was left empty; in config.probe all of it is numbers.
            kind = known.get_type(leaf) if leaf in known else float
            config[section].update_from_flattened_dict({leaf: ml_collections.config_dict.placeholder(kind)})
    try:
        config_flags.DEFINE_config_dict("config", config, sys_argv=argv)
    except AttributeError as error:
        known = ", ".join(configuration.leaves(config.to_dict()))
        _leave(f"no setting {error} in this run's configuration, which has {known}")
    return app.parse_flags_with_usage(argv)


def _leave(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(configuration.EXIT_USER_ERROR)


def check_encoder(own: ml_collections.ConfigDict, config: ml_collections.ConfigDict, *, workdir: str) -> None:
    """Refuses an encoder that differs from the run's.

    Raises:
        ConfigError: it does.
    """
    if own.encoder.to_dict() != config.encoder.to_dict():
        raise configuration.ConfigError(
            f"config.encoder is not that of the run in {workdir}: the baselines would be other networks than the "
            "pretrained one; leave config.encoder as it is, or pretrain with it in another --workdir"
        )


def cautions(
    own: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    recordings: Recordings,
    *,
    pretrained_on: Sequence[str],
) -> tuple[str, ...]:
    """Says what a reader must know: whether records were seen in pretraining, and how copies were looked for.

    Args:
        own: the pretraining's configuration.
        config: the evaluation's.
        recordings: of the evaluation.
        pretrained_on: fingerprints of the pretraining's data sets: they are known by their contents, wherever they lie.
    """
    names = {
        known: [each.card["name"] for each in recordings.datasets if (each.fingerprint in pretrained_on) == known]
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
    if not recordings.linked and not recordings.simulated:
        found.append(
            "Only equal recordings were kept apart between the splits; python -m data_pipelines.link finds copies at "
            "another rate, gain or cut too (config.data.links)."
        )
    return tuple(found)
