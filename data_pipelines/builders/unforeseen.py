"""What becomes of an error that no reader foresaw: that recording is quarantined, and the build goes on.

A million files of strangers hold what nobody thought of. One of them must not end a build of days, and whoever runs it
must learn which file it was and what to report.
"""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path
from typing import Any

from data_pipelines.system.visible_text import visible

#: Environment variable under which faults of a reader are raised, as they are in this project's tests.
RAISE_VARIABLE = "ECGJAX_RAISE_READER_FAULTS"

# What concerns every recording alike, and is no reason to quarantine one.
_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ENOTCONN})

_MOST_CHARACTERS = 300


def reason_and_message(error: Exception, item: Any) -> tuple[str, str]:
    """Returns the reason and the message to quarantine an item under, whose reading raised what is no `DataError`.

    Args:
        error: what was raised.
        item: of the source.

    Raises:
        Exception: the error itself, where it is the machine's and not the file's, or where tests ask for it.
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
    """Returns the file that an item is read from, or its id where it does not say."""
    item = getattr(item, "item", item)  # Of a piece.
    for place in (item, getattr(item, "found", None)):
        for name in ("path", "part"):
            if getattr(place, name, None) is not None:
                return str(getattr(place, name))
    return str(getattr(item, "record_id", item))
