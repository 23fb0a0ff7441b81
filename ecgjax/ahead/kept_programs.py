"""What the compiler said of programs, kept in a folder: the same program says the same, after minutes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
from jax.stages import Lowered

from ecgjax.ahead.collectives import Collective
from ecgjax.ahead.compiled_program import CompiledProgram, Memory
from ecgjax.ahead.topologies import libtpu_version
from ecgjax.errors import ConfigError
from ecgjax.system.files import write_atomically
from ecgjax.system.terminal import warn
from ecgjax.training.compilation.compile_cache import AUTO, WORKDIR, check_setting

#: Version of the files.
_FORMAT = 1


def kept_file(setting: str, lowered: Lowered, title: str) -> Path | None:
    """Returns the file of what the compiler said of a program, or None where nothing is kept.

    Args:
        setting: Value of `config.compile_cache`; a dry run has no workdir, and keeps something in a named folder alone.
        lowered: Program.
        title: Devices that it is for.

    Raises:
        ConfigError: The setting names a folder that cannot be made.
    """
    if setting in ("", AUTO, WORKDIR):
        return None
    check_setting(setting)
    parts = (str(_FORMAT), title, jax.__version__, str(libtpu_version()), lowered.as_text())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return Path(setting) / f"dry_run-{digest[:32]}.json"


def read_kept(path: Path) -> CompiledProgram | None:
    """Returns what was kept, or None where nothing was; a file that is damaged costs a warning."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        collectives = tuple(_collective(each) for each in found.pop("collectives"))
        return CompiledProgram(memory=Memory(**found.pop("memory")), collectives=collectives, **found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warn(f"{path} is damaged ({error}); its program is compiled again")
        return None


def write_kept(path: Path, program: CompiledProgram) -> None:
    """Keeps what the compiler said of a program.

    Raises:
        ConfigError: The folder cannot be written.
    """
    kept = dataclasses.asdict(program) | {"memory": program.memory._asdict()}
    try:
        write_atomically(path, json.dumps(kept) + "\n")
    except OSError as error:
        raise ConfigError(f"config.compile_cache={path.parent} cannot be written ({error.strerror})") from error


def _collective(values: dict[str, Any]) -> Collective:
    groups = tuple(tuple(group) for group in values["groups"])
    return Collective(**values | {"groups": groups, "arrays": tuple(values["arrays"])})
