"""Lists the files of a source when it is read, so that files added, removed or changed afterwards are noticed.

Names, sizes and times are compared, but not contents: listing a million files takes seconds, reading them hours. A
prepared data set keeps the listing as numbers (`source_files.npy`), with names as hashes, since they may be names of
patients.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from data_pipelines.files.tree import files_under
from data_pipelines.system.visible_text import visible

#: File of the source's listing, beside the data set's card.
LISTING_FILE = "source_files.npy"

_FIELDS = [("name", "<u8"), ("size", "<i8"), ("time", "<i8")]

#: Names of files that accompany recordings but hold none. Any other file may be a recording, or a table of recordings:
#: DICOM files have any suffix.
_BESIDE = frozenset({"changelog", "license", "md5sums", "readme", "records", "sha256sums"})
# fmt: off
_SUFFIXES_BESIDE = frozenset((
    ".bib", ".css", ".doc", ".docx", ".gif", ".gz", ".htm", ".html", ".ipynb", ".jpeg", ".jpg", ".js", ".log", ".m",
    ".md", ".odt", ".pdf", ".png", ".ppt", ".pptx", ".py", ".r", ".rst", ".sh", ".svg", ".tar", ".tex", ".toml",
    ".txt", ".url", ".xls", ".xlsx", ".yaml", ".yml", ".zip",
))
# fmt: on

#: If more than this share of the files have another time at the same size, the source was copied.
_COPIED = 0.9

_SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceListing:
    """Files of a source that recordings may be read from.

    Attributes:
        files: Structured array of name (a hash), size in bytes and time of change in ns, sorted by name.
        names: Path below the source of every file, by the hash of its name; empty for a listing that was read from a
            file.
    """

    files: np.ndarray
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of names, sizes and times, as hexadecimal text."""
        return hashlib.blake2b(self.files.tobytes(), digest_size=16).hexdigest()

    def write(self, path: Path) -> None:
        """Writes the listing to a file, without names."""
        np.save(path, self.files, allow_pickle=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceChanges:
    """The differences between two listings of a source.

    Attributes:
        new: Files that were added.
        gone: Number of files that were removed.
        changed: Files with another size or time.
        is_copied: Whether nearly all files have another time but none has another size, as in a copy.
    """

    new: tuple[str, ...]
    gone: int
    changed: tuple[str, ...]
    is_copied: bool

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.changed)

    def __str__(self) -> str:
        counts = (
            (len(self.new), "new", self.new),
            (self.gone, "gone", ()),
            (len(self.changed), "changed", self.changed),
        )
        return ", ".join(f"{count:,} {word}{self._shown(names)}" for count, word, names in counts if count)

    @staticmethod
    def _shown(names: Collection[str]) -> str:
        shown = [visible(name) for name in list(names)[:_SHOWN]]
        return f" ({', '.join(shown)}{', …' if len(names) > len(shown) else ''})" if shown else ""


def list_source(source: Path, *, leave_out: Collection[Path] = ()) -> SourceListing:
    """Lists the files of a source.

    Args:
        source: Folder of the recordings, which is searched recursively.
        leave_out: Files and folders to ignore, such as a data set that is written below the source.
    """
    root = source.resolve()
    left_out = [source / path.resolve().relative_to(root) for path in leave_out if path.resolve().is_relative_to(root)]
    rows, names = [], {}
    for path in files_under(source):
        if not _may_be_read(path.name) or any(path.is_relative_to(folder) for folder in left_out):
            continue
        try:
            status = path.stat()
        except OSError:
            continue  # The file was removed during the listing.
        name = path.relative_to(source).as_posix()
        # The names of files need not be valid UTF-8.
        key = int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")
        names[key] = name
        rows.append((key, status.st_size, status.st_mtime_ns))
    return SourceListing(files=np.sort(np.array(rows, _FIELDS), order="name"), names=names)


def open_listing(path: Path) -> SourceListing | None:
    """Returns the listing in a file, without names; None if there is no listing there that can be read."""
    try:
        files = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return SourceListing(files=files) if files.dtype == np.dtype(_FIELDS) else None


def changes_since(before: SourceListing, now: SourceListing) -> SourceChanges:
    """Compares two listings of a source.

    Args:
        before: Listing that was kept.
        now: Listing of the source as it is now.
    """
    _, old, new = np.intersect1d(before.files["name"], now.files["name"], assume_unique=True, return_indices=True)
    other_size = before.files["size"][old] != now.files["size"][new]
    other_time = before.files["time"][old] != now.files["time"][new]
    is_copied = bool(len(old)) and not other_size.any() and float(other_time.mean()) > _COPIED
    changed = other_size if is_copied else other_size | other_time
    came = np.setdiff1d(np.arange(len(now.files)), new)
    return SourceChanges(
        new=_names(now, came), gone=len(before.files) - len(old), changed=_names(now, new[changed]), is_copied=is_copied
    )


def _names(listing: SourceListing, rows: np.ndarray) -> tuple[str, ...]:
    return tuple(sorted(listing.names.get(key, "?") for key in listing.files["name"][rows].tolist()))


def _may_be_read(name: str) -> bool:
    """Returns whether a file of this name may hold a recording or a table of recordings."""
    stem, suffix = os.path.splitext(name.lower())
    return not name.startswith(".") and suffix not in _SUFFIXES_BESIDE and (bool(suffix) or stem not in _BESIDE)
