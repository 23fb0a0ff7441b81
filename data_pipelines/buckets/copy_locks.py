"""Locks on local copies of what lies in buckets: one process of a machine at a time writes a copy."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.buckets.cache import CACHE_VARIABLE
from data_pipelines.errors import DataError

#: Seconds between looks at a copy that another process is making.
_LOOK_S = 0.5


def lock_beside(copy: Path) -> Path:
    """Returns the file that is locked while a copy is written."""
    return copy.with_name(f".{copy.name}.lock")


@contextlib.contextmanager
def locked(lock: Path, *, busy: str) -> Iterator[None]:
    """Keeps other processes of this machine from a copy.

    Args:
        lock: File that is locked; it is made where it is missing.
        busy: Message where another process has the copy.

    Raises:
        DataError: Another process has the copy, or nothing can be written there.
    """
    with _opened(lock) as number:
        if not _taken(number):
            raise DataError(busy)
        yield


@contextlib.contextmanager
def after_others(copy: Path) -> Iterator[None]:
    """Waits until no other process makes a copy, which is said once, and keeps others from it.

    Args:
        copy: File or folder of the copy.

    Raises:
        DataError: Nothing can be written there.
    """
    with _opened(lock_beside(copy)) as number:
        told = False
        while not _taken(number):
            if not told:
                print(f"{copy}: another process is making this copy; it is waited for", file=sys.stderr)
                told = True
            time.sleep(_LOOK_S)
        yield


@contextlib.contextmanager
def _opened(lock: Path) -> Iterator[int]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(
            f"{lock.parent}: copies of what lies in buckets cannot be kept there ({error.strerror}); name a folder "
            f"with {CACHE_VARIABLE}=DIR"
        ) from error
    try:
        yield number
    finally:
        os.close(number)


def _taken(number: int) -> bool:
    # The system takes this lock back however its holder ends, so that nobody is waited for in vain.
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
