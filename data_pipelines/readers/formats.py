"""Which reader reads which file, and every recording of a tree of mixed formats."""

from __future__ import annotations

import dataclasses
import types
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.readers.arrays import read_csv, read_numpy
from data_pipelines.readers.declared import Declared
from data_pipelines.readers.dicom_files import read_dicom
from data_pipelines.readers.hdf5_files import read_hdf5
from data_pipelines.readers.matlab_files import read_matlab
from data_pipelines.readers.recording import Recording
from data_pipelines.readers.tree import files_under
from data_pipelines.readers.vendor_xml import read_vendor_xml
from data_pipelines.readers.wfdb_files import read_wfdb

#: The format that files of a suffix are read as.
FORMAT_OF_SUFFIX: Mapping[str, str] = types.MappingProxyType(
    {
        ".hea": "wfdb",
        ".npy": "numpy",
        ".npz": "numpy",
        ".csv": "csv",
        ".tsv": "csv",
        ".h5": "hdf5",
        ".hdf5": "hdf5",
        ".mat": "matlab",
        ".dcm": "dicom",
        ".xml": "xml",
    }
)

FORMATS = tuple(dict.fromkeys(FORMAT_OF_SUFFIX.values()))

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
        record_id: its path below the folder, without suffix.
        path: the file; of a WFDB record the header.
        format: one of `FORMATS`.
    """

    record_id: str
    path: Path
    format: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundRecordings:
    """What a folder holds.

    Attributes:
        recordings: in the order of their ids.
        passed_over: number of files of no known format, or of one not asked for, by suffix.
    """

    recordings: tuple[FoundRecording, ...]
    passed_over: Mapping[str, int]


def find_recordings(
    folder: Path, *, formats: Collection[str] = FORMATS, leave_out: Collection[Path] = ()
) -> FoundRecordings:
    """Lists every file under a folder that is read as a recording.

    A file that shares its name with a WFDB header beside it is that record's signal, not a recording of its own.

    Args:
        folder: searched recursively.
        formats: which to take, of `FORMATS`.
        leave_out: files that are something else, such as a table of labels.

    Raises:
        DataError: an unknown format, or two files that would have one id.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise DataError(f"--formats={','.join(unknown)}: known formats are {', '.join(FORMATS)}")
    not_recordings = {path.resolve() for path in leave_out}
    paths = sorted(path for path in files_under(folder) if path.resolve() not in not_recordings)
    headers = {path.with_suffix("") for path in paths if path.suffix.lower() == ".hea"}
    found: dict[str, FoundRecording] = {}
    passed_over: Counter[str] = Counter()
    for path in paths:
        suffix = path.suffix.lower()
        name = FORMAT_OF_SUFFIX.get(suffix)
        if name != "wfdb" and path.with_suffix("") in headers:
            continue
        if name not in formats:
            passed_over[suffix or "no suffix"] += 1
            continue
        record_id = path.relative_to(folder).with_suffix("").as_posix()
        if record_id in found:
            raise DataError(
                f"{path} and {found[record_id].path.name} would both be record '{record_id}'; rename one, or take one "
                "format with --formats"
            )
        found[record_id] = FoundRecording(record_id=record_id, path=path, format=name)
    in_order = tuple(found[record_id] for record_id in sorted(found))
    return FoundRecordings(recordings=in_order, passed_over=dict(passed_over.most_common()))


def read_recording(found: FoundRecording, declared: Declared) -> Recording:
    """Reads a recording by the reader of its format.

    Args:
        found: which.
        declared: what files of bare samples do not say; the other formats say everything themselves.

    Raises:
        RecordError: as of the format's reader.
    """
    return _READERS[found.format](found.path, declared)
