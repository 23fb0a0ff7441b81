"""What a commit leaves on a disk, in one file: packed so that nothing in it tells of a machine, and unpacked."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
from pathlib import Path

from tests.golden.commands import ROOT, GoldenError
from tests.golden.data import LINKS
from tests.golden.runs import HALF_DIR, WHOLE_DIR
from tests.golden.studies import FEATURES

FILE = "artefacts.tar.gz"

#: What is kept, below the working folder: a data set, links, a finished run and a half-finished one, kept features.
_KEPT = ("data/kept", LINKS, WHOLE_DIR, HALF_DIR, FEATURES)

# TensorBoard's files are named after the machine; nothing reads them.
_APART = (".lock", "tensorboard")

# Orbax marks a checkpoint that is whole by this file, and writes into it where it lies.
_MARKER = "commit_success.txt"

# Shorter names of machines and users are found in anything.
_SHORTEST = 4


def pack(folder: Path, path: Path) -> None:
    """Packs the artefacts of a working folder.

    Args:
        folder: Working folder.
        path: File to write.

    Raises:
        GoldenError: A file tells where it was made, or on which machine.
    """
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for each in sorted(_files(folder)):
            _add(archive, each.relative_to(folder).as_posix(), _anonymous(each, folder=folder))
    with path.open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
        packed.write(content.getvalue())


def unpack(path: Path, folder: Path) -> None:
    """Unpacks artefacts into a working folder, and puts the configs beside them, where commands look for them.

    Raises:
        GoldenError: There are none.
    """
    if not path.is_file():
        raise GoldenError(f"{path}: no such file; python -m tests.golden make makes it")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    add_configs(folder)


def add_configs(folder: Path) -> None:
    """Puts the configs of the code at hand into a working folder."""
    (folder / "configs").symlink_to(ROOT / "configs")


def _files(folder: Path) -> list[Path]:
    """Returns the files that are kept."""
    paths = [path for name in _KEPT for path in (folder / name, *(folder / name).rglob("*"))]
    return [path for path in paths if path.is_file() and not {*path.relative_to(folder).parts} & {*_APART}]


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file as everybody's and of no date."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    archive.addfile(info, io.BytesIO(content))


def _anonymous(path: Path, *, folder: Path) -> bytes:
    """Returns the content of a file that does not tell where it was made.

    Raises:
        GoldenError: It does.
    """
    content = path.read_bytes()
    if path.name == _MARKER:
        content = content.replace(str(folder).encode(), b"FOLDER")
    for told in (str(folder), str(ROOT), os.path.expanduser("~/"), socket.gethostname()):
        if len(told) > _SHORTEST and told.encode() in content:
            raise GoldenError(f"{path.relative_to(folder)} tells of {told}")
    return content
