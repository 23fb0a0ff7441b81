"""Reads and writes digests of the files of a prepared data set, by which damage and exchanged files are found.

`SHA256SUMS` lies in the folder of a data set and in each folder that is added to one later (`packed`, `physiology`). It
has one line for each file; `sha256sum --check SHA256SUMS` reads it as well. Data sets that were built before there were
digests have none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.system.plain_names import file_below

#: Name of the table of the digests of the folder that it lies in.
DIGESTS_FILE = "SHA256SUMS"

_BLOCK_BYTES = 2**22
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def file_digest(path: Path, progress: Callable[[int], None] = lambda num_bytes: None) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits.

    Args:
        path: Path of the file.
        progress: Function that is called with the size of every block that was read.
    """
    return hex_digest(hashlib.sha256(), path, progress)


def hex_digest(digest: Any, path: Path, progress: Callable[[int], None]) -> str:
    """Returns the digest of a file in hexadecimal.

    Args:
        digest: Hash object of `hashlib` that nothing was added to.
        path: Path of the file.
        progress: Function that is called with the size of every block.
    """
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def write_digests(folder: Path, names: Iterable[str], *, known: Mapping[str, str] | None = None) -> None:
    """Writes the digests of files in a folder and its subfolders.

    Args:
        folder: Folder in which `DIGESTS_FILE` is written.
        names: Names of the files, as paths below the folder.
        known: Digests that need not be computed again, by name.
    """
    known = known or {}
    lines = [f"{known.get(name) or file_digest(folder / name)}  {name}\n" for name in names if name != DIGESTS_FILE]
    (folder / DIGESTS_FILE).write_text("".join(lines), encoding="utf-8")


def files_of(folder: Path, *, apart: tuple[str, ...] = ()) -> list[str]:
    """Returns the files in a folder and its subfolders, as sorted paths below it; links of any kind count as files.

    Args:
        folder: Folder of a data set, or one within it.
        apart: Subfolders that are left out.
    """
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(folder).parts[0] not in apart
    )


def read_digests(folder: Path) -> dict[str, str] | None:
    """Reads the digests of a folder, by path below it; returns None where there are none.

    Raises:
        DataError: The table is damaged, or names a file that is neither in the folder nor in a folder in it.
    """
    path = folder / DIGESTS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); get the data set again from where it comes from") from error
    digests = {}
    for number, line in enumerate(lines, start=1):
        if (match := _LINE.fullmatch(line)) is None or match[2] in digests:
            raise DataError(f"{path}: line {number} is no digest of one file; it is damaged: get the data set again")
        parent, _, name = match[2].rpartition("/")
        file_below(file_below(folder, parent, source=path) if parent else folder, name, source=path)
        digests[match[2]] = match[1]
    return digests


def changed_file(folder: Path, names: Iterable[str], *, table: Path) -> str | None:
    """Returns the first of some files that is not what was written; None where there is none, or no table.

    Args:
        folder: Folder with the files.
        names: Names of the files, as paths below the folder.
        table: Path of the table of digests.
    """
    if not table.is_file():
        return None
    # Not all lines are checked as `read_digests` does: a data set may have tens of thousands of files, and is to open
    # in milliseconds.
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    return next((name for name in names if digests.get(name) != file_digest(folder / name)), None)


def check_digests(folder: Path, names: Iterable[str]) -> None:
    """Raises `DataError` where a small file is not what was written; does nothing in a folder without digests.

    Args:
        folder: Folder of the data set, with the digests.
        names: Names of the files, as paths below the folder.

    Raises:
        DataError: A file is not the one that was written, or has no digest.
    """
    if (name := changed_file(folder, names, table=folder / DIGESTS_FILE)) is not None:
        raise DataError(
            f"{folder / name}: is not what was written (changed or damaged since); python -m data_pipelines.verify "
            f"--dataset={folder} tells what else is. Restore it from a copy, or build the data set again with "
            "--overwrite"
        )
