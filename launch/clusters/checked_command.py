"""Checks of the command that a launcher puts into a queue: a misspelt word would be found out hours later."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath

from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.config import command_line, recipes
from ecgjax.errors import ConfigError
from ecgjax.finetuning.settings import FineTuningSettings
from ecgjax.settings import sections

_OURS = ("ecgjax", "data_pipelines", "launch")

# Modules that are run with a config, with the function that refuses its values.
_READERS: Mapping[str, Callable[[ConfigDict], object]] = {
    "ecgjax.pretrain": defaults.settings_of,
    "ecgjax.finetune": lambda config: sections.read(FineTuningSettings, config.to_dict()),
}


def check_command(
    words: Sequence[str], *, example: str = "python -m ecgjax.pretrain --config=… --workdir=…"
) -> tuple[str, ...]:
    """Returns the command that follows `--`, after checking that there is one.

    Args:
        words: Program and its arguments.
        example: Command for the message.

    Raises:
        ConfigError: There is none, or a word of it cannot be one; it runs a module that we do not have, or a training
            with a recipe, setting or value that there is not.
    """
    if not words:
        raise ConfigError(f"give the command after --, e.g. -- {example}")
    if not words[0].strip():
        raise ConfigError(f"{words[0]!r}, the command after --, is no program; check the variable that it comes from")
    for word in words:
        if "\0" in word or not _encodable(word):
            raise ConfigError(f"{word!r} in the command after -- cannot be written into a script; it is no UTF-8 text")
    _check_module(words)
    _check_config(words)
    return tuple(words)


def _module_of(words: Sequence[str]) -> str:
    """Returns the module that `python -m MODULE` or `ecgjax NAME` runs; empty for another program."""
    program = PurePath(words[0]).name
    if re.fullmatch(r"python[\d.]*", program) and "-m" in words[1:-1]:
        return words[words.index("-m") + 1]
    return f"ecgjax.{words[1]}" if program == "ecgjax" and words[1:] else ""


def _check_module(words: Sequence[str]) -> None:
    """Refuses `python -m MODULE` for a module that a package of ours does not have; nothing is imported for it."""
    module = _module_of(words)
    top, *parts = module.split(".")
    if top not in _OURS or not parts:
        return
    package = importlib.util.find_spec(top)
    if package is None or not package.submodule_search_locations:
        return
    folder = Path(next(iter(package.submodule_search_locations)))
    path = folder.joinpath(*parts)
    if path.with_name(f"{path.name}.py").is_file() or (path / "__main__.py").is_file():
        return
    known = [f"{top}.{each.stem}" for each in folder.glob("*.py") if each.stem != "__init__"]
    known += [f"{top}.{each.parent.name}" for each in folder.glob("*/__main__.py")]
    near = difflib.get_close_matches(module, known, n=1)
    meant = f"did you mean {near[0]}?" if near else "ecgjax help lists all commands"
    raise ConfigError(f"python -m {module}, the command after --: there is no such module; {meant}")


def _check_config(words: Sequence[str]) -> None:
    """Refuses a training whose recipe, settings or values do not exist; a file that is not on this machine is left.

    In a container a config file may have another path than here.
    """
    reader, configs = _READERS.get(_module_of(words)), recipes.configs_in(words)
    if reader is None or not configs:
        return
    config = configs[-1]
    file = config.partition(":")[0]
    if not os.path.isfile(file) and (file.endswith(".py") or os.sep in file):
        return
    try:
        reader(command_line.config_of(config, command_line.changes_in(words)))
    except ConfigError as error:
        raise ConfigError(f"the command after -- would fail: {error}") from error


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
