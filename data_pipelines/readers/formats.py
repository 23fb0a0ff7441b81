"""Assigns files to readers, and finds every recording in a folder tree of mixed formats."""

from __future__ import annotations

import dataclasses
import re
import types
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from data_pipelines.errors import DataError, RecordError
from data_pipelines.files.content_kind import content_kind, head_of, is_dicom, not_brought, other_dicom_class
from data_pipelines.files.tree import list_tree
from data_pipelines.readers.arrays import read_numpy
from data_pipelines.readers.dicom_files import read_dicom
from data_pipelines.readers.foreign import kind_of_suffix
from data_pipelines.readers.hdf5_files import read_hdf5
from data_pipelines.readers.matlab_files import read_matlab
from data_pipelines.readers.table_files import table_columns
from data_pipelines.readers.text.samples import read_csv
from data_pipelines.readers.wfdb_files import read_wfdb
from data_pipelines.readers.xml.vendors import read_vendor_xml
from data_pipelines.recording import Recording
from data_pipelines.statements.declared import Declared
from data_pipelines.system.visible_text import storable_text

#: Format that files with a suffix are read as.
FORMAT_OF_SUFFIX: Mapping[str, str] = types.MappingProxyType(
    {".hea": "wfdb", ".npy": "numpy", ".npz": "numpy", ".csv": "csv", ".tsv": "csv", ".h5": "hdf5", ".hdf5": "hdf5"}
    | {".mat": "matlab", ".dcm": "dicom", ".xml": "xml"}
)

#: Name under which files without a suffix are counted.
NO_SUFFIX = "no suffix"

_SUFFIX = re.compile(r"\.[a-z][a-z0-9_+-]{0,11}")

FORMATS = tuple(dict.fromkeys(FORMAT_OF_SUFFIX.values()))

#: Formats whose files need not state what their samples mean, so that it can be declared.
FORMATS_OF_BARE_SAMPLES = ("numpy", "csv", "hdf5", "matlab")

