"""Second opinions on the binary formats that nest: NumPy archives, HDF5, MATLAB structs and DICOM.

MATLAB and DICOM are taken apart byte by byte; archives and HDF5, which nobody writes a second reader of, are read with
the same libraries as the readers use, but by other calls.
"""

import functools
import io
import struct
from collections.abc import Callable, Iterator

import h5py
import numpy as np

from data_pipelines.records import STANDARD_LEADS
from tests.data_pipelines.readers.vendor_files import SCP_NUMBERS
from tests.fuzzing.fuzz_decoders import Decoded, UndecodableError, number


def _strict(decode: Callable[[bytes], Decoded]) -> Callable[[bytes], Decoded]:
    """Makes whatever a decoder stumbles over an `UndecodableError`."""

    @functools.wraps(decode)
    def checked(content: bytes) -> Decoded:
        try:
            return decode(content)
        except (KeyError, ValueError, IndexError, TypeError, OSError, struct.error) as error:
            raise UndecodableError(f"{type(error).__name__}: {error}") from error

    return checked


_LEADS = {lead.upper() for lead in STANDARD_LEADS}

# NumPy archives, through np.load rather than its parts.


@_strict
def decode_npz(content: bytes) -> Decoded:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    leads = tuple(arrays["leads"].tolist())
    return Decoded(
        _by_time(arrays["signal"], len(leads)), arrays["fs"].item(), leads, (arrays["unit"].item(),) * len(leads)
    )


def _by_time(matrix: np.ndarray, num_leads: int) -> np.ndarray:
    rows, columns = matrix.shape
    if (rows == num_leads) == (columns == num_leads):
        raise UndecodableError(f"shape {matrix.shape}")
    return np.array(matrix if columns == num_leads else matrix.T, dtype=float)


# HDF5, object by object through the library's own identifiers.


@_strict
def decode_hdf5(content: bytes) -> Decoded:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(content)
    file = h5py.h5f.open(b"image", h5py.h5f.ACC_RDONLY, fapl=access)
    dataset = h5py.h5d.open(file, b"signal")
    samples = np.empty(dataset.shape)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, samples)
    leads = tuple(_text(lead) for lead in _attribute(dataset, b"leads").tolist())
    unit = _text(_attribute(dataset, b"unit").item())
    # The unit is that of leads, and a name that damage left is none.
    units = tuple(unit if lead.upper() in _LEADS else "" for lead in leads)
    return Decoded(_by_time(samples, len(leads)), _attribute(dataset, b"sampling_rate").item(), leads, units)


def _attribute(dataset: h5py.h5d.DatasetID, name: bytes) -> np.ndarray:
    attribute = h5py.h5a.open(dataset, name)
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value)
    return value


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


# MATLAB's struct of CPSC-2018: level 5, little-endian, uncompressed, as on
# mathworks.com/help/pdf_doc/matlab/matfile_format.pdf.

_NUMERIC = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


@_strict
def decode_cpsc2018(content: bytes) -> Decoded:
    for kind, body in _mat_elements(content[128:]):
        if kind != 14:
            raise UndecodableError(f"element of type {kind}")
        name, fields = _mat_struct(body)
        if name == "ECG":
            return Decoded(_by_time(_mat_matrix(fields["data"]), 12), 500.0, STANDARD_LEADS, ("mV",) * 12)
    raise UndecodableError("no struct ECG")


def _mat_elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # Small element: size and type share a word.
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
            continue
        if at + 8 + size > len(data):
            raise UndecodableError("cut element")
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + (-size % 8)


def _mat_struct(body: bytes) -> tuple[str, dict[str, bytes]]:
    elements = list(_mat_elements(body))
    (_, flags), _, (_, name), (_, width), (_, names), *values = elements
    if flags[0] != 2:
        raise UndecodableError(f"class {flags[0]}")
    (length,) = struct.unpack("<i", width)
    labels = [names[at : at + length].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), length)]
    return name.decode("latin-1"), dict(zip(labels, (value for _, value in values), strict=True))


