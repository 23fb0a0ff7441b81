"""Parses the first line of a WFDB header, and works around names and dates that the `wfdb` package cannot read.

The line is `NAME SIGNALS RATE [SAMPLES [TIME [DATE]]]` (physionet.org/physiotools/wag/header-5.htm). The number of
samples may be left out, since it follows from the size of the signal file. Time and date are written in many ways and
are not needed here, but the `wfdb` package refuses some of them, and takes the hours of a time for a missing number of
samples. It also refuses a name with an extension (`E00271.mat 12 500 5000`), which WFDB does not allow but the headers
of the CinC challenges have; the files are found by the lines of the signals, so nothing depends on the name. Such a
header is read through a copy without time, date and extension.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_pipelines.files.refusals import missing_metadata, unreadable_header

#: Opens a record: returns a context whose value is the path to read it from.
OpenRecord = Callable[[], contextlib.AbstractContextManager[Path]]

#: Extensions of a record's own files, which some headers put after the record's name.
EXTENSIONS = (".mat", ".hea", ".dat")

DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_LINE = re.compile(
    rf"(?P<name>[-\w]+)(?P<extension>{'|'.join(map(re.escape, EXTENSIONS))})?(?P<segments>/\d+)?"
    rf"\s+(?P<signals>\d{{1,4}})"
    rf"(?:\s+(?P<rate>{DECIMAL}(?:/-?{DECIMAL}(?:\(-?{DECIMAL}\))?)?)"
    r"(?:\s+(?P<samples>\d{1,10})(?!\S))?(?P<moment>\s+\S.*)?)?",
    flags=re.ASCII,
)

_MOMENT = re.compile(r"\s*\d+[:/-]")

# Moments that the wfdb package reads: the standard form, and that of the challenges, whose day it takes for a time.
_STANDARD = re.compile(r"(?P<time>\d{1,2}:\d{1,2}:\d{1,2})(?:\.\d{1,6})?(?:\s+(?P<date>\d{1,2}/\d{1,2}/\d{4}))?")
_OF_CHALLENGES = re.compile(r"(?:0?[1-9]|[12]\d|3[01])-[A-Za-z]{3}-\d{4}\s+\d{1,2}:\d{1,2}:\d{1,2}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordLine:
    """The contents of the first line of a header.

    Attributes:
        num_signals: Number of signals that the header describes.
        has_samples: Whether the line states the number of samples.
        is_segmented: Whether the record consists of segments.
        mended: The line without time and date, and without an extension of the name.
        can_be_read: Whether the `wfdb` package can read the record with this line as it is.
    """

    num_signals: int
    has_samples: bool
    is_segmented: bool
    mended: str
    can_be_read: bool


def parsed_record_line(line: str, header_path: Path) -> RecordLine:
    """Parses a record line.

    Args:
        line: First line of the header that is not a comment.
        header_path: Path of the header, for messages.

    Raises:
        RecordError: The line is not a record line (`unreadable_header`), or states no rate (`missing_metadata`).
    """
    match = _LINE.fullmatch(line)
    # If there is no number of samples, the text after the rate must be a time or a date; otherwise it is damage.
    if match is None or (match["moment"] and not match["samples"] and not _MOMENT.match(match["moment"])):
        raise unreadable_header(
            f"{header_path}: not a WFDB header (first line '{line[:80]}'); the first line is 'NAME SIGNALS RATE "
            "SAMPLES', with a NAME of letters, digits, - and _; restore it from its source"
        )
    if match["rate"] is None:
        raise missing_metadata(
            f"{header_path}: its first line '{line[:80]}' states no rate; WFDB then takes 250 Hz, which is a guess: "
            "write the rate after the number of signals"
        )
    moment = (match["moment"] or "").strip()
    has_extension = match["extension"] is not None
    after_name = line[match.end("extension" if has_extension else "name") :]
    return RecordLine(
        num_signals=int(match["signals"]),
        has_samples=match["samples"] is not None,
        is_segmented=match["segments"] is not None,
        mended=match["name"] + after_name.removesuffix(match["moment"] or ""),
        can_be_read=match["samples"] is not None and not has_extension and (not moment or _is_read(moment)),
    )


def _is_read(moment: str) -> bool:
    if _OF_CHALLENGES.fullmatch(moment):
        return True
    if (match := _STANDARD.fullmatch(moment)) is None:
        return False
    try:
        datetime.datetime.strptime(match["time"], "%H:%M:%S")
        datetime.datetime.strptime(match["date"] or "01/01/2000", "%d/%m/%Y")
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def readable_record(
    path: Path, line: RecordLine, lines: Sequence[str], *, num_samples: int | None = None
) -> Iterator[Path]:
    """Provides a path from which `wfdb` can read a record: the record's own, or that of a copy with a mended header.

    Args:
        path: Path of the record, without extension.
        line: Record line of the header.
        lines: Lines of the header without comments, the record line first.
        num_samples: Number of samples to add to a record line that lacks it.
    """
    if line.can_be_read:
        yield path
        return
    first_line = line.mended if num_samples is None else f"{line.mended} {num_samples}"
    with with_header(path, [first_line, *lines[1:]], signal_lines=lines[1:]) as copy:
        yield copy


@contextlib.contextmanager
def with_header(path: Path, lines: Sequence[str], *, signal_lines: Sequence[str]) -> Iterator[Path]:
    """Provides the path of a copy of a record, in a temporary folder, that has another header.

    Args:
        path: Path of the record, without extension.
        lines: Lines of the other header.
        signal_lines: Lines of the header that name the signal files.
    """
    header_name = f"{path.name}.hea"
    with tempfile.TemporaryDirectory(prefix="wfdb_header_") as folder:
        Path(folder, header_name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        # A signal line that names the header itself would put a link in the place of the copy.
        for name in {line.split()[0] for line in signal_lines} - {header_name}:
            # Links spare a copy of the signals; they hold whole paths, since they lie in another folder. A name that no
            # file beside the header can have is left for the reader to report as missing.
            with contextlib.suppress(OSError, ValueError):
                Path(folder, name).symlink_to(path.with_name(name).resolve())
        yield Path(folder, path.name)
