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
        within: Place of the object within the file, such as `"head."`, for messages.
    """

    def __init__(self, path: Path, values: Mapping[str, Any], *, within: str = ""):
        self._path, self._values, self._within = path, values, within

    def text(self, name: str, *, most: int | None = None) -> str:
        """Returns a field that is text, of at most `most` signs where that is given."""
        value = self._of(str, name, "text")
        if most is not None and len(value) > most:
            raise self._wrong(name, f"text of at most {most:,} signs")
        return str(value)

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

    def objects(self, name: str, *, most: int) -> list[dict[str, Any]]:
        """Returns a field that is a list of at most `most` objects."""
        value = self._of(list, name, "a list of objects")
        if len(value) > most or not all(isinstance(each, dict) for each in value):
            raise self._wrong(name, f"a list of at most {most:,} objects")
        return list(value)

    def check_has(self, name: str) -> None:
        """Checks that a field is there, of whatever type."""
        if name not in self._values:
            raise self._wrong(name, "there")

    def _of(self, kind: type, name: str, words: str) -> Any:
        value = self._values.get(name)
        # To isinstance, true and false would be whole numbers too.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._wrong(name, words)
        return value

    def _wrong(self, name: str, words: str) -> ConfigError:
        given = ascii(self._values[name])[:60] if name in self._values else "missing"
        return ConfigError(
            f"{self._path}: {self._within + name!r} is {given}, and must be {words}; export the folder again"
        )
