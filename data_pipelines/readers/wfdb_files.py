"""Reads WFDB records: a `.hea` header and the signal files it names, checked against each other.

The `wfdb` package silently reads a signal file that is longer than its header says, and does not look at the header's
checksums. Both are checked here, because a header that disagrees with its file is the usual trace of a damaged or
mixed-up copy. The package also ignores what follows the part of a header line that it can parse ('10x00/mV' is a gain
of 10), and drops characters that are not ASCII (µV becomes V). The whole header is therefore matched against its
grammar first (physionet.org/physiotools/wag/header-5.htm).

A comment such as `fs: 250` or `Units: uV` that contradicts the header is noticed.

Not supported are multi-segment records, channels with unequal rates or with skew in time, formats that are not in
`BYTES_PER_SAMPLE` (FLAC, packed triples), and signals without a gain, which by definition are not calibrated.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import numpy as np
import wfdb

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import decoded, read_contents
from data_pipelines.files.refusals import (
    header_disagrees,
    missing_file,
    missing_metadata,
    refusing,
    truncated_file,
    unreadable_header,
)
from data_pipelines.files.samples import ConvertedSamples, ReadAhead, row_blocks, unreadable
from data_pipelines.files.tree import files_under
from data_pipelines.readers.wfdb_comments import check_comments, comment_fields
from data_pipelines.readers.wfdb_record_line import DECIMAL, OpenRecord, RecordLine, parsed_record_line, readable_record
from data_pipelines.recording import Recording, Samples
from data_pipelines.system.counted import counted

#: Bytes per sample of the WFDB formats that are read.
BYTES_PER_SAMPLE = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5}

# Ten digits are enough for every 32-bit integer, and cannot overflow a 64-bit one.
_INTEGER = r"-?\d{1,10}"

# Parts of a line: file, format, gain (baseline) / unit, and then optionally, each only after those before it:
# resolution, zero, first value, checksum, block size, name.
_SIGNAL_LINE = re.compile(
    rf"[-\w]+(?:\.\w+)?\s+\d+(?:x\d+)?(?::\d+)?(?:\+\d+)?"
    rf"\s+(?P<gain>-?{DECIMAL}(?:e[+-]?\d+)?)(?:\({_INTEGER}\))?(?:/[\w^?%/-]+)?"
    rf"(?:\s+\d+(?:\s+{_INTEGER}(?:\s+{_INTEGER}(?:\s+{_INTEGER}(?:\s+\d+(?:\s+\S[^\t]*)?)?)?)?)?)?",
    flags=re.ASCII,
)

# Control characters end lines for some readers and not for others.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_SMALLEST_GAIN, _LARGEST_GAIN = 1e-9, 1e12
_LARGEST_RATE_HZ = 1e6

#: Largest size of a header in bytes; thousands of signals and as many comments take less.
LARGEST_HEADER = 2**22


def read_wfdb(record: Path | str) -> Recording:
    """Reads one WFDB record.

    Args:
        record: Path of the record without extension, as WFDB names it (`…/00001_hr`); the header `.hea` and the signal
            files that it names (`.dat`, MATLAB v4 `.mat`) must be there.

    Returns:
        The recording, with the units that the header states.

    Raises:
        RecordError: The header or a signal file is missing or cannot be read (`missing_file`, `unreadable_header`,
            `truncated_file`), or the header is incomplete or contradicts the files (`missing_metadata`,
            `header_disagrees`).
    """
    path = Path(record)
    header_path = path.with_name(path.name + ".hea")
    lines, comments = _lines(header_path)
    line = parsed_record_line(lines[0] if lines else "", header_path)
    gains = _check_grammar(line, lines, header_path)
    opened: OpenRecord = functools.partial(readable_record, path, line, lines)
    header = _read_header(header_path, opened)
    _check_signals(header, gains, header_path)
    if not line.has_samples:
        header.sig_len = _num_samples(header, header_path)
        opened = functools.partial(readable_record, path, line, lines, num_samples=header.sig_len)
    _check_length(header, header_path)
    _check_file_sizes(header, header_path)
    check_comments(comments, header, header_path)
    what = f"{header_path}: the signal files do not match this header"
    with refusing(header_disagrees, what, "restore both from one source"):
        signal, sums = _samples(header, path, opened)
    _check_checksums(header, sums, header_path)
    return Recording(
        source=str(path),
        signal=signal,
        sampling_rate_hz=float(header.fs),
        channels=tuple(name or "" for name in header.sig_name),
        units=tuple(unit or "" for unit in header.units),
        fields=comment_fields(comments),
        scales=tuple(f"{gain:g}/{unit or 'mV'}" for gain, unit in zip(gains, header.units, strict=True)),
    )


def _samples(header: wfdb.Record, path: Path, opened: OpenRecord) -> tuple[Samples, np.ndarray]:
    """Returns the samples in physical units, `[time, channel]`, and the sum of each channel's counts, `i64[channel]`.

    The samples of long records are read lazily.
    """
    shape = (header.sig_len, header.n_sig)
    sums = np.zeros(header.n_sig, np.int64)
    # Format 8 stores differences, which cannot be read without all earlier ones.
    blocks = [(0, header.sig_len)] if "8" in header.fmt else list(row_blocks(shape))
    for start, stop in blocks:
        digital = _digital(opened, start, stop)
        sums += digital.d_signal.sum(axis=0)
    if len(blocks) == 1:
        return digital.dac(return_res=64), sums

    def physical(start: int, stop: int) -> np.ndarray:
        try:
            return _digital(opened, start, stop).dac(return_res=64)
        except Exception as error:  # The errors are those of the first read.
            raise unreadable(str(path), error) from error

    # Blocks are read ahead, because each read parses the header again, which takes longer than ten seconds of samples.
    return ConvertedSamples(shape, ReadAhead(shape, physical)), sums


def _digital(opened: OpenRecord, start: int, stop: int) -> wfdb.Record:
    with opened() as path:
        # The samples are int64 so that the checksum, their sum, does not overflow.
        return wfdb.rdrecord(str(path), sampfrom=start, sampto=stop, physical=False, return_res=64)


def _lines(header_path: Path) -> tuple[list[str], list[str]]:
    """Returns the lines of a header that are not comments, and its comments."""
    try:
        content = read_contents(header_path, max_bytes=LARGEST_HEADER, form="WFDB header")
    except RecordError as error:
        if error.reason == "missing_file":
            message = f"{header_path}: no such header ({error}); check the path, or remove the record from the list"
            raise missing_file(message) from error
        raise
    if _CONTROL.search(content):
        raise unreadable_header(f"{header_path}: not a WFDB header (it has control characters); copy it again")
    all_lines = [line.strip() for line in decoded(content).splitlines()]
    lines = [line for line in all_lines if line and not line.startswith("#")]
    return lines, [line.strip(" \t#") for line in all_lines if line.startswith("#")]


def _check_grammar(record_line: RecordLine, lines: list[str], header_path: Path) -> list[float]:
    """Checks every line that describes a signal, and returns the gains, one per signal.

    Raises:
        RecordError: A line is malformed, or the record has segments (`unreadable_header`); or the number of lines is
            another than stated (`header_disagrees`).
    """
    if record_line.is_segmented:
        raise unreadable_header(f"{header_path}: a multi-segment record; give its segments as records of their own")
    if len(lines) - 1 != record_line.num_signals:
        raise header_disagrees(
            f"{header_path}: describes {counted(len(lines) - 1, 'signal')}, where its first line says "
            f"{record_line.num_signals}; restore it"
        )
    gains = []
    for line in lines[1:]:
        if (match := _SIGNAL_LINE.fullmatch(line)) is None or not line.isascii():
            raise unreadable_header(
                f"{header_path}: '{line[:80]}' describes no signal; a line is 'FILE FORMAT GAIN(BASELINE)/UNIT "
                "RESOLUTION ZERO FIRST CHECKSUM BLOCK NAME' in plain ASCII (µV is written uV), with a gain"
            )
        gains.append(float(match["gain"]))
    return gains


def _read_header(header_path: Path, opened: OpenRecord) -> wfdb.Record:
    with (
        refusing(unreadable_header, f"{header_path}: not a WFDB header", "restore it from its source"),
        opened() as path,
    ):
        header = wfdb.rdheader(str(path))
    # Without signals wfdb leaves out the fields that the other checks look at.
    if not header.n_sig:
        _check_length(header, header_path)
    return header


def _check_length(header: wfdb.Record, header_path: Path) -> None:
    if not header.n_sig or not header.sig_len or not 0 < header.fs <= _LARGEST_RATE_HZ:
        raise unreadable_header(
            f"{header_path}: the record line names {header.n_sig} signals of {header.sig_len} samples "
            f"at {header.fs} Hz; all three must be above zero"
        )


def _num_samples(header: wfdb.Record, header_path: Path) -> int:
    """Returns the number of samples per lead by the first file's size; `_check_file_sizes` compares all files."""
    name = header.file_name[0]
    try:
        size = header_path.with_name(name).stat().st_size
    except OSError:
        return 1  # It is not zero, so that the missing file is reported later, with any others.
    num_channels = header.file_name.count(name)
    # Bits are counted, since two samples of format 212 share three bytes.
    bits = round((size - (header.byte_offset[0] or 0)) * 8 / BYTES_PER_SAMPLE[header.fmt[0]])
    return int(bits // 8 // num_channels)


def _check_signals(header: wfdb.Record, gains: list[float], header_path: Path) -> None:
    """Raises `RecordError` for what the grammar allows but is not supported, or would be read wrongly."""
    if any(samples != 1 for samples in header.samps_per_frame):
        raise unreadable_header(
            f"{header_path}: channels of unequal rates ({header.samps_per_frame} samples per frame); "
            "resample them to one rate first"
        )
    if any(header.skew):
        raise unreadable_header(f"{header_path}: channels are skewed by {header.skew} samples; align them first")
    # The gains are those of the text, because wfdb has replaced a gain of 0 with 200.
    for name, gain in zip(header.sig_name, gains, strict=True):
        if not _SMALLEST_GAIN < abs(gain) < _LARGEST_GAIN:
            message = f"{header_path}: signal {name} has a gain of {gain:g}, so it is not calibrated; correct it"
            raise missing_metadata(message)
    for file_name in dict.fromkeys(header.file_name):
        channels = [i for i, other in enumerate(header.file_name) if other == file_name]
        layouts = {(header.fmt[i], header.byte_offset[i] or 0) for i in channels}
        known = all(layout[0] in BYTES_PER_SAMPLE for layout in layouts)
        if len(layouts) > 1 or not known or channels[-1] - channels[0] >= len(channels):
            raise unreadable_header(
                f"{header_path}: signals in {file_name} have format and offset {sorted(layouts)}; one after the "
                f"other, of one offset and one format are read, of formats {', '.join(BYTES_PER_SAMPLE)}"
            )


def _check_file_sizes(header: wfdb.Record, header_path: Path) -> None:
    for name in dict.fromkeys(header.file_name):
        signal_path = header_path.with_name(name)
        if not signal_path.is_file():
            raise missing_file(f"{signal_path}: no such file, but {header_path.name} names it; restore it")
        channels = [i for i, other in enumerate(header.file_name) if other == name]
        offset, bytes_per_sample = header.byte_offset[channels[0]] or 0, BYTES_PER_SAMPLE[header.fmt[channels[0]]]
        expected = offset + math.ceil(header.sig_len * len(channels) * bytes_per_sample)
        size = signal_path.stat().st_size
        shape = f"{header_path.name} says {len(channels)} signals of {header.sig_len} samples, {expected} bytes"
        if size < expected:
            raise truncated_file(f"{signal_path}: truncated, {size} bytes where {shape}; copy the file again")
        if size > expected:
            message = f"{signal_path}: {size} bytes where {shape}; header and file are not of one recording"
            raise header_disagrees(message)


def _check_checksums(header: wfdb.Record, sums: np.ndarray, header_path: Path) -> None:
    for channel, (found, stated) in enumerate(zip(sums & 0xFFFF, header.checksum, strict=True)):
        if stated is not None and int(found) != stated & 0xFFFF:
            raise header_disagrees(
                f"{header_path}: signal {channel} ({header.sig_name[channel]}) has checksum {int(found)}, the header "
                f"says {stated & 0xFFFF}; the samples were changed or damaged after the header was written"
            )


def find_wfdb_records(folder: Path) -> list[Path]:
    """Returns all WFDB records under `folder` as paths without extension, sorted by relative path."""
    headers = (path.with_suffix("") for path in files_under(folder) if path.suffix == ".hea")
    return sorted(headers, key=lambda path: path.relative_to(folder).as_posix())
