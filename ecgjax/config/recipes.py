"""Config files by name: `simclr:small` means `configs/simclr.py:small`, in a checkout and in an installed package."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

import ecgjax
from data_pipelines.buckets.addresses import is_remote
from ecgjax.errors import ConfigError

#: Folders beside this package that may hold the recipes; in an installed package the folder has a name of its own.
_FOLDERS = ("ecgjax_recipes", "configs")

_CONFIG_FLAG = re.compile(r"--?config(=.*)?", re.DOTALL)


def recipe_names() -> tuple[str, ...]:
    """Returns the names of all recipes in alphabetical order."""
    return tuple(sorted(path.stem for path in _folder().glob("*.py") if path.stem != "__init__"))


def path_of(config: str) -> str:
    """Returns the path of a config file that is given by path or by name.

    Args:
        config: Path of a file, or name of a recipe, with or without `:VARIANT`.

    Returns:
        The path with the same variant. A file that exists comes before a recipe of that name.

    Raises:
        ConfigError: There is neither a file nor a recipe of that name.
    """
    if is_remote(config):
        raise ConfigError(f"--config={config}: is no path on this machine; copy the file here, and give its path")
    name, colon, variant = config.partition(":")
    if os.path.isfile(name):
        return config
    if name in recipe_names():
        return f"{_folder() / name}.py{colon}{variant}"
    raise ConfigError(
        f"--config={config}: there is no config file {name}, and no recipe of that name; recipes are: "
        f"{', '.join(recipe_names())}"
    )


def load_recipe(config: str) -> ConfigDict:
    """Returns the config that a config file gives.

    Args:
        config: Path of a config file or name of a recipe, with or without `:VARIANT`, the text that the file's
            `get_config` takes, such as `small`.

    Raises:
        ConfigError: There is neither a file nor a recipe of that name, the file cannot be run as Python or has no
            `get_config`, or `get_config` fails, such as by setting a leaf that the config does not have.
        ValueError: The file has no such variant.
    """
    path, colon, variant = path_of(config).partition(":")
    try:
        module = _module(path)
    except ConfigError:
        raise
    # Errors of a user's file become one message, because the user has to correct that file and not our code.
    except (SyntaxError, ValueError, NameError, ImportError, AttributeError, TypeError, OSError) as error:
        raise ConfigError(f"--config={config} cannot be read as Python: {error}") from error
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(f"--config={config} has no function get_config() that returns a config")
    try:
        return module.get_config(*([variant] if colon else []))
    except (AttributeError, KeyError, NameError, TypeError) as error:
        calls = traceback.extract_tb(error.__traceback__)
        line = next(each.lineno for each in [*(own for own in reversed(calls) if own.filename == path), calls[-1]])
        raise ConfigError(f"--config={config}: get_config() fails in line {line}: {error}") from error


def with_paths(arguments: Sequence[str]) -> list[str]:
    """Returns command-line arguments in which the path of its file replaces every recipe that `--config` names.

    Args:
        arguments: Command line.

    Raises:
        ConfigError: There is neither a file nor a recipe of that name.
    """
    found = list(arguments)
    for place, before, config in _given(arguments):
        found[place] = f"{before}{path_of(config)}"
    return found


def configs_in(arguments: Sequence[str]) -> list[str]:
    """Returns the values that command-line arguments give for `--config`."""
    return [config for _, _, config in _given(arguments)]


def _given(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yields, for every `--config`, the index of the argument with the value, the text before it, and the value."""
    for place, argument in enumerate(arguments):
        if argument == "--":
            return
        if not _CONFIG_FLAG.fullmatch(argument):
            continue
        flag, equals, config = argument.partition("=")
        if equals:
            yield place, f"{flag}=", config
        elif place + 1 < len(arguments):
            yield place + 1, "", arguments[place + 1]


def _folder() -> Path:
    beside = Path(ecgjax.__file__).resolve().parents[1]
    return next(folder for folder in (beside / name for name in _FOLDERS) if (folder / "simclr.py").is_file())


def _module(path: str) -> ModuleType:
    # The file is loaded by its path, because a user's config belongs to no package.
    spec = importlib.util.spec_from_file_location(f"recipe_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config={path} is no Python file; give one that ends in .py, or the name of a recipe")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the module that they are made in, while the file still runs.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
