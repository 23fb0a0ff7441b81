"""Makes texts of unknown origin (names, labels, messages) safe to show on a terminal, in JSON and in a table.

A file name may hold the codes that clear a terminal, colour it or reverse the direction of writing, and a cell that
begins with '=' is a formula to whoever opens the table.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Hidden are control characters, lone surrogates (bytes of file names that are no UTF-8), marks of direction, and what
# ends a line only for some programs or shows nothing at all.
_DIRECTION = "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_HIDDEN = re.compile(rf"[\x00-\x09\x0b-\x1f\x7f-\x9f{_DIRECTION}\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]")
_HIDDEN_OR_LINE_END = re.compile(rf"{_HIDDEN.pattern}|\n")

# The range stands for single bytes of file names that are no UTF-8 (PEP 383); other lone surrogates fit in no file.
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF
_LONE = re.compile(r"[\ud800-\udfff]")

# Spreadsheets take these for the beginning of a formula, or strip them before they look for one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def visible(text: str) -> str:
    """Returns a text on one line in which every character can be seen; hidden ones are replaced by their escapes."""
    return text if text.isascii() and text.isprintable() else _HIDDEN_OR_LINE_END.sub(_escape, text)


def visible_report(text: str) -> str:
    """Returns a text of several lines, each made visible as `visible` does, for text that was composed of lines."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(value: Any, *, indent: int | None = 1) -> str:
    """Returns JSON that is safe to print on a terminal; hidden characters are escaped as JSON escapes them."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _HIDDEN.sub(lambda match: json.dumps(match[0])[1:-1], text)


def table_cell(text: str) -> str:
    """Returns a text for a cell of a CSV: on one line, with an apostrophe before it where it would be a formula."""
    cell = visible(text)
    return f"'{cell}" if text.startswith(_FORMULA) else cell


def write_table(path: Path, header: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    """Writes texts of unknown origin as a CSV.

    Args:
        path: Path of the file.
        header: Names of the columns.
        rows: Cells of each row.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(map(table_cell, row) for row in rows)


def storable_text(text: str) -> str:
    """Returns a text that UTF-8 can encode: bytes of file names that are no UTF-8 are replaced by their escapes."""
    return text if text.isascii() else _LONE.sub(_escape, text)


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        code -= _FIRST_BYTE - 0x80
    return chr(code).encode("unicode_escape").decode("ascii")
