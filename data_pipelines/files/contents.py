"""Reads files into memory as a whole, and only where they can be a recording."""

from __future__ import annotations

import stat
from pathlib import Path

from data_pipelines.files.refusals import missing_file, unreadable_header

#: Largest size of a file, and a quarter of the largest size of its samples once unpacked; a day of 12 leads at 500 Hz
#: takes less.
MAX_BYTES = 2**31

#: Size to which a file may unpack however small it is: 46 minutes of 12 leads at 500 Hz in float64.
ALWAYS_UNPACKED_BYTES = 2**27

#: Bytes to which each byte of a larger file may unpack. Recordings are packed to a third or a tenth, and take four
#: times what they took in 16 bits; what is packed closer is zeros.
MOST_UNPACKED = 128


def decoded(content: bytes) -> str:
    """Returns bytes decoded as UTF-8, or else as Latin-1, in which every byte is a character."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def check_present(path: Path) -> None:
    """Raises `RecordError` unless there is a file.

    Raises:
        RecordError: There is no such file (`missing_file`).
    """
    if not path.is_file():
        raise missing_file(f"{path}: no such file")


def read_contents(path: Path, *, max_bytes: int, form: str = "") -> bytes:
    """Returns the content of a file, after checking its size.

    Args:
        path: Path of the file.
        max_bytes: Size above which the file is not read.
        form: Kind of file that `max_bytes` is the limit for, such as `XML`, for the message; empty where the limit is
            that of every kind.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`), or is too large (`unreadable_header`).
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # Reading a named pipe would never end.
            raise missing_file(f"{path}: is no regular file")
        if (size := status.st_size) > max_bytes:
            taken = f"takes as {form}" if form else "takes"
            raise unreadable_header(f"{path}: {size} bytes, more than any ECG {taken}")
        return path.read_bytes()
    except OSError as error:
        raise missing_file(f"{path}: cannot be read ({error.strerror})") from error


def most_unpacked(file_bytes: int) -> int:
    """Returns the largest number of bytes that a packed file's samples may take as float64.

    Args:
        file_bytes: Size of the file.
    """
    return min(8 * MAX_BYTES, max(ALWAYS_UNPACKED_BYTES, MOST_UNPACKED * file_bytes))


def check_unpacked(path: Path, num_bytes: int, *, file_bytes: int, part: str = "") -> None:
    """Raises `RecordError`, before unpacking, where a small file claims to hold more than a recording can.

    Args:
        path: Path of the file.
        num_bytes: Number of bytes that its samples take as float64.
        file_bytes: Size of the file.
        part: Part of the file that is unpacked; empty for all of it.

    Raises:
        RecordError: The file claims more than `most_unpacked` allows (`unreadable_header`).
    """
    most = most_unpacked(file_bytes)
    if num_bytes > most:
        what = f"{part} unpacks" if part else "unpacks"
        raise unreadable_header(
            f"{path}: {what} to {num_bytes} bytes, more than any ECG takes in a file of {file_bytes} bytes (at most "
            f"{most}); it is damaged, or made to exhaust memory: find out where it comes from"
        )
