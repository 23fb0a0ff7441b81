"""The folder of this machine in which copies of what lies in buckets are kept."""

from __future__ import annotations

import os
from pathlib import Path

#: Variable of the environment that names the folder.
CACHE_VARIABLE = "ECGJAX_CACHE"


def cache_folder() -> Path:
    """Returns the folder that `ECGJAX_CACHE` names, by default `ecgjax` in the user's folder of caches."""
    if named := os.environ.get(CACHE_VARIABLE, "").strip():
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "ecgjax"
