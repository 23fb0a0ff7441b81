"""What a user gave as the folder of recordings, and what to do where it is something else."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.files.content_kind import content_kind, head_of
from data_pipelines.prepared.dataset import CARD_FILE

#: The builder that reads what builds wrote.
PREPARED_BUILDER = "prepared"


def check_source(path: Path, given: str, *, builder: str) -> None:
    """Raises unless a path is a folder that a builder may look for recordings in.

    Args:
        path: that was given.
        given: the same as the user wrote it.
        builder: that is to read it.

    Raises:
        DataError: not there, a file, an archive, in a bucket, or a prepared data set; says what to do.
    """
    if "://" in given:
        raise DataError(f"--source={given}: recordings are read as files; mount the bucket, or copy the folder here")
    if path.is_file():
        raise DataError(f"--source={path}: {_about_file(path)}")
    if not path.is_dir():
        raise DataError(f"--source={path}: no such directory")
    if (path / CARD_FILE).is_file() and builder != PREPARED_BUILDER:
        raise DataError(
            f"--source={path}: is a prepared data set, not a folder of recordings; train on it as it is, take it "
            f"through another recipe with --builder={PREPARED_BUILDER}, or give the folder that it was made from"
        )


def _about_file(path: Path) -> str:
    if path.name == CARD_FILE:
        return f"is the card of a prepared data set; give its folder, {path.parent}, to --builder={PREPARED_BUILDER}"
    kind = content_kind(head_of(path))
    if kind is not None and "unpack" in kind.remedy:
        return f"is {kind.name}; {kind.remedy}, and give the folder that it unpacks to"
    return f"is a file; give the folder that it lies in, {path.parent}"
