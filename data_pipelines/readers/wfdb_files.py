"""WFDB records: a `.hea` header and the signal files it names, checked against each other.

The `wfdb` package reads a signal file that is longer than its header says without a word, and does not look at
the header's checksums; both are checked here, because a header that disagrees with its file is the usual trace
of a damaged or mixed-up copy.
"""

from __future__ import annotations

import math
from pathlib import Path

import wfdb

from data_pipelines.errors import RecordError
from data_pipelines.readers.recording import Recording

#: Bytes per sample of the WFDB formats of fixed size; others (FLAC, skewed bit packings) are sized by wfdb itself.
BYTES_PER_SAMPLE = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5}


def read_wfdb(record: Path | str) -> Recording:
    """Reads one WFDB record.

    Args:
        record: path of the record without extension, as WFDB names it (`…/00001_hr`); both the header `.hea` and
            the signal files it names (`.dat`, MATLAB v4 `.mat`) must lie there.

    Returns:
        The recording in the header's units.

    Raises:
        RecordError: with reason `missing_file`, `unreadable_header`, `truncated_file` or `header_disagrees`.
    """
    path = Path(record)
    header_path = path.with_name(path.name + ".hea")
    header = _read_header(header_path, path)
    _check_file_sizes(header, header_path)
    try:
        # int64 samples: the checksum below adds them up.
        digital = wfdb.rdrecord(str(path), physical=False, return_res=64)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise RecordError(
            f"{header_path}: the signal files do not match this header ({error}); restore both from one source",
            reason="header_disagrees",
        ) from error
    _check_checksums(digital, header_path)
    return Recording(
        source=str(path),
        signal=digital.dac(return_res=64),
        sampling_rate_hz=float(digital.fs),
        channels=tuple(name or "" for name in digital.sig_name),
        units=tuple(unit or "" for unit in digital.units),
        fields=_fields(digital.comments),
    )


def _read_header(header_path: Path, path: Path) -> wfdb.Record:
    if not header_path.is_file():
        raise RecordError(
            f"{header_path}: no such header; check the path, or remove the record from the list", reason="missing_file"
        )
    try:
        header = wfdb.rdheader(str(path))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise RecordError(
            f"{header_path}: not a WFDB header ({error}); the first line is "
            "'NAME SIGNALS RATE SAMPLES', with NAME free of a file extension",
            reason="unreadable_header",
        ) from error
    if isinstance(header, wfdb.MultiRecord):
        raise RecordError(
            f"{header_path}: a multi-segment record; give its segments as records of their own",
            reason="unreadable_header",
        )
    if not header.n_sig or not header.sig_len or not header.fs:
        raise RecordError(
            f"{header_path}: the record line names {header.n_sig} signals of {header.sig_len} samples "
            f"at {header.fs} Hz; all three must be above zero",
            reason="unreadable_header",
        )
    if any(samples != 1 for samples in header.samps_per_frame):
        raise RecordError(
            f"{header_path}: channels of unequal rates ({header.samps_per_frame} samples per frame); "
            "resample them to one rate first",
            reason="unreadable_header",
        )
    return header


def _check_file_sizes(header: wfdb.Record, header_path: Path) -> None:
    for name in dict.fromkeys(header.file_name):
        signal_path = header_path.with_name(name)
        if not signal_path.is_file():
            raise RecordError(
                f"{signal_path}: no such file, but {header_path.name} names it; restore it", reason="missing_file"
            )
        channels = [i for i, other in enumerate(header.file_name) if other == name]
        formats = {header.fmt[i] for i in channels}
        if len(formats) > 1 or not formats <= BYTES_PER_SAMPLE.keys():
            continue
        offset = header.byte_offset[channels[0]] or 0
        expected = offset + math.ceil(header.sig_len * len(channels) * BYTES_PER_SAMPLE[formats.pop()])
        size = signal_path.stat().st_size
        shape = f"{header_path.name} says {len(channels)} signals of {header.sig_len} samples, {expected} bytes"
        if size < expected:
            raise RecordError(
                f"{signal_path}: truncated, {size} bytes where {shape}; copy the file again", reason="truncated_file"
            )
        if size > expected:
            raise RecordError(
                f"{signal_path}: {size} bytes where {shape}; header and file are not of one recording",
                reason="header_disagrees",
            )


def _check_checksums(digital: wfdb.Record, header_path: Path) -> None:
    sums = digital.d_signal.sum(axis=0) & 0xFFFF
    for channel, (found, stated) in enumerate(zip(sums, digital.checksum, strict=True)):
        if stated is not None and int(found) != stated & 0xFFFF:
            raise RecordError(
                f"{header_path}: signal {channel} ({digital.sig_name[channel]}) has checksum {int(found)}, the header "
                f"says {stated & 0xFFFF}; the samples were changed or damaged after the header was written",
                reason="header_disagrees",
            )


def _fields(comments: list[str]) -> dict[str, str]:
    """Parses `key: value` comment lines, the way CinC, PTB and CODE-15 headers carry metadata."""
    pairs = (comment.partition(":") for comment in comments)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon and value.strip()}


def find_wfdb_records(folder: Path) -> list[Path]:
    """Returns every WFDB record under `folder` as a path without extension, sorted by its relative path."""
    headers = (path.with_suffix("") for path in folder.rglob("*.hea") if path.is_file())
    return sorted(headers, key=lambda path: path.relative_to(folder).as_posix())
