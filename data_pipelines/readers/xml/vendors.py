"""Reads the XML formats of recorders' vendors, which are told apart by the root element."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path

from data_pipelines.files.refusals import unreadable_header
from data_pipelines.readers.xml.documents import Node, read_document
from data_pipelines.readers.xml.hl7_aecg import read_aecg
from data_pipelines.readers.xml.muse import read_muse
from data_pipelines.readers.xml.philips import read_philips
from data_pipelines.recording import Recording

_READER_OF_ROOT: Mapping[str, Callable[[Node], Recording]] = types.MappingProxyType(
    {"RestingECG": read_muse, "restingecgdata": read_philips, "AnnotatedECG": read_aecg}
)


def read_vendor_xml(path: Path) -> Recording:
    """Reads a file of GE MUSE, Philips Sierra or HL7 aECG, and returns its recording.

    Raises:
        RecordError: The document is of another kind (`unreadable_header`), or the format's reader fails, for any of its
            reasons.
    """
    document = read_document(path)
    # A document is parsed once: the reader takes what told its vendor.
    if (name := document.name) not in _READER_OF_ROOT:
        known = ", ".join(f"{root} ({read.__name__.removeprefix('read_')})" for root, read in _READER_OF_ROOT.items())
        raise unreadable_header(
            f"{path}: its root element is '{name}'; the documents read are {known}. Export it from the recorder's "
            "software as one of them, or as DICOM"
        )
    return _READER_OF_ROOT[name](document)
