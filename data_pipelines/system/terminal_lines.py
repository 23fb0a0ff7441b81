"""Texts on lines that a terminal of 80 columns shows whole: what commands report, and errors and warnings.

A report of several lines is broken wherever it goes, as its tables are. An error, a warning or any other single line is
one line in a file, where people and programs look for it, and is broken on a terminal alone.
"""

from __future__ import annotations

import re
import textwrap
from typing import TextIO

#: Number of columns of a terminal that every report fits.
COLUMNS = 80

#: Widest column of names, such as "  fingerprint         ", below whose values the further lines of a value begin.
_WIDEST_NAME = 30

_NAME = re.compile(r" *\S+(?: \S+)* {2,}(?=\S)")


def broken(text: str, *, columns: int = COLUMNS) -> str:
    """Returns a report with its longer lines broken between words.

    A line that begins with a name and its value goes on below the value, any other two letters further in. Paths and
    ids are not broken, since they could not be copied then.

    Args:
        text: Report, of one or several lines.
        columns: Number of letters that fit on a line.
    """
    return "\n".join(_broken_line(line, columns) for line in text.split("\n"))


def for_stream(text: str, stream: TextIO, *, columns: int = COLUMNS) -> str:
    """Returns a single line as a stream shows it: broken on a terminal, unchanged elsewhere.

    Args:
        text: Line, such as an error or a warning.
        stream: Stream that it goes to.
        columns: Number of letters that fit on a line.
    """
    return broken(text, columns=columns) if stream.isatty() else text


def _broken_line(line: str, columns: int) -> str:
    if len(line) <= columns:
        return line
    found = _NAME.match(line)
    if found is not None and len(found[0]) <= _WIDEST_NAME:
        further = len(found[0])
    else:
        further = len(line) - len(line.lstrip(" ")) + 2
    wrapper = textwrap.TextWrapper(columns, break_long_words=False, break_on_hyphens=False)
    wrapper.subsequent_indent = " " * further
    # The wrapper would drop the space before a name, and shorten that behind it.
    start = len(found[0]) if found is not None and further == len(found[0]) else further - 2
    wrapper.initial_indent = line[:start]
    return "\n".join(wrapper.wrap(line[start:]))
