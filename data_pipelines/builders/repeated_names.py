"""Ids of recordings that are identified by file name: only the first recording with a name is accepted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data_pipelines.errors import RecordError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedPath:
    """A recording and its id.

    Attributes:
        record_id: Published name of the recording, or its path below the folder where an earlier one has that name.
        path: Path of the recording.
        first_path: Earlier recording with the same name, or None.
    """

    record_id: str
    path: Path
    first_path: Path | None


def named_paths(paths: Iterable[Path], folder: Path, *, name_of: Callable[[Path], str]) -> Iterator[NamedPath]:
    """Yields every path with its id, in order.

    Args:
        paths: Paths of the recordings, all below `folder`.
        folder: Folder of the data set.
        name_of: Function from a path to its published name.
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
    """Raises an error for a recording whose name an earlier recording has.

    Args:
        path: Path of the recording.
        first_path: Path of the earlier recording, or None if there is none.

    Raises:
        RecordError: The name is repeated (`duplicate_record`).
    """
    if first_path is not None:
        raise RecordError(f"{path}: {first_path} has the same name; keep one of the two", reason="duplicate_record")