_READERS: Mapping[str, Callable[[Path, Declared], Recording]] = types.MappingProxyType(
    {
        "wfdb": lambda path, declared: read_wfdb(path.with_suffix("")),
        "numpy": read_numpy,
        "csv": read_csv,
        "hdf5": read_hdf5,
        "matlab": read_matlab,
        "dicom": lambda path, declared: read_dicom(path),
        "xml": lambda path, declared: read_vendor_xml(path),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundRecording:
    """A file that a recording can be read from.

    Attributes:
        record_id: Path below the folder, without suffix.
        path: Path of the file, which is the header for a WFDB record.
        format: Format of the file, one of `FORMATS`.
    """

    record_id: str
    path: Path
    format: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundRecordings:
    """The contents of a folder, each file in one of six classes.

    Attributes:
        recordings: Recordings, in the order of their ids.
        passed_over: Number of files of no known format, or of a format that was not asked for, by suffix in lower case.
        tables: Names of the columns of each table of labels or list, by path; these tables are not recordings.
        others: Number of DICOM files without a waveform, by a phrase that says what they hold.
        litter: Number of files and folders of operating systems and programs, by kind (`tree.py`).
        closed: Folders and files that the system does not permit to open.
    """

    recordings: tuple[FoundRecording, ...]
    passed_over: Mapping[str, int]
    tables: Mapping[Path, tuple[str, ...]]
    others: Mapping[str, int]
    litter: Mapping[str, int]
    closed: tuple[Path, ...]


def find_recordings(
    folder: Path, *, formats: Collection[str] = FORMATS, leave_out: Collection[Path] = ()
) -> FoundRecordings:
    """Finds every file under a folder that is read as a recording.

    A file that shares its name with a WFDB header beside it is the signal of that record and not a recording of its
    own. Files are opened where their suffix is not decisive: text, which may be a table of labels, and files without a
    suffix or with an unknown one, which are recordings if they are DICOM.

    Args:
        folder: Folder that is searched recursively.
        formats: Formats of the files to list, out of `FORMATS`.
        leave_out: Files that are something else, such as a table of labels.

    Raises:
        DataError: A format is unknown, two files would have the same id, or the folder cannot be listed.
    """
    _check_formats(formats)
    tree = list_tree(folder)
    not_recordings = {path.resolve() for path in leave_out}
    names_left_out = {path.name for path in leave_out} | {path.name for path in not_recordings}
    headers = {path.with_suffix("") for path in tree.files if path.suffix.lower() == ".hea"}
    listing = _Listing(folder, formats)
    for path in sorted(tree.files, key=str):
        # Resolving a path costs a dozen system calls, so it is done only where the name matches.
        if path.name in names_left_out and path.resolve() in not_recordings:
            continue
        # A file beside a header of its name is part of that record, such as the `.mat` of the challenges.
        if path.with_suffix("") in headers and path.suffix.lower() != ".hea":
            continue
        listing.take(path)
    return FoundRecordings(
        recordings=tuple(listing.found[record_id] for record_id in sorted(listing.found)),
        passed_over=dict(listing.passed_over.most_common()),
        tables=listing.tables,
        others=dict(listing.others.most_common()),
        litter=dict(tree.litter.most_common()),
        closed=tree.closed,
    )


def find_recording(path: Path, *, formats: Collection[str] = FORMATS) -> FoundRecordings:
    """Finds the recording in a single file, as `find_recordings` would find it in the file's folder.

    Args:
        path: File of the recording; of a WFDB record the header or its signal.
        formats: Formats to take, out of `FORMATS`.

    Raises:
        DataError: A format is unknown.
    """
    _check_formats(formats)
    header = path.with_suffix(".hea")
    listing = _Listing(path.parent, formats)
    listing.take(header if header.is_file() else path)
    return FoundRecordings(
        recordings=tuple(listing.found.values()),
        passed_over=dict(listing.passed_over),
        tables=listing.tables,
        others=dict(listing.others),
        litter={},
        closed=(),
    )


def _check_formats(formats: Collection[str]) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise DataError(f"--formats={','.join(unknown)}: known formats are {', '.join(FORMATS)}")


class _Listing:
    """Sorts the files of a folder into recordings and others."""

    def __init__(self, folder: Path, formats: Collection[str]):
        self._folder, self._formats = folder, formats
        self.found: dict[str, FoundRecording] = {}
        self.passed_over: Counter[str] = Counter()
        self.tables: dict[Path, tuple[str, ...]] = {}
        self.others: Counter[str] = Counter()

    def take(self, path: Path) -> None:
        suffix = path.suffix.lower()
        name = FORMAT_OF_SUFFIX.get(suffix)
        if name == "csv" and name in self._formats and (columns := table_columns(path)) is not None:
            self.tables[path] = columns
            return
        if name is not None and name in self._formats:
            self._add(path, name, path.relative_to(self._folder).with_suffix("").as_posix())
        elif name is None and kind_of_suffix(suffix) is None and "dicom" in self._formats:
            self._take_by_content(path, suffix)
        else:
            self.passed_over[suffix or NO_SUFFIX] += 1

    def _take_by_content(self, path: Path, suffix: str) -> None:
        # Names such as 1.2.840.113619.2 have a point but no suffix.
        has_suffix = _SUFFIX.fullmatch(suffix) is not None
        head = head_of(path)
        if not is_dicom(head):
            self.passed_over[suffix if has_suffix else NO_SUFFIX] += 1
            return
        if other := other_dicom_class(head):
            self.others[f"DICOM without a waveform ({other})"] += 1
            return
        relative = path.relative_to(self._folder)
        self._add(path, "dicom", (relative.with_suffix("") if has_suffix else relative).as_posix())

    def _add(self, path: Path, name: str, record_id: str) -> None:
        record_id = storable_text(record_id)
        if record_id in self.found:
            raise DataError(
                f"{path} and {self.found[record_id].path.name} would both be record '{record_id}'; rename one, or take "
                "one format with --formats"
            )
        self.found[record_id] = FoundRecording(record_id=record_id, path=path, format=name)


def read_recording(found: FoundRecording, declared: Declared) -> Recording:
    """Reads a recording with the reader of its format.

    Args:
        found: Recording to read.
        declared: Declaration for what files of bare samples do not state; files of other formats state everything
            themselves.

    Raises:
        RecordError: The format's reader fails, for any of its reasons; if the file is something other than its suffix
            says, the reason is `wrong_format`.
    """
    try:
        return _READERS[found.format](found.path, declared)
    except RecordError as error:
        if error.reason in _MAY_BE_OTHERS:
            _check_content(found, error)
        raise


# Reasons for which a reader refuses files that are not of its format.
_MAY_BE_OTHERS = ("unreadable_header", "truncated_file", "header_disagrees")


def _check_content(found: FoundRecording, error: RecordError) -> None:
    """Raises `wrong_format` if the first bytes of a recording's files are those of another format."""
    paths = [found.path]
    if found.format == "wfdb":
        paths += [found.path.with_suffix(suffix) for suffix in (".dat", ".mat")]
    for path in paths:
        if not path.is_file():
            continue
        kind = content_kind(head_of(path)) if path == found.path else not_brought(head_of(path))
        if kind is None or found.format in kind.formats:
            continue
        message = f"{path}: is {kind.name}, though its suffix is {path.suffix or 'missing'}: {kind.remedy}"
        raise RecordError(message, reason="wrong_format") from error
