"""Reads JSON that a stranger may have written: an object of bounded size, and nothing that only Python calls JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from ecgjax.errors import ConfigError

#: Largest file that is read; the configuration of the largest encoder takes a thirtieth of it.
MOST_BYTES = 4 * 2**20


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        ConfigError: The file is too large, cannot be read or holds no object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); copy or export the folder again") from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: is larger than {MOST_BYTES // 2**20} MiB, which no exported file of its name is")
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    # Brackets without end are a RecursionError.
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise ConfigError(f"{path}: holds no JSON ({reason[:120]}); copy or export the folder again") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: holds a {type(found).__name__} where an object belongs; export the folder again")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