def _mat_matrix(body: bytes) -> np.ndarray:
    (_, flags), (_, shape), _, (kind, values) = list(_mat_elements(body))[:4]
    if kind not in _NUMERIC or flags[1] & 8:
        raise UndecodableError(f"values of type {kind}")
    rows, columns = struct.unpack("<ii", shape)
    return np.frombuffer(values, _NUMERIC[kind]).astype(float).reshape(columns, rows).T


# DICOM in explicit little endian, parsed from the bytes (PS3.5, section 7).

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}


@_strict
def decode_dicom(content: bytes) -> Decoded:
    if content[128:132] != b"DICM":
        raise UndecodableError("prefix")
    elements = _dicom_elements(content, 132, len(content))
    groups = [g for g in elements.get((0x5400, 0x0100), []) if _string(g, 0x003A, 0x0004) == "ORIGINAL"]
    group = max(groups, key=lambda g: _whole(g, 0x003A, 0x0010, "<I"))
    samples, channels = _whole(group, 0x003A, 0x0010, "<I"), _whole(group, 0x003A, 0x0005, "<H")
    if (_whole(group, 0x5400, 0x1004, "<H"), _string(group, 0x5400, 0x1006)) != (16, "SS"):
        raise UndecodableError("encoding")
    digital = struct.unpack(f"<{samples * channels}h", group[0x5400, 0x1010])
    signal = np.array(digital, float).reshape(samples, channels)
    names, units = [], []
    for column, definition in enumerate(group[0x003A, 0x0200]):
        (source,), (unit,) = definition[0x003A, 0x0208], definition[0x003A, 0x0211]
        factor = number(_string(definition, 0x003A, 0x0210)) * number(_string(definition, 0x003A, 0x0212))
        signal[:, column] = signal[:, column] * factor + number(_string(definition, 0x003A, 0x0213))
        names.append(_lead(source))
        units.append(_string(unit, 0x0008, 0x0100))
    return Decoded(signal, number(_string(group, 0x003A, 0x001A)), tuple(names), tuple(units))


def _lead(source: dict) -> str:
    codes = {("MDC", f"2:{code}"): lead for code, lead in zip(SCP_NUMBERS, STANDARD_LEADS, strict=True)}
    code, scheme = (_string(source, 0x0008, tag) if (0x0008, tag) in source else "" for tag in (0x0100, 0x0102))
    meaning = _string(source, 0x0008, 0x0104) if (0x0008, 0x0104) in source else ""
    return codes.get((scheme, code), meaning)


def _dicom_elements(data: bytes, at: int, end: int) -> dict:
    found = {}
    while at < end:
        tag_group, tag, vr = struct.unpack_from("<HH2s", data, at)
        if vr in _LONG:
            (length,) = struct.unpack_from("<I", data, at + 8)
            at += 12
        else:
            (length,) = struct.unpack_from("<H", data, at + 6)
            at += 8
        if at + length > end:
            raise UndecodableError(f"element {tag_group:04x},{tag:04x} is cut")
        found[tag_group, tag] = _dicom_items(data, at, at + length) if vr == b"SQ" else data[at : at + length]
        if tag_group == 8 and vr in (b"SL", b"SS", b"UL", b"US", b"FL", b"FD", b"AT"):
            found[tag_group, tag] = b""  # A number is no code and no name.
        at += length
    return found


def _dicom_items(data: bytes, at: int, end: int) -> list[dict]:
    items = []
    while at < end:
        tag_group, tag, length = struct.unpack_from("<HHI", data, at)
        if (tag_group, tag) != (0xFFFE, 0xE000) or at + 8 + length > end:
            raise UndecodableError("item")
        items.append(_dicom_elements(data, at + 8, at + 8 + length))
        at += 8 + length
    return items


def _string(elements: dict, group: int, tag: int) -> str:
    return elements[group, tag].decode("latin-1").strip()


def _whole(elements: dict, group: int, tag: int, form: str) -> int:
    return struct.unpack(form, elements[group, tag])[0]
