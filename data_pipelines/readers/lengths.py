"""Finds the length of a recording without reading it, as builds that cut recordings into pieces need it first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import read_contents
from data_pipelines.readers.wfdb_files import LARGEST_HEADER


class Length(NamedTuple):
    """The length of a recording.

    Attributes:
        num_rows: Number of samples of each channel.
        sampling_rate_hz: Number of samples per second and channel.
    """

    num_rows: int
    sampling_rate_hz: float


def wfdb_length(record: Path) -> Length | None:
    """Returns the length that the header of a WFDB record states.

    Args:
        record: Path of the record without extension.

    Returns:
        The length, or None where the header states none that can be parsed, or more than its signal files can hold.
    """
    try:
        header = read_contents(record.with_name(f"{record.name}.hea"), max_bytes=LARGEST_HEADER)
        lines = header.decode("latin-1").splitlines()
        record_line, *signal_lines = [
            line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")
        ]
        _, num_signals, rate, num_rows, *_ = record_line
        # After a slash the frequency of a counter may follow the rate.
        length = Length(int(num_rows), float(rate.partition("/")[0]))
        names = {name for name, *_ in signal_lines}
        num_bytes = sum(record.with_name(name).stat().st_size for name in names)
        # Every format takes at least one byte for a sample.
        return length if length.num_rows * int(num_signals) <= num_bytes else None
    except (OSError, ValueError, RecordError):
        return None


def length_of_item(item: Any) -> Length | None:
    """Returns the length that the header of a builder's item states, of which `path` is that of a WFDB record or None.

    It is None where the header does not state the length, or where there is no record.
    """
    return None if item.path is None else wfdb_length(item.path)
