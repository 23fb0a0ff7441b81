"""Texts on lines that a terminal of 80 columns shows whole: what commands report, and errors and warnings.

A report of several lines is broken wherever it goes, as its tables are. An error, a warning or any other single line is
one line in a file, where people and programs look for it, and is broken on a terminal alone.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import TextIO

#: Number of columns of a terminal that every report fits.
COLUMNS = 80

#: Widest column of names, such as "  fingerprint         ", below whose values the further lines of a value begin.
_WIDEST_NAME = 30

#: Least number of columns that a help is fitted to: below it there would be a word a line.
_FEWEST = 40

_NAME = re.compile(r" *\S+(?: \S+)* {2,}(?=\S)")

#: What stands behind an example on its line: a comment, or what the example is for.
_NOTE = re.compile(r"(.*?\S) {3,}(\S.*)")

#: A word of a command line: a space in quotes or brackets does not end it.
_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\[[^]]*\]|\S)+""")


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


def columns_of(stream: TextIO) -> int | None:
    """Returns the width of a terminal, in letters, or None where a stream goes to no terminal.

    Args:
        stream: Stream, such as standard output.
    """
    return max(shutil.get_terminal_size().columns, _FEWEST) if stream.isatty() else None


def fitted_help(text: str, *, columns: int) -> str:
    """Returns the introduction of a command's help with the lines that are too long broken.

    Paragraphs are filled anew. An example, which is an indented line, still works when it is copied: it is broken
    between words with a backslash, and a comment behind it moves to a line of its own.

    Args:
        text: Introduction, such as the docstring of a command's module.
        columns: Number of letters that fit on a line.
    """
    lines: list[str] = []
    paragraph: list[str] = []
    goes_on = False
    for line in [*text.split("\n"), ""]:
        if line and not line.startswith(" "):
            paragraph.append(line)
            continue
        lines += _filled(paragraph, columns)
        paragraph = []
        lines += _broken_example(line, columns, further=0 if goes_on else 4)
        goes_on = line.endswith("\\")
    return "\n".join(lines[:-1])


def _filled(paragraph: list[str], columns: int) -> list[str]:
    if all(len(line) <= columns for line in paragraph):
        return paragraph
    return textwrap.wrap(" ".join(paragraph), columns, break_long_words=False, break_on_hyphens=False)


def _broken_example(line: str, columns: int, *, further: int) -> list[str]:
    """Returns the lines of an indented line; those after the first are indented by `further` more."""
    if len(line) <= columns:
        return [line]
    indent = len(line) - len(line.lstrip(" "))
    below = " " * (indent + further)
    note = _NOTE.fullmatch(line[indent:])
    words = _WORD.findall(note[1] if note else line[indent:])
    end = "\\" if words[-1] == "\\" else ""
    words = words[:-1] if end else words
    shown = [" " * indent + words[0]]
    for number, word in enumerate(words[1:], start=2):
        # A line that another follows ends with a backslash, for which there must be room.
        room = columns - (2 if end or number < len(words) else 0)
        if len(shown[-1]) + 1 + len(word) <= room:
            shown[-1] += f" {word}"
        else:
            shown[-1] += " \\"
            shown.append(f"{below}{word}")
    if end:
        shown[-1] += f" {end}"
    if note:
        shown += textwrap.wrap(
            note[2], columns, initial_indent=" " * (indent + 4), subsequent_indent=" " * (indent + 4)
        )
    return shown


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
