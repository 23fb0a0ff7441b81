"""Headers of the PhysioNet/CinC challenges: scanning them before the signals are read, telling and correcting faults.

1. Headers of Georgia's records name the record with an extension (`E00271.mat 12 500 5000`), which WFDB does not
   allow. `read_wfdb` reads them without it; here they are counted.
2. Georgia's first headers state a gain of 4880/mV. The device resolves 4.88 µV, but the published samples are already
   in µV, so the gain is 1000/mV. A stated gain may be true, so it is only corrected where the samples prove it wrong.

The records are also read from folders of any origin, where the second fault is looked for as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import read_contents
from data_pipelines.lead_names import standard_lead
from data_pipelines.metadata.missing import is_missing
from data_pipelines.readers.wfdb_files import LARGEST_HEADER, read_wfdb
from data_pipelines.readers.wfdb_record_line import EXTENSIONS
from data_pipelines.recording import Recording
from data_pipelines.records import STORED_LEADS
from data_pipelines.system.counted import counted
from data_pipelines.system.workers import map_ordered

#: The gain that Georgia's first headers state and the true one, units per mV.
DOUBTFUL_GAIN = 4880.0
TRUE_GAIN = 1000.0

#: Resolution of Georgia's device, µV. Its samples of I, II, III and the chest leads are multiples of this step with the
#: fraction cut off: all samples were, in the 31 records that were checked. In other sets (PTB-XL, CPSC 2018, and
#: Chapman and Ningbo, whose devices have the same resolution but round) 11 to 87 % of the samples are such multiples by
#: chance; 20 % are if 4880 counts/mV is true, and half are if whole µV were written with that gain.
STEP_UV = DOUBTFUL_GAIN / TRUE_GAIN
_SHARE_ON_STEPS = 0.99

# Scanning a header takes 80 µs from memory and milliseconds from a cold disk; starting a process takes 3 s.
_HEADERS_WORTH_A_PROCESS = 10_000
_HEADERS_PER_TASK = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class CincHeader:
    """What a header states, as far as it could be parsed.

    Attributes:
        has_extension: Whether the record line names the record with an extension.
        gains: Gain of each signal, units per mV; empty where a signal line cannot be parsed.
        codes: SNOMED codes of the `Dx` line, in the header's order; empty where the line is absent or its value is
            unknown.
        samples: Number of samples, then first sample and checksum of every signal, as text. They are equal in copies of
            one recording and hardly ever equal otherwise; empty where the header does not state them.
    """

    has_extension: bool
    gains: tuple[float, ...]
    codes: tuple[str, ...]
    samples: tuple[str, ...] = ()

    @property
    def gain(self) -> float | None:
        """The gain that all signals share; None where they have none or different ones."""
        return self.gains[0] if len(set(self.gains)) == 1 else None

    @property
    def has_doubtful_gain(self) -> bool:
        """Whether every signal has the gain of Georgia's first headers."""
        return bool(self.gains) and all(gain == DOUBTFUL_GAIN for gain in self.gains)


def scan_header(record: Path) -> CincHeader:
    """Returns the facts that a build needs of all records before it stores the first; a damaged header raises no error.

    Args:
        record: Path of the record without extension.
    """
    lines = _lines(record)
    record_line, *signal_lines = [lines[number].split() for number in _content(lines)] or [[]]
    comments = (line.lstrip("# \t").partition(":") for line in lines if line.startswith("#"))
    codes = (dx_codes(value.strip()) for key, _, value in comments if key.strip().casefold() == "dx")
    return CincHeader(
        has_extension=bool(record_line) and record_line[0].endswith(EXTENSIONS),
        gains=_gains(signal_lines),
        samples=_samples(record_line, signal_lines),
        codes=next(codes, ()),
    )


