"""Notes of the file that each process is reading, kept outside of the process so that they survive its death.

A note is a small memory-mapped file that is overwritten for every recording, which takes a microsecond.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

_NOTE_BYTES = 4096
_SUFFIX = ".reading"

_notes = threading.local()


@contextlib.contextmanager
def noting(folder: Path) -> Iterator[None]:
    """Keeps a note of what this thread reads, for the duration of the block.

    Args:
        folder: Folder of the note, which is left behind only if the process dies.
    """
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex}{_SUFFIX}"
    # A file must have its size before it can be mapped.
    path.write_bytes(bytes(_NOTE_BYTES))
    try:
        with path.open("r+b") as file, mmap.mmap(file.fileno(), _NOTE_BYTES) as kept:
            _notes.kept = kept
            try:
                yield
            finally:
                _notes.kept = None
    finally:
        path.unlink(missing_ok=True)


def note(text: str) -> None:
    """Writes what is read now into the note; does nothing outside of `noting`.

    Args:
        text: Path of the file, or id of the item, that is read.
    """
    if (kept := getattr(_notes, "kept", None)) is not None:
        # Names of files need not be valid UTF-8. The zero ends the note, behind which a longer one may have left its
        # end.
        data = text.encode("utf-8", "surrogateescape")[: _NOTE_BYTES - 1] + b"\0"
        kept[: len(data)] = data


def last_noted(folder: Path, process_ids: Collection[int] | None = None) -> list[str]:
    """Returns the texts of the notes that processes left when they died.

    Args:
        folder: Folder of the notes.
        process_ids: Ids of the processes; if None, all processes that left a note.
    """
    found = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        text = path.read_bytes().partition(b"\0")[0].decode("utf-8", "surrogateescape")
        if text and (process_ids is None or path.name.partition("-")[0] in map(str, process_ids)):
            found.append(text)
    return found
