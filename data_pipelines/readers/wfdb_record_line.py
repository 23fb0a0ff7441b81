"""The first line of a WFDB header, and headers whose date no program can read.

The line is `NAME SIGNALS RATE [SAMPLES [TIME [DATE]]]` (physionet.org/physiotools/wag/header-5.htm). The number of
samples may be left out, as it follows from the size of the signal file. Time and date are written in many ways and
nothing here needs them, but the `wfdb` package refuses some, and takes the hours of a time for a missing number of
samples; such a header is read through a copy without them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_pipelines.errors import RecordError

#: Gives the path to read a record from, for as long as it is read.
OpenRecord = Callable[[], contextlib.AbstractContextManager[Path]]

_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_LINE = re.compile(
    rf"(?P<name>[-\w]+)(?P<segments>/\d+)?\s+(?P<signals>\d{{1,4}})"
    rf"(?:\s+(?P<rate>{_DECIMAL}(?:/-?{_DECIMAL}(?:\(-?{_DECIMAL}\))?)?)"
    r"(?:\s+(?P<samples>\d{1,10})(?!\S))?(?P<moment>\s+\S.*)?)?",
    flags=re.ASCII,
)

_MOMENT = re.compile(r"\s*\d+[:/-]")

# What the wfdb package reads: the standard's form, and the challenges', of which it takes the day for a time.
_STANDARD = re.compile(r"(?P<time>\d{1,2}:\d{1,2}:\d{1,2})(?:\.\d{1,6})?(?:\s+(?P<date>\d{1,2}/\d{1,2}/\d{4}))?")
_OF_CHALLENGES = re.compile(r"(?:0?[1-9]|[12]\d|3[01])-[A-Za-z]{3}-\d{4}\s+\d{1,2}:\d{1,2}:\d{1,2}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordLine:
    """What the first line of a header says.

    Attributes:
        num_signals: signals described.
        has_samples: whether it says how many samples there are.
        is_segmented: whether the record is one of segments.
        without_moment: the line without time and date.
        can_be_read: whether the `wfdb` package reads rows of the record by it as it is.
    """

    num_signals: int
    has_samples: bool
    is_segmented: bool
    without_moment: str
    can_be_read: bool


def parsed_record_line(line: str, header_path: Path) -> RecordLine:
    """Takes a record line apart.

    Args:
        line: the first line of the header that is no comment.
        header_path: the header, for messages.

    Raises:
        RecordError: `unreadable_header`, or `missing_metadata` where there is no rate.
    """
    match = _LINE.fullmatch(line)
    # Without a number of samples, what follows the rate is a time or a date, or damage.
    if match is None or (match["moment"] and not match["samples"] and not _MOMENT.match(match["moment"])):
        raise RecordError(
            f"{header_path}: not a WFDB header (first line '{line[:80]}'); the first line is 'NAME SIGNALS RATE "
            "SAMPLES', with NAME free of a file extension",
            reason="unreadable_header",
        )
    if match["rate"] is None:
        raise RecordError(
            f"{header_path}: its first line '{line[:80]}' states no rate; WFDB then takes 250 Hz, which is a guess: "
            "write the rate after the number of signals",
            reason="missing_metadata",
        )
    moment = (match["moment"] or "").strip()
    return RecordLine(
        num_signals=int(match["signals"]),
        has_samples=match["samples"] is not None,
        is_segmented=match["segments"] is not None,
        without_moment=line[: match.start("moment")] if match["moment"] else line,
        can_be_read=match["samples"] is not None and (not moment or _is_read(moment)),
    )


def _is_read(moment: str) -> bool:
    if _OF_CHALLENGES.fullmatch(moment):
        return True
    match = _STANDARD.fullmatch(moment)
    if match is None:
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
    """Gives the path that the `wfdb` package can read a record from: its own, or that of a copy of the header.

    Args:
        path: of the record, without extension.
        line: its record line.
        lines: of its header without comments, the record line first.
        num_samples: what to add to a record line without it.
    """
    if line.can_be_read:
        yield path
        return
    first_line = line.without_moment if num_samples is None else f"{line.without_moment} {num_samples}"
    with tempfile.TemporaryDirectory(prefix="wfdb_header_") as folder:
        copy = Path(folder, path.name)
        copy.with_name(f"{path.name}.hea").write_text("\n".join([first_line, *lines[1:]]) + "\n", encoding="ascii")
        for name in {signal.split()[0] for signal in lines[1:]} - {f"{path.name}.hea"}:
            # A name that cannot be one of a file is left for the reader to miss.
            with contextlib.suppress(OSError, ValueError):
                Path(folder, name).symlink_to(path.with_name(name).resolve())
        yield copy
