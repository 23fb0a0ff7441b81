"""Atomic writing: files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `path` when the block ends without an error."""
    # The temporary file lies beside the other: only within a file system is the replacement atomic. It has a name of
    # its own, since jobs on other machines may write the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file; an interruption leaves an existing file as it was."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
