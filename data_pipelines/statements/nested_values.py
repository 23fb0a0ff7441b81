"""Flattens structs, cells, groups, dictionaries, JSON texts and header texts into named values.

A named value (`NamedValue`) is a text, several texts, or numbers, with the names that lead to it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

# Whatever is nested more deeply, or holds more values, does not describe a recording.
_MOST_NESTED = 8
_MOST_VALUES = 5000
_LONGEST_TEXT = 2**20

# Texts under these names are searched for lines such as `fs: 500`.
_DESCRIPTIONS = re.compile(r"info|header|hdr|meta|comment|descr|note|attr|param|setting|remark|readme", re.IGNORECASE)
_LINE = re.compile(r"\s*[#%]*\s*(?P<name>[^:=]{1,60}?)\s*[:=]\s*(?P<value>[^:=].*?)\s*", flags=re.DOTALL)

#: A text, several texts, or numbers.
StatedValue: TypeAlias = str | tuple[str, ...] | np.ndarray


@dataclasses.dataclass(frozen=True)
class NamedValue:
    """One value of a file.

    Attributes:
        path: Names of the containers of the value, from the outermost, followed by its own name.
        value: A text, a tuple of texts, or an array of numbers.
    """

    path: tuple[str, ...]
    value: StatedValue

    @property
    def name(self) -> str:
        """The whole path, as messages show it."""
        return "/".join(self.path)


def named_values(value: Any, path: tuple[str, ...] = ()) -> list[NamedValue]:
    """Returns all plain values within a nested value.

    Args:
        value: Mapping, list, text, number or array; arrays of objects and of structs, as MATLAB files have them, count
            too.
        path: Path of the value itself.
    """
    return list(itertools.islice(_walk(value, path, depth=0), _MOST_VALUES))


def header_line(text: str) -> tuple[str, str] | None:
    """Returns name and value of a line such as `fs = 500` or `# Unit: mV`, or None for any other line."""
    match = _LINE.fullmatch(text)
    return (match["name"].strip(" \t\"'"), match["value"].strip(" \t\"';,")) if match else None


def _walk(value: Any, path: tuple[str, ...], *, depth: int) -> Iterator[NamedValue]:
    if depth > _MOST_NESTED or value is None:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(inner, (*path, str(name)), depth=depth + 1)
    elif isinstance(value, (bytes, str)):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        yield from _of_text(text, path, depth=depth)
    elif isinstance(value, (np.ndarray, np.void)) and value.dtype.names:
        for name in value.dtype.names:
            yield from _walk(value[name], (*path, name), depth=depth + 1)
    elif isinstance(value, np.ndarray):
        yield from _of_array(value, path, depth=depth)
    elif isinstance(value, (list, tuple)):
        yield from _of_list(list(value), path, depth=depth)
    # Python takes truth values for whole numbers, but they state no quantity.
    elif isinstance(value, (bool, np.bool_)):
        return
    elif isinstance(value, (int, float, np.number)):
        yield from _of_number(value, path)


def _of_number(value: Any, path: tuple[str, ...]) -> Iterator[NamedValue]:
    try:
        array = np.asarray(value)
    except OverflowError:  # A whole number beside fractions may be too large for a float.
        return
    if array.dtype.kind in "iuf":
        yield NamedValue(path, array)


def _of_text(text: str, path: tuple[str, ...], *, depth: int) -> Iterator[NamedValue]:
    text = text.strip(" \0\r\n\t")
    if text[:1] in ("{", "[") and len(text) <= _LONGEST_TEXT:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, (dict, list)):
            yield from _walk(value, path, depth=depth + 1)
            return
    if text:
        yield NamedValue(path, text)
        if path and _DESCRIPTIONS.search(path[-1]):
            yield from _of_lines(re.split(r"[\r\n;]+|,(?=[^,:=]*[:=])", text[:_LONGEST_TEXT]), path)


def _of_lines(lines: list[str], path: tuple[str, ...]) -> Iterator[NamedValue]:
    for line in lines:
        if pair := header_line(line):
            yield NamedValue((*path, pair[0]), pair[1])


def _of_array(array: np.ndarray, path: tuple[str, ...], *, depth: int) -> Iterator[NamedValue]:
    if array.dtype.kind in "OSU":
        if array.size == 1:
            yield from _walk(array.reshape(-1)[0], path, depth=depth + (array.dtype.kind == "O"))
        elif array.size <= _MOST_VALUES:
            yield from _of_list(array.ravel().tolist(), path, depth=depth)
    elif array.dtype.kind in "iufM" and array.size:
        yield NamedValue(path, array)


def _of_list(values: list, path: tuple[str, ...], *, depth: int) -> Iterator[NamedValue]:
    values = values[:_MOST_VALUES]
    texts = [_as_text(value) for value in values]
    found = tuple(text.strip(" \0") for text in texts if text is not None)
    if texts and len(found) == len(texts):
        yield NamedValue(path, found)
        if path and _DESCRIPTIONS.search(path[-1]):
            yield from _of_lines(list(found), path)
        return
    if values and all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values):
        yield from _of_number(values, path)
        return
    for value in values:
        yield from _walk(value, path, depth=depth + 1)


def _as_text(value: Any) -> str | None:
    """Returns a text without the array or bytes that it may be wrapped in, as in MATLAB's cells; else None."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU" and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None
