"""Faults of disks and permissions in plain words: what the system said, and what helps."""

from __future__ import annotations

import errno
import os

#: Longest text of a cause: libraries put whole paths, source lines and protocols into theirs.
_LONGEST = 160

_REMEDIES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "mount it for writing",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the folder again",
    errno.ENOENT: "put the folder back",
    errno.ENOTDIR: "put a folder in place of the file there",
    errno.EEXIST: "put a folder in place of the file there",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
}


def cause_of(error: BaseException) -> str:
    """Returns the cause of an error in a few words, those of the system where it stands behind the error."""
    number = _number(error)
    return os.strerror(number) if number is not None else shortened(str(error)) or type(error).__name__


def remedy_of(error: BaseException) -> str:
    """Returns what helps against an error of the system; empty where that is not known."""
    number = _number(error)
    return "" if number is None else _REMEDIES.get(number, "")


def shortened(text: str) -> str:
    """Returns the first line of a message without its tail."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first if len(first) <= _LONGEST else f"{first[:_LONGEST]}…"


def _number(error: BaseException) -> int | None:
    """Returns the number of the system's error in a chain of errors."""
    seen: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop(0)
        if one is None or one in seen:
            continue
        seen.append(one)
        if isinstance(one, OSError) and one.errno in errno.errorcode:
            return one.errno
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    # Libraries in C++ tell of the system's errors in words alone.
    text = str(error)
    return next((number for number in _REMEDIES if os.strerror(number) in text), None)
