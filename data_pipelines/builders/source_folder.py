"""Checks the path that a user gave as the folder of recordings; errors say what to do."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.files.content_kind import content_kind, head_of
from data_pipelines.prepared.dataset import CARD_FILE

#: Name of the builder that reads prepared data sets.
PREPARED_BUILDER = "prepared"


def check_source(path: Path, given: str, *, builder: str) -> None:
    """Raises an error unless the path is a folder in which the builder can look for recordings.

    Args:
        path: Path to check.
        given: The same path as the user wrote it.
        builder: Name of the builder that will read it.

    Raises:
        DataError: The path does not exist or is a file, an archive, a bucket or a prepared data set; the message says
            what to do.
    """
    # As a path it would merely not exist, which would tell nobody what to do.
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
    if (kind := content_kind(head_of(path))) is not None and "unpack" in kind.remedy:
        return f"is {kind.name}; {kind.remedy}, and give the folder that it unpacks to"
    return f"is a file; give the folder that it lies in, {path.parent}"
