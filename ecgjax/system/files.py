"""Atomic writing: files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `path` when the block ends without an error.

    After an error the temporary file is removed: on a disk that is full it would take the space.
    """
    # The temporary file lies beside the other: only within a file system is the replacement atomic. It has a name of
    # its own, since jobs on other machines may write the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file; an interruption leaves an existing file as it was."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def free_name(path: Path, ending: str) -> Path:
    """Returns a path beside another that nothing has yet: `NAME.ENDING`, or `NAME.ENDING-2` and so on.

    Args:
        path: Path of what is set aside.
        ending: Ending that says why.
    """
    names = (path.with_name(f"{path.name}.{ending}" + (f"-{number}" if number > 1 else "")) for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def append_whole(path: Path, data: bytes, *, header: bytes = b"") -> None:
    """Appends bytes to a file, all of them or none, and makes file and folder where they are missing.

    The file is opened for every call: one that was removed, or whose disk was mounted again, is found at its path.

    Args:
        path: File to append to.
        data: Bytes to append.
        header: Bytes that come before them in a file that is empty.

    Raises:
        OSError: The bytes cannot be written; the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A pipe that nobody reads is an error then, instead of a call that never returns.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
    try:
        size = os.fstat(file).st_size
        left = memoryview(data if size else header + data)
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            # Half a line would spoil the next one too.
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)
