"""Checks file names that were read from somebody else's file, before they are joined to a path.

A card, an index or a list of packed shards may come from anywhere. What it names must be a plain file name, so that
nothing is read or written outside of the folder that it lies in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

from data_pipelines.errors import DataError

_MOST_BYTES = 255

# These are separators of every system, drives ('C:'), and characters that end a name or a line for some program.
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')

# Under Windows these names are devices, whatever follows after a dot.
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{number}" for number in range(10)), *(f"lpt{number}" for number in range(10))}
)


def is_plain_name(name: object) -> TypeGuard[str]:
    """Returns whether a value is the name of a file that lies in the folder it is joined to, on any system."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode(errors="replace")) <= _MOST_BYTES
        and not _FORBIDDEN.search(name)
        and name == name.strip(" ")
        and not name.endswith(".")  # This excludes '.' and '..'; Windows drops a final dot.
        and name.partition(".")[0].casefold() not in _RESERVED
    )


def file_below(folder: Path, name: object, *, source: Path | str) -> Path:
    """Returns the path of a file by the name that another file gives it.

    Args:
        folder: Folder in which the file lies.
        name: Name as it was read.
        source: File that names it, for the message.

    Raises:
        DataError: The name is no plain file name.
    """
    if not is_plain_name(name):
        raise DataError(
            f"{source}: names the file {ascii(name)[:120]}, which is no plain file name; every file of a data set lies "
            "in its own folder, so this one is damaged or was tampered with: get it again from where it comes from"
        )
    return folder / name


def path_below(folder: Path, text: str) -> Path | None:
    """Returns the path that a table gives a recording; None where it leads out of the folder or is no path.

    Args:
        folder: Folder of the table.
        text: Path as the table has it: folders and the file, with `/` between.
    """
    return folder / text if text and all(map(is_plain_name, text.split("/"))) else None


def files_below(folder: Path, names: object, *, source: Path | str) -> tuple[Path, ...]:
    """Returns the paths of files by a list of names that was read from another file.

    Args:
        folder: Folder in which the files lie.
        names: Names as they were read.
        source: File that names them, for the message.

    Raises:
        DataError: There is no list, a name is no plain file name, or a name comes twice.
    """
    if not isinstance(names, Iterable) or isinstance(names, str | bytes | dict):
        raise DataError(f"{source}: has {ascii(names)[:60]} where a list of file names belongs; it is damaged")
    paths = tuple(file_below(folder, name, source=source) for name in names)
    if len({path.name.casefold() for path in paths}) < len(paths):
        raise DataError(f"{source}: names a file twice; it is damaged: get it again from where it comes from")
    return paths


def why_elsewhere(path: Path) -> str | None:
    """Returns why a file must not be read though its name is plain, or None if it may be.

    The text is the predicate of a sentence about the file: `"is a link to …"`.

    A link to a file in the same folder is allowed, and the folder itself may be a link. A single file that is a link
    out of its folder is not, since an unpacked archive could reach other files by it.

    Args:
        path: Path of the file.
    """
    if path.is_symlink() and Path(os.path.realpath(path)).parent != Path(os.path.realpath(path.parent)):
        return "is a link to a file in another folder; copy the file itself here (cp -L)"
    return None
