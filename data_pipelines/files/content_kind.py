"""Recognises what a file holds by its first bytes, whatever its name says.

It is used where a name does not decide, and where a reader failed: then the message says what the file is, in place of
the parser's own error.
"""

from __future__ import annotations

import dataclasses
import re
import stat
from pathlib import Path

import pydicom.uid

_HEAD_BYTES = 2048

#: Position of the mark that all DICOM files have, after a preamble of any bytes (PS3.10, 7.1).
_DICOM_MARK = slice(128, 132)
_WAVEFORM_CLASSES = b"1.2.840.10008.5.1.4.1.1.9."
_MEDIA_CLASS = re.compile(rb"\x02\x00\x02\x00UI..([0-9.]{5,64})", flags=re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentKind:
    """Kind of a file by its contents.

    Attributes:
        name: Name of the kind, with its article if it has one, since messages put 'is' before it: `"a NumPy array"`.
        remedy: Advice to the user.
        formats: Formats, as in `formats.FORMATS`, by which such a file can be read.
    """

    name: str
    remedy: str
    formats: tuple[str, ...] = ()


_RENAME = "give it the suffix {}"
_POINTER = "bring the file itself ({})"

_KINDS: tuple[tuple[int, bytes, ContentKind], ...] = (
    (128, b"DICM", ContentKind(name="DICOM", remedy=_RENAME.format(".dcm"), formats=("dicom",))),
    (0, b"\x93NUMPY", ContentKind(name="a NumPy array", remedy=_RENAME.format(".npy"), formats=("numpy",))),
    (0, b"\x89HDF\r\n\x1a\n", ContentKind(name="HDF5", remedy=_RENAME.format(".h5"), formats=("hdf5",))),
    (0, b"MATLAB 7.3", ContentKind(name="MATLAB v7.3", remedy="save it with -v7", formats=("matlab", "hdf5"))),
    (0, b"MATLAB 5.0", ContentKind(name="MATLAB v5", remedy=_RENAME.format(".mat"), formats=("matlab",))),
    (0, b"PK\x05\x06", ContentKind(name="an empty ZIP archive", remedy="get it again")),
    (0, b"\x1f\x8b", ContentKind(name="gzipped", remedy="unpack it (gunzip)")),
    (0, b"BZh", ContentKind(name="packed by bzip2", remedy="unpack it (bunzip2)")),
    (0, b"\xfd7zXZ\x00", ContentKind(name="packed by xz", remedy="unpack it (unxz)")),
    (0, b"\x28\xb5\x2f\xfd", ContentKind(name="packed by zstd", remedy="unpack it (unzstd)")),
    (0, b"7z\xbc\xaf\x27\x1c", ContentKind(name="a 7z archive", remedy="unpack it (7z x)")),
    (0, b"Rar!\x1a\x07", ContentKind(name="a RAR archive", remedy="unpack it")),
    (257, b"ustar", ContentKind(name="a tar archive", remedy="unpack it (tar -xf)")),
    (0, b"%PDF", ContentKind(name="a PDF", remedy="it holds no samples: export the recording as DICOM or XML")),
    (0, b"\x89PNG\r\n", ContentKind(name="a picture (PNG)", remedy="it holds no samples: export the recording")),
    (0, b"\xff\xd8\xff", ContentKind(name="a picture (JPEG)", remedy="it holds no samples: export the recording")),
    (0, b"GIF8", ContentKind(name="a picture (GIF)", remedy="it holds no samples: export the recording")),
    (0, b"II*\x00", ContentKind(name="a picture (TIFF)", remedy="it holds no samples: export the recording")),
    (0, b"MM\x00*", ContentKind(name="a picture (TIFF)", remedy="it holds no samples: export the recording")),
    (0, b"ISHNE1.0", ContentKind(name="an ISHNE Holter", remedy="convert it, for instance with ishneholterlib")),
    (0, b"0       ", ContentKind(name="EDF", remedy="convert it with edf2mit or pyedflib")),
    (0, b"\xffBIOSEMI", ContentKind(name="BDF", remedy="convert it with edf2mit or pyedflib")),
    (16, b"SCPECG", ContentKind(name="SCP-ECG", remedy="convert it to DICOM or HL7 aECG with ECG Toolkit")),
    (0, b"@  MFR ", ContentKind(name="MFER", remedy="convert it with BioSig")),
    (0, b"PAR1", ContentKind(name="Parquet", remedy="save its recordings as .npy or .csv")),
    (0, b"ARROW1", ContentKind(name="Feather", remedy="save its recordings as .npy or .csv")),
    (0, b"SQLite format 3", ContentKind(name="an SQLite database", remedy="save its recordings as .npy or .csv")),
    (0, b"\xd0\xcf\x11\xe0", ContentKind(name="an old Excel or Word file", remedy="save its table as .csv")),
    (0, b"RIFF", ContentKind(name="sound or video", remedy="save its samples as .npy or .csv")),
    (0, b"{\\rtf", ContentKind(name="a Word text (RTF)", remedy="save it as plain text")),
    (0, b"MZ", ContentKind(name="a program of Windows", remedy="do not open it")),
    (0, b"\x7fELF", ContentKind(name="a program", remedy="do not open it")),
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        ContentKind(name="a pointer of Git LFS", remedy=_POINTER.format("git lfs pull")),
    ),
    (0, b"/annex/objects/", ContentKind(name="a pointer of git-annex", remedy=_POINTER.format("git annex get"))),
)
_NPZ = ContentKind(name="an archive of NumPy arrays", remedy=_RENAME.format(".npz"), formats=("numpy",))
_EXCEL = ContentKind(name="an Excel workbook", remedy="save its sheet as .csv")
_ZIP = ContentKind(name="a ZIP archive", remedy="unpack it (unzip)", formats=("numpy",))
_HTML = ContentKind(name="a web page", remedy="the download failed, log in or accept the licence and get it again")
_XML = ContentKind(name="XML", remedy=_RENAME.format(".xml"), formats=("xml",))
_UTF16 = ContentKind(name="text in UTF-16", remedy="save it in UTF-8", formats=("xml", "csv"))
_JSON = ContentKind(name="JSON", remedy="save its samples as .csv or .npz")
_PICKLE = ContentKind(
    name="a pickle of Python", remedy="save its arrays as .npz; open it only if it is your own, since it runs code"
)
_EMPTY = ContentKind(name="empty", remedy="copy or download it again")
_ZEROS = ContentKind(
    name="nothing but zero bytes at its start", remedy="the copy was interrupted: copy or download it again"
)


