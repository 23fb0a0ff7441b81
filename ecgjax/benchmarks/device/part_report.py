"""The JSON file of a part, which is on the disk after every single measurement."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.system.atomic_directory import sync, written_whole


class PartReport:
    """The measurements of a part.

    Args:
        path: Path of the file; one that is there is replaced.
        stated: What is known beforehand, as values for JSON.
    """

    def __init__(self, path: Path, stated: Mapping[str, Any]):
        self._path, self._begun = path, time.monotonic()
        self._content: dict[str, Any] = {**stated, "state": "running", "measurements": {}}
        self._write()

    def add(self, name: str, figures: Mapping[str, Any]) -> None:
        """Adds a measurement."""
        self._content["measurements"][name] = {**figures, "at_s": round(time.monotonic() - self._begun, 1)}
        self._write()

    def attempt(self, name: str, measurement: Callable[[], Mapping[str, Any]]) -> None:
        """Takes a measurement and adds it; where it fails, the error is added, and the part goes on."""
        try:
            figures = measurement()
        # Whatever a compiler or a device answers is a result: the next measurement may well succeed.
        except Exception as error:
            figures = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
        self.add(name, figures)

    def end(self, state: str, reason: str | None = None) -> None:
        """Closes the report.

        Args:
            state: State of the part: `done` or `skipped`.
            reason: Reason for skipping it.
        """
        self._content |= {"state": state, "seconds": round(time.monotonic() - self._begun, 1)}
        if reason is not None:
            self._content["reason"] = reason
        self._write()

    def _write(self) -> None:
        write_report(self._path, self._content)


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON that is on the disk when the call returns."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with written_whole(path, making=path.with_name(f".{path.name}.making")) as file:
        file.write(text.encode("utf-8"))
    sync(path.parent)


def read_report(path: Path) -> dict[str, Any]:
    """Returns the content of a report; empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
