"""Directories and files that are published as a whole or not at all, and that one process at a time writes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data_pipelines.errors import DataError

_LOCK_FILE = "lock"

# These are constants of Linux' `renameat2(2)`: paths are taken as they are, and exchanged.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

# By these errors kernels and file systems (NFS among them) say that they cannot exchange paths.
_CANNOT_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextlib.contextmanager
def exclusive_staging(staging: Path, *, resume: bool = False) -> Iterator[None]:
    """Makes `staging` a directory that only this process writes, and removes it after success.

    After an error the directory stays, unless it is still empty, so that its quarantine list can be looked at, or the
    work done so far resumed.

    Args:
        staging: Path of the directory; it is created, parents included.
        resume: Whether what an interrupted run left there is kept, instead of removed.

    Raises:
        DataError: Another process is working in the directory.
    """
    staging.mkdir(parents=True, exist_ok=True)
    lock = _lock(staging)
    try:
        if not resume:
            clear_staging(staging)
        try:
            yield
        except BaseException:
            if [path.name for path in staging.iterdir()] == [_LOCK_FILE]:
                shutil.rmtree(staging)
            raise
        shutil.rmtree(staging)
    finally:
        os.close(lock)


def clear_staging(staging: Path) -> None:
    """Removes everything that an interrupted run left in a staging directory that this process has locked."""
    for leftover in staging.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        elif leftover.name != _LOCK_FILE:
            leftover.unlink()


def _lock(staging: Path) -> int:
    """Locks a staging directory and returns the handle of the lock; the system releases it when the process ends."""
    path = staging / _LOCK_FILE
    busy = DataError(f"{staging}: another build is writing here; wait for it to finish, or choose another --out")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError as error:  # Another build finished just now and removed the directory.
        raise busy from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The file that was opened may also have been removed by another build before it was locked.
        if path.stat().st_ino != os.fstat(lock).st_ino:
            raise busy
    except (BlockingIOError, FileNotFoundError) as error:
        os.close(lock)
        raise busy from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def publish(finished: Path, out: Path, *, retired: Path) -> None:
    """Moves a finished directory to its place in one step, after everything in it was written to the disk.

    A directory that is there already changes places with it, where the system can exchange two directories. Where it
    cannot, the old directory is moved away first, and a process that is killed in between leaves it at `retired`, from
    where `recover_retired` puts it back.

    Args:
        finished: Directory to publish, on the same file system as `out`. It may hold what was at `out` afterwards.
        out: Path at which it is published.
        retired: Free path on the same file system.
    """
    for path in (finished, *finished.rglob("*")):
        sync(path)
    # An empty directory at `out` is replaced by the rename itself.
    if not (out.exists() and any(out.iterdir())):
        finished.rename(out)
    elif not _exchange(finished, out):
        out.rename(retired)
        finished.rename(out)
    sync(out.parent)
    sync(finished.parent)


def recover_retired(retired: Path, out: Path) -> None:
    """Moves back the directory that a killed `publish` had moved away from `out`, if nothing is there yet."""
    if retired.is_dir() and not (out.exists() and any(out.iterdir())):
        retired.rename(out)
        sync(out.parent)


@contextlib.contextmanager
def replaced_whole(out: Path, *, making: str) -> Iterator[Path]:
    """Yields an empty directory, which takes the place of `out` when the block ends without an error.

    After an error, nothing of it is left, and what was at `out` is as it was.

    Args:
        out: Path of the directory; what is there is replaced.
        making: Word for what is being done, which becomes part of the name of the hidden directory beside `out`.

    Raises:
        DataError: Another process is working there.
    """
    staging, retired = out.with_name(f".{out.name}.{making}"), out.with_name(f".{out.name}.retired")
    recover_retired(retired, out)
    with exclusive_staging(staging):
        try:
            folder = staging / "whole"
            folder.mkdir()
            yield folder
            publish(folder, out, retired=retired)
        except BaseException:
            clear_staging(staging)
            raise
    shutil.rmtree(retired, ignore_errors=True)


@contextlib.contextmanager
def written_whole(path: Path, *, making: Path) -> Iterator[IO[bytes]]:
    """Opens a file for writing; it gets its name once it is complete on disk, to appear whole or not at all.

    Args:
        path: Path of the file; an existing file is replaced.
        making: Path on the same file system at which the file is written.
    """
    with making.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)


def sync(path: Path) -> None:
    """Waits until a file, or the list of a directory's files, has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two directories atomically and returns True; returns False if the system cannot exchange directories.

    Raises:
        OSError: The system can exchange directories, but failed to.
    """
    if (renameat2 := getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)) is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    if (error := ctypes.get_errno()) in _CANNOT_EXCHANGE:
        return False
    raise OSError(error, os.strerror(error), str(first), None, str(second))
