"""A directory that appears whole or not at all, and is written by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.errors import DataError

_LOCK_FILE = "lock"


@contextlib.contextmanager
def exclusive_staging(staging: Path, *, resume: bool = False) -> Iterator[None]:
    """Makes `staging` a directory of this process alone, and removes it after success.

    After an error it stays, unless it is still empty: for its quarantine list to be looked at, or for the work done so
    far to be resumed.

    Args:
        staging: created, parents included.
        resume: keep what an interrupted run left there, which is removed otherwise.

    Raises:
        DataError: another process is working in it.
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
    """Removes everything that an interrupted run left in a staging directory of this process alone."""
    for leftover in staging.iterdir():
        if leftover.name != _LOCK_FILE:
            _remove(leftover)


def _lock(staging: Path) -> int:
    """Takes the lock of a staging directory; the system drops it when the process ends, however it ends."""
    path = staging / _LOCK_FILE
    busy = DataError(f"{staging}: another build is writing here; wait for it to finish, or choose another --out")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError as error:  # Another build finished just now and removed the directory.
        raise busy from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Likewise, the file that was opened may have been removed before it was locked.
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
    """Puts a finished directory in its place by one rename, after everything in it has reached the disk.

    Args:
        finished: the directory to publish; on the same file system as `out`.
        out: its place; a directory already there is moved to `retired` first.
        retired: a free path on the same file system.
    """
    for path in (finished, *finished.rglob("*")):
        _sync(path)
    # An empty directory at `out` is replaced by the rename itself.
    if out.exists() and any(out.iterdir()):
        out.rename(retired)
    finished.rename(out)
    _sync(out.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
