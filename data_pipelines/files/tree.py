"""Lists every file below a folder that can be a recording, also behind symbolic links to folders.

Files that systems and programs leave beside recordings (litter) are only counted: `._` files of macOS, thumbnails,
notebook checkpoints, partial downloads.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.errors import DataError

# In these folders nothing is a recording, nor in those whose names begin with a point.
_FOLDERS = {
    "__macosx": "folders of macOS archives (__MACOSX)",
    "__pycache__": "folders of Python (__pycache__)",
    "@eadir": "folders of Synology (@eaDir)",
    "#recycle": "recycle bins",
    "$recycle.bin": "recycle bins",
    "system volume information": "folders of Windows",
    "lost+found": "lost+found folders",
}
_NAMES = {
    "thumbs.db": "thumbnails of Windows (Thumbs.db)",
    "ehthumbs.db": "thumbnails of Windows (Thumbs.db)",
    "desktop.ini": "folder settings of Windows (desktop.ini)",
    "icon\r": "icons of macOS",
}
_PREFIXES = {"._": "companions of macOS (._…)", "~$": "locks of Office (~$…)", ".": "hidden files"}
_SUFFIXES = {
    **dict.fromkeys((".tmp", ".temp", ".swp"), "temporary files (.tmp)"),
    "~": "backups of editors (…~)",
    **dict.fromkeys((".part", ".partial", ".filepart"), "unfinished downloads (.part, .crdownload)"),
    **dict.fromkeys((".crdownload", ".download", ".aria2"), "unfinished downloads (.part, .crdownload)"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    """Files and folders below a folder.

    Attributes:
        files: Regular files that may be recordings, in no particular order.
        litter: Number of files and folders that are no recordings, by what they are.
        closed: Folders and files that the system does not permit to be read.
    """

    files: tuple[Path, ...]
    litter: Counter[str]
    closed: tuple[Path, ...]


def list_tree(folder: Path) -> Tree:
    """Lists a folder and all below it.

    Folders that are symbolic links are entered too, each folder once, so that links to folders above cause no loop.

    Args:
        folder: Folder that is searched recursively, whatever its own name.

    Raises:
        DataError: The permissions of the folder itself do not allow to list it.
    """
    files: list[str] = []
    litter: Counter[str] = Counter()
    closed: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        parent = waiting.pop()
        try:
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(parent) as entries:
                folders = _sorted_in(entries, files, litter, closed)
        except OSError as error:
            if parent == str(folder) and isinstance(error, PermissionError):
                raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
            closed.append(Path(parent))
            continue
        # The order is by name, so that of two ways to one folder the same is taken on every machine.
        waiting += sorted(folders, reverse=True)
    return Tree(files=tuple(map(Path, files)), litter=litter, closed=tuple(closed))


def files_under(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder that may be recordings, in no particular order.

    Args:
        folder: Folder that is searched recursively.

    Raises:
        DataError: The permissions of the folder itself do not allow to list it.
    """
    yield from list_tree(folder).files


def _sorted_in(entries: Iterator[os.DirEntry], files: list[str], litter: Counter[str], closed: list[Path]) -> list[str]:
    """Appends the entries of one folder to the lists they belong to; returns the paths of the folders among them."""
    folders: list[str] = []
    for entry in entries:
        try:
            if entry.is_dir():
                kind, kept = folder_litter(entry.name), folders
            elif entry.is_file():
                kind, kept = file_litter(entry.name), files
            else:
                kind = "links to files that are not there" if entry.is_symlink() else "pipes, sockets and devices"
        except OSError:
            closed.append(Path(entry.path))
            continue
        if kind is None:
            kept.append(entry.path)
        else:
            litter[kind] += 1
    return folders


def folder_litter(name: str) -> str | None:
    """Returns the kind of litter, in words, that a folder with this name is; None if it may hold recordings."""
    return _FOLDERS.get(name.casefold(), "hidden folders" if name.startswith(".") else None)


def file_litter(name: str) -> str | None:
    """Returns the kind of litter, in words, that a file with this name is; None if it may be a recording."""
    small = name.casefold()
    if small in _NAMES:
        return _NAMES[small]
    kinds = [kind for prefix, kind in _PREFIXES.items() if name.startswith(prefix)]
    kinds += [kind for suffix, kind in _SUFFIXES.items() if small.endswith(suffix)]
    return kinds[0] if kinds else None
