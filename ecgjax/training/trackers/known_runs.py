"""Ids under which services know a run, kept in its folder so that a resumption goes on under the same."""

from __future__ import annotations

import re
from pathlib import Path

from data_pipelines.system.visible_text import visible
from ecgjax.system.files import write_atomically
from ecgjax.system.machine_faults import cause_of
from ecgjax.system.terminal import warn

#: Folder in the folder of a run with a file for each service.
IDS_DIR = "trackers"

_ID = re.compile(r"[\w-]{1,128}", re.ASCII)


def known_id(workdir: Path, name: str) -> str | None:
    """Returns the id under which a service knows a run; None where it does not, or the file cannot be read.

    Args:
        workdir: Folder of the run.
        name: Name of the service.
    """
    path = _path(workdir, name)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        warn(f"{visible(str(path))} cannot be read ({visible(cause_of(error))}); {name} begins another run")
        return None
    if not _ID.fullmatch(text):
        warn(f"{visible(str(path))} is damaged; {name} begins another run")
        return None
    return text


def keep_id(workdir: Path, name: str, run_id: str) -> None:
    """Keeps the id under which a service knows a run; a disk that does not take it is one warning."""
    path = _path(workdir, name)
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, f"{run_id}\n")
    except OSError as error:
        warn(f"{visible(str(path))} cannot be written ({cause_of(error)}); a resumption will be another run of {name}")


def _path(workdir: Path, name: str) -> Path:
    return workdir / IDS_DIR / f"{name}.txt"
