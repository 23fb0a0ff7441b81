"""Handles errors of a reader that are not `DataError`s: the recording is quarantined, and the build goes on.

Among a million files of unknown origin, some are damaged in unexpected ways. One of them must not end a build of days,
and the person who runs it must learn which file it was and what to report.
"""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path
from typing import Any

from data_pipelines.system.visible_text import visible

#: Environment variable that makes faults of a reader raise, as in this project's tests.
RAISE_VARIABLE = "ECGJAX_RAISE_READER_FAULTS"

# Errors that would affect every recording are no reason to quarantine one.
_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ENOTCONN})

# The message of an error may quote a part of the file, of any length.
_MOST_CHARACTERS = 300


def reason_and_message(error: Exception, item: Any) -> tuple[str, str]:
    """Returns the reason and the message to quarantine an item with, after an error that is not a `DataError`.

    Args:
        error: Error that reading the item raised.
        item: Item of the source that was read, such as a path with a row of a table.

    Raises:
        Exception: The error is due to the machine and not to the file, or `ECGJAX_RAISE_READER_FAULTS` is set; it is
            raised again.
    """
    file = file_of(item)
    if isinstance(error, MemoryError):
        return "too_large", (
            f"{file}: reading it takes more memory than there is; cut it into shorter recordings, or use a machine "
            "with more"
        )
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in _OF_THE_MACHINE:
            raise error
        name = f" of {error.filename}" if error.filename and str(error.filename) != str(file) else ""
        return "unreadable_file", (
            f"{file}: the system does not let it be read ({error.strerror}{name}); check that it is there and that its "
            "permissions allow reading"
        )
    if os.environ.get(RAISE_VARIABLE):
        raise error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "reader_error", (
        f"{file}: the reader failed with {type(error).__name__}: {visible(str(error))[:_MOST_CHARACTERS]} "
        f"({Path(frame.filename).name}, line {frame.lineno}); this is a fault of ecgjax: please report this message, "
        "with the file if you may share it"
    )


def file_of(item: Any) -> str:
    """Returns the path of the file that an item is read from, or the item's id where it has no file."""
    item = getattr(item, "item", item)  # A piece wraps the item of its recording.
    for place in (item, getattr(item, "found", None)):
        for name in ("path", "part"):
            if getattr(place, name, None) is not None:
                return str(getattr(place, name))
    return str(getattr(item, "record_id", item))