def not_brought(head: bytes) -> ContentKind | None:
    """Returns the kind of a file of bare samples that has none: empty, a pointer or a web page; None for others.

    Any other first bytes can be samples.

    Args:
        head: First bytes of the file, from `head_of`.
    """
    kind = content_kind(head)
    return kind if kind in (_EMPTY, _HTML) or (kind is not None and "pointer" in kind.name) else None


def head_of(path: Path) -> bytes:
    """Returns the first bytes of a regular file; empty where it cannot be read."""
    try:
        # Reading a pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb", buffering=0) as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def content_kind(head: bytes) -> ContentKind | None:
    """Returns the kind of a file by its first bytes; None where they match no kind.

    Args:
        head: First bytes of the file, from `head_of`.
    """
    if not head:
        return _EMPTY
    for start, mark, kind in _KINDS:
        if head.startswith(mark, start):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(head)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _UTF16
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PICKLE
    if not head.strip(b"\x00"):
        return _ZEROS
    return _text_kind(head.removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def _zip_kind(head: bytes) -> ContentKind:
    if b"[Content_Types].xml" in head or b"xl/" in head:
        return _EXCEL
    return _NPZ if b".npy" in head else _ZIP


def _text_kind(text: bytes) -> ContentKind | None:
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<script")):
        return _HTML
    if text.startswith(b"<"):
        return _XML
    return _JSON if text.startswith((b"{", b"[{", b'["')) else None


def is_dicom(head: bytes) -> bool:
    """Returns whether a file is DICOM by its first bytes, whatever its name."""
    return head[_DICOM_MARK] == b"DICM"


def other_dicom_class(head: bytes) -> str | None:
    """Returns the class of a DICOM file, such as `CT Image Storage`, where that is no waveform; else None."""
    if (match := _MEDIA_CLASS.search(head, _DICOM_MARK.stop)) is None or match[1].startswith(_WAVEFORM_CLASSES):
        return None
    return pydicom.uid.UID(match[1].decode("ascii").rstrip(".")).name
