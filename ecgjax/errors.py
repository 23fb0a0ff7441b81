"""The errors of the training library that users meet; entry points print them as one line, without a stack trace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from data_pipelines.errors import DataError
from data_pipelines.system.exit_status import ExitStatus

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting or flag asks for something that is not possible; the message says what is possible."""


class UnknownSettingError(ConfigError):
    """There is no such setting; the message names those with a similar spelling."""


class DivergedError(RuntimeError):
    """A loss or a parameter is no longer finite; the message says where and what to try."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, is damaged, or belongs to another model; the message says what to do."""


def status_of(error: BaseException) -> ExitStatus:
    """Returns the exit status of a command that an error has ended."""
    if isinstance(error, SystemExit):
        code = error.code or 0
        return ExitStatus(code) if isinstance(code, int) and code in set(ExitStatus) else ExitStatus.FAULT
    if isinstance(error, DivergedError):
        return ExitStatus.DIVERGED
    if isinstance(error, ConfigError | DataError | CheckpointError):
        return ExitStatus.USER_ERROR
    return ExitStatus.INTERRUPTED if isinstance(error, KeyboardInterrupt) else ExitStatus.FAULT


def check_known(value: object, known: Collection[str], *, setting: str) -> None:
    """Checks that the value of a setting is one of the known names.

    Args:
        value: Value of the setting.
        known: Names that are possible.
        setting: Name of the setting, for the message.

    Raises:
        ConfigError: The value is no text, or none of the known names.
    """
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{setting}={value!r} is unknown; there are: {', '.join(known)}")


def check_each_once(names: Sequence[str], known: Collection[str], *, setting: str) -> None:
    """Checks that every entry of a list is one of the known names, and that none comes twice.

    Args:
        names: Entries of the list.
        known: Names that are possible.
        setting: Name of the setting, for the message.

    Raises:
        ConfigError: An entry is none of the known names, or comes twice.
    """
    for name in names:
        check_known(name, known, setting=setting)
    if len(set(names)) < len(names):
        raise ConfigError(f"{setting}={','.join(names)} names one twice; give each once")


def chosen(registry: Mapping[str, T], name: object, *, setting: str) -> T:
    """Returns the entry of a registry that a setting names.

    Args:
        registry: Choices by name.
        name: Value of the setting.
        setting: Name of the setting, for the message.

    Raises:
        ConfigError: There is no choice of that name.
    """
    check_known(name, registry, setting=setting)
    return registry[str(name)]
