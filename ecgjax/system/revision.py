"""The state of the code that runs, as git knows it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

#: Revision of code that no git repository holds, such as an installed package.
UNKNOWN = "unknown"

_PACKAGE = Path(__file__).resolve().parents[1]

_SECONDS = 20


class Revision(NamedTuple):
    """A state of the code.

    Attributes:
        commit: Hash of the commit, or `UNKNOWN`.
        dirty: Whether files that git follows differ from that commit; None where the commit is unknown.
    """

    commit: str
    dirty: bool | None


def code_revision(folder: Path = _PACKAGE) -> Revision:
    """Returns the commit that a folder of code belongs to.

    Args:
        folder: Folder of a package; that of `ecgjax` by default.
    """
    # A package may be installed below the checkout of another project, whose commit says nothing about it.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return Revision(UNKNOWN, None)
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
    return Revision(UNKNOWN, None) if commit is None or changes is None else Revision(commit, bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns what git answers, or None where there is no git or it refuses."""
    # Hooks of git set variables that would name their own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(
            command, capture_output=True, check=True, env=environment, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode(errors="replace").strip()
