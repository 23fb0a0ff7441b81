"""The files of a folder that is being written, as they are at one time: linked or copied, so that they stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

#: Parts of names of what is not finished, or of this machine alone.
_UNFINISHED = (".orbax-checkpoint-tmp", ".tmp")

#: Times that a folder is looked at anew in which files come and go.
_LOOKS = 5


def hold(folder: Path, held: Path, *, sealed: Callable[[PurePosixPath], PurePosixPath | None]) -> list[str]:
    """Makes a copy of a folder's finished files which no longer changes, and returns their names.

    Files of sealed folders are linked: they never change, but may be removed. All others are copied.

    Args:
        folder: Folder that is being written.
        held: Folder on the same file system, which is replaced.
        sealed: Function from a path below the folder to that of the sealed folder which it is in; None where it is in
            none.
    """
    for _ in range(_LOOKS):
        shutil.rmtree(held, ignore_errors=True)
        held.mkdir(parents=True)
        names = sorted(_finished(folder))
        lost = [name for name in names if not _held(folder, held, name, home=sealed(PurePosixPath(name)))]
        # A sealed folder that came or went meanwhile is held in part.
        torn = {sealed(PurePosixPath(name)) for name in {*lost, *({*names} ^ {*_finished(folder)})}} - {None}
        if not torn:
            break
    return [name for name in names if (held / name).is_file() and sealed(PurePosixPath(name)) not in torn]


def _held(folder: Path, held: Path, name: str, *, home: PurePosixPath | None) -> bool:
    target = held / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if home is None:
            shutil.copyfile(folder / name, target)
        else:
            os.link(folder / name, target)
    except FileNotFoundError:
        return False
    return True


def _finished(folder: Path) -> Iterator[str]:
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_finished(name)]
        for name in files:
            path = Path(above, name)
            if _is_finished(name) and path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix()


def _is_finished(name: str) -> bool:
    return not name.startswith(".") and not any(part in name for part in _UNFINISHED)
