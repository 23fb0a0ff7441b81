"""The config of a command line that another command gives: its file with the changes by `--config.LEAF=VALUE`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections.config_flags import config_flags

from ecgjax.config import earlier, recipes, run_config
from ecgjax.errors import ConfigError


def config_of(config: str, changes: Sequence[str]) -> ml_collections.ConfigDict:
    """Returns the config of a file with changes, as the command line of a run makes it.

    Args:
        config: Path of a config file or name of a recipe, with or without `:VARIANT`.
        changes: Arguments `--config.LEAF=VALUE`.

    Raises:
        ConfigError: There is no such file, variant or leaf, or a value is not of the leaf's type.
    """
    values, arguments = flags.FlagValues(), ["command", *changes]
    try:
        earlier.check_retired(change.lstrip("-").partition("=")[0].removeprefix("config.") for change in changes)
        recipe = recipes.load_recipe(config)
        run_config.check_leaves(arguments, recipe, of=config)
        typed = run_config.without_none(arguments)
        config_flags.DEFINE_config_dict("config", recipe, flag_values=values, sys_argv=typed)
        values(typed)
        run_config.set_none(values.config, arguments)
    except (flags.Error, TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    return values.config


def changes_in(words: Sequence[str]) -> list[str]:
    """Returns the arguments of a command line that set leaves, each as one word `--config.LEAF=VALUE`.

    Args:
        words: Program and its arguments.
    """
    found, left = [], list(words)
    while left:
        word = left.pop(0)
        if not re.match(r"--?(no)?config\.", word):
            continue
        # A value may be a word of its own, unless the next one is a flag.
        two = "=" not in word and left and not left[0].startswith("--")
        found.append(f"{word}={left.pop(0)}" if two else word)
    return found
