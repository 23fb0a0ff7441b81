"""Files read into memory whole, and only where they can be a recording."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.errors import RecordError

#: A larger file, or one whose samples take more once unpacked, is refused: a day of 12 leads at 500 Hz takes less.
MAX_BYTES = 2**31


def check_present(path: Path) -> None:
    """Raises unless there is a file.

    Raises:
        RecordError: `missing_file`.
    """
    if not path.is_file():
        raise RecordError(f"{path}: no such file", reason="missing_file")


def read_contents(path: Path, *, max_bytes: int, form: str = "") -> bytes:
    """Reads a file that is not larger than any recording of its form.

    Args:
        path: the file.
        max_bytes: a larger file is refused unread.
        form: what `max_bytes` is the most for, such as `XML`, where it is not every form.

    Raises:
        RecordError: `missing_file` where it is missing or cannot be read, `unreadable_header` where it is too large.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            taken = f"takes as {form}" if form else "takes"
            raise RecordError(f"{path}: {size} bytes, more than any ECG {taken}", reason="unreadable_header")
        return path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})", reason="missing_file") from error
