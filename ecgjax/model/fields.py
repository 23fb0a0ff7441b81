"""Fields of a JSON file by name and type, with one sentence for each that is missing or of another type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgjax.errors import ConfigError


class Fields:
    """The fields of an object of a file.

    Args:
        path: File of the object, for messages.
        values: Object as it was read.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]):
        self._path, self._values = path, values

    def text(self, name: str) -> str:
        """Returns a field that is text."""
        return self._of(str, name, "text")

    def count(self, name: str, *, most: int) -> int:
        """Returns a field that is a whole number from 1 to `most`."""
        value = self._of(int, name, "a whole number")
        if not 1 <= value <= most:
            raise self._wrong(name, f"a whole number from 1 to {most:,}")
        return value

    def number(self, name: str) -> float:
        """Returns a field that is a positive number."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._wrong(name, "a number above 0")
        return float(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a field that is a list of texts."""
        value = self._of(list, name, "a list of texts")
        if not all(isinstance(each, str) for each in value):
            raise self._wrong(name, "a list of texts")
        return tuple(value)

    def mapping(self, name: str) -> dict[str, Any]:
        """Returns a field that is an object."""
        return self._of(dict, name, "an object")

    def _of(self, kind: type, name: str, words: str) -> Any:
        value = self._values.get(name)
        # To isinstance, true and false would be whole numbers too.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._wrong(name, words)
        return value

    def _wrong(self, name: str, words: str) -> ConfigError:
        given = ascii(self._values[name])[:60] if name in self._values else "missing"
        return ConfigError(f"{self._path}: {name!r} is {given}, and must be {words}; export the folder again")
