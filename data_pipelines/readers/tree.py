"""Every file below a folder, those behind symbolic links to folders included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_under(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, in no particular order.

    Folders that are symbolic links are entered too, which `Path.rglob` leaves out without a word; each folder once,
    so that links to folders above end nowhere.

    Args:
        folder: searched recursively.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        # By name, so that of two ways to one folder the same is taken on every machine.
        folders.sort()
        yield from (path for path in (Path(parent, name) for name in names) if path.is_file())
