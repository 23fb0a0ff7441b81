"""How long a recording is, before it is read: a build that cuts recordings into pieces must know how many there are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import read_contents
from data_pipelines.readers.wfdb_files import LARGEST_HEADER


class Length(NamedTuple):
    """Length of a recording.

    Attributes:
        num_rows: samples of each channel.
        sampling_rate_hz: samples per second and channel.
    """

    num_rows: int
    sampling_rate_hz: float


def wfdb_length(record: Path) -> Length | None:
    """Returns the length that the header of a WFDB record states.

    Args:
        record: path of the record without extension.

    Returns:
        None where the header states no length that can be understood, or more than its signal files can hold.
    """
    try:
        header = read_contents(record.with_name(f"{record.name}.hea"), max_bytes=LARGEST_HEADER)
        lines = header.decode("latin-1").splitlines()
        record_line, *signal_lines = [
            line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")
        ]
        _, num_signals, rate, num_rows, *_ = record_line
        length = Length(int(num_rows), float(rate.partition("/")[0]))
        names = {name for name, *_ in signal_lines}
        num_bytes = sum(record.with_name(name).stat().st_size for name in names)
        # No format takes less than a byte for a sample.
        return length if length.num_rows * int(num_signals) <= num_bytes else None
    except (OSError, ValueError, RecordError):
        return None