def scan_headers(records: Sequence[Path], *, num_workers: int) -> list[CincHeader]:
    """Returns what `scan_header` finds in the header of each record, in the records' order.

    Args:
        records: Paths of the records without extension.
        num_workers: Number of processes at most; few headers are scanned by this one alone.
    """
    workers = min(num_workers, len(records) // _HEADERS_WORTH_A_PROCESS)
    return list(map_ordered(scan_header, records, num_workers=workers, chunk_size=_HEADERS_PER_TASK))


def extension_notes(headers: Iterable[CincHeader]) -> tuple[str, ...]:
    """Returns the note on headers that name their record with an extension; none where no header does."""
    number = sum(header.has_extension for header in headers)
    name = counted(number, "header names its", "headers name their")
    return (f"{name} record with an extension: read without it",) if number else ()


def doubtful_gain_notes(headers: Iterable[CincHeader]) -> tuple[str, ...]:
    """Returns the note on headers that `with_gain_of_any_origin` doubts; none where there is no such header."""
    if not (number := sum(header.has_doubtful_gain for header in headers)):
        return ()
    return (
        f"{counted(number, 'header states', 'headers state')} {DOUBTFUL_GAIN:g} units/mV: read as {TRUE_GAIN:g} where "
        "the samples prove that, as in Georgia's first headers; else as stated, or, where the header names its record "
        "with an extension as Georgia's do, quarantined as broken_gain",
    )


def dx_codes(text: str) -> tuple[str, ...]:
    """Returns the codes of a `Dx` value such as `"164889003,164909002"`; an empty or unknown value has none."""
    codes = (code.strip() for code in text.split(","))
    return tuple(dict.fromkeys(code for code in codes if not is_missing(code)))


def read_cinc(record: Path, *, correct_gain: bool) -> Recording:
    """Reads a record of the challenges, in spite of the two faults of headers that this module describes.

    Args:
        record: Path of the record without extension.
        correct_gain: Whether a gain of 4880/mV is tested against the samples and corrected, as Georgia's records need.

    Returns:
        The recording, with the units that the header states.

    Raises:
        RecordError: The record cannot be read (see `read_wfdb`), or its gain is doubtful and the samples do not prove
            it wrong (`broken_gain`).
    """
    recording = read_wfdb(record)
    return with_true_gain(recording) if correct_gain and scan_header(record).has_doubtful_gain else recording


def with_gain_of_any_origin(recording: Recording, record: Path) -> Recording:
    """Returns a recording whose origin is not known, with its gain corrected where the samples prove it wrong.

    A gain of 4880/mV can be true of records that are not Georgia's. If the samples do not prove it wrong, it is
    therefore believed, unless the header names its record with an extension, as Georgia's do: then the record is
    refused.

    Args:
        recording: Recording as its WFDB files state it.
        record: Path of the record without extension.

    Raises:
        RecordError: The header is like Georgia's, and the samples do not prove its gain wrong (`broken_gain`).
    """
    # The scales come with the recording, so that hardly any header is read twice.
    if set(recording.scales) != {f"{DOUBTFUL_GAIN:g}/mV"}:
        return recording
    try:
        return with_true_gain(recording)
    except RecordError:
        if scan_header(record).has_extension:
            raise
        return recording


def with_true_gain(recording: Recording) -> Recording:
    """Returns a recording that was read with 4880 units/mV rescaled to 1000 units/mV, if its samples prove that gain.

    They prove it when they are multiples of the device's resolution, cut to whole µV: Georgia's device and its
    publishers' conversion make such samples, and nothing else does.

    Args:
        recording: Recording with a stated gain of 4880 units/mV.

    Raises:
        RecordError: The samples do not prove it (`broken_gain`).
    """
    columns = [column for column, name in enumerate(recording.channels) if standard_lead(name) in STORED_LEADS]
    signal = recording.signal[:][:, columns]
    samples = np.rint(signal[np.isfinite(signal)] * DOUBTFUL_GAIN)
    nearest = np.rint(samples / STEP_UV)
    # Truncation can leave a multiple nearer to the step below it.
    on_steps = np.any([np.trunc((nearest + by) * STEP_UV) == samples for by in (-1, 0, 1)], axis=0)
    if (share := np.count_nonzero(on_steps) / max(1, samples.size)) < _SHARE_ON_STEPS:
        raise RecordError(
            f"{recording.source}: the header's gain of {DOUBTFUL_GAIN:g}/mV is known to be wrong in Georgia's first "
            f"headers, but only {share:.1%} of these samples are multiples of {STEP_UV:g} µV cut to whole µV, as all "
            "of Georgia's are; find out the gain and write it into the header",
            reason="broken_gain",
        )
    return dataclasses.replace(recording, signal=recording.signal * (DOUBTFUL_GAIN / TRUE_GAIN))


def _lines(record: Path) -> list[str]:
    try:
        content = read_contents(record.with_name(f"{record.name}.hea"), max_bytes=LARGEST_HEADER)
    except RecordError:
        # What is wrong with a header is told when its record is read.
        return []
    return content.decode("utf-8", errors="replace").splitlines()


def _content(lines: Sequence[str]) -> list[int]:
    """Returns the numbers of the lines that are not comments: the record line, then the signal lines."""
    return [number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]


def _samples(record_line: Sequence[str], signal_lines: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns what a header states of its samples, as `CincHeader.samples`.

    Args:
        record_line: Words of the line `NAME SIGNALS RATE SAMPLES …`.
        signal_lines: Words of each line `FILE FORMAT GAIN RESOLUTION ZERO FIRST CHECKSUM …`.
    """
    if len(record_line) < 4 or not signal_lines or any(len(line) < 7 for line in signal_lines):
        return ()
    return (record_line[3], *(value for line in signal_lines for value in line[5:7]))


def _gains(signal_lines: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """Returns the gains, units per mV, that lines `FILE FORMAT GAIN(BASELINE)/UNIT …` state; empty if one has none."""
    try:
        return tuple(float(line[2].partition("/")[0].partition("(")[0]) for line in signal_lines)
    except (IndexError, ValueError):
        return ()
