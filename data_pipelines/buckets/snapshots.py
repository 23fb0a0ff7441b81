"""Snapshots: what a folder held at one time, as a list of files whose contents never change in the bucket.

BUCKET/FOLDER/
checkpoints/40/metadata@3f2a…        a file, under its name and the beginning of its digest
ecgjax_snapshot-00000012-9c1e….json  the list of all files of snapshot 12, written when all of them are there

A file is never written over, so that an upload that is killed, or answered too late, harms no earlier snapshot. The
list is what makes a snapshot, and it is whole or not there.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data_pipelines.errors import DataError
from data_pipelines.system.digests import file_digest

_FORMAT = 1
_LIST = re.compile(r"ecgjax_snapshot-(\d{8})-([0-9a-f]{16})\.json")
_CONTENT = re.compile(r".+@[0-9a-f]{16}")


class Content(NamedTuple):
    """Contents of a file.

    Attributes:
        size: Number of bytes.
        digest: SHA-256 in hexadecimal.
    """

    size: int
    digest: str

    def is_in(self, path: Path) -> bool:
        """Returns whether a file has these contents."""
        return path.is_file() and path.stat().st_size == self.size and file_digest(path) == self.digest


@dataclasses.dataclass(frozen=True, order=True)
class Version:
    """The place of a snapshot among others.

    Attributes:
        number: Number of the snapshot, higher than those of all before.
        writer: Text that one local folder alone writes under.
    """

    number: int
    writer: str

    @property
    def name(self) -> str:
        """Name of the list in the bucket."""
        return f"ecgjax_snapshot-{self.number:08d}-{self.writer}.json"


def versions(names: Iterable[str]) -> list[Version]:
    """Returns the snapshots among the files of a folder, the latest first."""
    return sorted((Version(int(each[1]), each[2]) for each in map(_LIST.fullmatch, names) if each), reverse=True)


def key_of(name: str, content: Content) -> str:
    """Returns the name that a file's contents have in the bucket."""
    return f"{name}@{content.digest[:16]}"


def is_content(key: str) -> bool:
    """Returns whether a file of a bucket is the contents of one of a snapshot."""
    return _CONTENT.fullmatch(key) is not None


def to_json(files: dict[str, Content]) -> bytes:
    """Returns the list of a snapshot."""
    listed = {name: list(content) for name, content in sorted(files.items())}
    return (json.dumps({"format": _FORMAT, "files": listed}, indent=0) + "\n").encode()


def from_json(text: bytes, *, source: str) -> dict[str, Content]:
    """Returns the files of a snapshot's list, by name.

    Args:
        text: Contents of the list.
        source: Address of the list, for messages.

    Raises:
        DataError: The list is damaged, of another version of ecgjax, or names a file outside of the folder.
    """
    try:
        told = json.loads(text)
        files = {str(name): Content(int(size), str(digest)) for name, (size, digest) in told["files"].items()}
        form = told["format"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{source}: damaged ({type(error).__name__})") from error
    if form != _FORMAT:
        raise DataError(f"{source}: has format {form}, this ecgjax reads format {_FORMAT}; use a later ecgjax")
    for name in files:
        parts = name.split("/")
        if "\\" in name or not name.isprintable() or not all(part not in ("", ".", "..") for part in parts):
            raise DataError(f"{source}: damaged (it names a file outside of the folder)")
    return files
