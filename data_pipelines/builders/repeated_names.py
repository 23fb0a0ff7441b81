"""Recordings under one folder that are known by their file's name: the first of a name has it, others are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data_pipelines.errors import RecordError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedPath:
    """A recording.

    Attributes:
        record_id: its published name; the path below the folder where that name came before.
        path: where it lies.
        first_path: the recording that has the same name, or None.
    """

    record_id: str
    path: Path
    first_path: Path | None


def named_paths(paths: Iterable[Path], folder: Path, *, name_of: Callable[[Path], str]) -> Iterator[NamedPath]:
    """Yields every path with the id that it goes by, in order.

    Args:
        paths: below `folder`.
        folder: that the data set lies in.
        name_of: the published name of a path.
    """
    first_of_name: dict[str, Path] = {}
    for path in paths:
        first = first_of_name.setdefault(name_of(path), path)
        repeated = first is not path
        yield NamedPath(
            record_id=path.relative_to(folder).as_posix() if repeated else name_of(path),
            path=path,
            first_path=first if repeated else None,
        )


def check_first_of_name(path: Path, first_path: Path | None) -> None:
    """Refuses a recording whose name came before.

    Raises:
        RecordError: `duplicate_record`.
    """
    if first_path is not None:
        raise RecordError(f"{path}: {first_path} has the same name; keep one of the two", reason="duplicate_record")
