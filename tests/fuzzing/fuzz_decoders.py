"""Second opinions on what a file says, written from the formats' descriptions and not from the readers."""

import ast
import base64
import binascii
import dataclasses
import struct
from xml.dom import minidom
from xml.parsers.expat import ExpatError

import numpy as np

from data_pipelines.records import STANDARD_LEADS

XSI = "http://www.w3.org/2001/XMLSchema-instance"


class UndecodableError(Exception):
    """The bytes make no sense, and a reader that made some of them guessed."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    signal: np.ndarray
    sampling_rate_hz: float
    channels: tuple[str, ...]
    units: tuple[str, ...]


def number(text: str) -> float:
    """A decimal number and nothing else."""
    if not text.isascii() or "_" in text or any(letter in text.lower() for letter in "nxf"):
        raise UndecodableError(f"number {text!r}")
    try:
        return float(text)
    except ValueError:
        raise UndecodableError(f"number {text!r}") from None


def whole(text: str) -> int:
    value = number(text)
    if "." in text or "e" in text.lower():
        raise UndecodableError(f"whole number {text!r}")
    return int(value) if abs(value) < 2**53 else int(text)


# WFDB, after https://physionet.org/physiotools/wag/header-5.htm and signal-5.htm.


def decode_wfdb(files: dict[str, bytes], header: str) -> Decoded:
    lines = files[header].decode("latin-1").replace("\r\n", "\n").split("\n")
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not all(line.isascii() for line in lines):
        raise UndecodableError("characters that are not ASCII")
    record = lines[0].split()
    if len(record) < 3 or "/" in record[0]:
        raise UndecodableError(f"record line {record}")
    num_signals = whole(record[1])
    # The number of samples may be left out, and a time or date follow.
    num_samples = whole(record[3]) if len(record) > 3 and not any(mark in record[3] for mark in ":/-") else None
    rate = number(record[2].partition("/")[0])
    if num_signals != len(lines) - 1:
        raise UndecodableError(f"{num_signals} signals, {len(lines) - 1} lines")
    signals = [_wfdb_signal(line) for line in lines[1:]]
    columns = []
    for index, entry in enumerate(signals):
        group = [other for other in range(num_signals) if signals[other]["file"] == entry["file"]]
        content = files.get(entry["file"])
        if content is None:
            raise UndecodableError(f"file {entry['file']}")
        types = {"16": "<i2", "61": ">i2", "160": "<u2", "80": "u1", "32": "<i4"}
        if entry["format"] not in types:
            raise UndecodableError(f"format {entry['format']}, for which there is no second decoder")
        dtype = np.dtype(types[entry["format"]])
        data = content[entry["offset"] :]
        if num_samples is None:
            num_samples = len(data) // (len(group) * dtype.itemsize)
        if len(data) != num_samples * len(group) * dtype.itemsize:
            raise UndecodableError(f"{len(data)} bytes")
        digital = np.frombuffer(data, dtype).reshape(num_samples, len(group))[:, group.index(index)].astype(np.int64)
        invalid = np.iinfo(dtype).min
        if entry["format"] in ("160", "80"):
            digital -= 2 ** (8 * dtype.itemsize - 1)
            invalid = -(2 ** (8 * dtype.itemsize - 1))
        if entry["checksum"] is not None and (int(digital.sum()) - entry["checksum"]) % 65536:
            raise UndecodableError("checksum")
        column = (digital - entry["baseline"]) / entry["gain"]
        column[digital == invalid] = np.nan
        columns.append(column)
    return Decoded(
        signal=np.stack(columns, axis=1),
        sampling_rate_hz=rate,
        channels=tuple(entry["name"] for entry in signals),
        units=tuple(entry["units"] for entry in signals),
    )


def _wfdb_signal(line: str) -> dict:
    fields = line.split(None, 8)
    if len(fields) < 3:
        raise UndecodableError(f"signal line {line!r}")
    form, _, offset = fields[1].partition("+")
    if ":" in form or ("x" in form and not form.endswith("x1")):
        raise UndecodableError(f"format {form!r}")
    calibration, _, units = fields[2].partition("/")
    gain, _, baseline = calibration.partition("(")
    if baseline and not baseline.endswith(")"):
        raise UndecodableError(f"baseline {baseline!r}")
    adc_zero = whole(fields[4]) if len(fields) > 4 else 0
    if number(gain) == 0:
        raise UndecodableError("gain 0: not calibrated")
    return {
        "file": fields[0],
        "format": form.removesuffix("x1"),
        "offset": whole(offset) if offset else 0,
        "gain": number(gain),
        "baseline": whole(baseline[:-1]) if baseline else adc_zero,
        "units": units or "mV",
        "checksum": whole(fields[6]) if len(fields) > 6 else None,
        "name": fields[8].strip() if len(fields) > 8 else "",
    }


# NumPy, after numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Declared are 500 Hz, mV and 12 leads.


def decode_npy(content: bytes) -> Decoded:
    if content[:6] != b"\x93NUMPY" or content[6] not in (1, 2):
        raise UndecodableError("magic")
    size = 2 if content[6] == 1 else 4
    (length,) = struct.unpack_from("<H" if size == 2 else "<I", content, 8)
    start = 8 + size
    header = ast.literal_eval(content[start : start + length].decode("latin-1").strip())
    dtype = np.dtype(header["descr"])
    data = content[start + length :]
    shape = header["shape"]
    if len(shape) != 2 or len(data) != shape[0] * shape[1] * dtype.itemsize:
        raise UndecodableError(f"shape {shape}")
    values = np.frombuffer(data, dtype)
    rows, columns = shape
    matrix = np.empty(shape)
    for row in range(rows):
        for column in range(columns):
            matrix[row, column] = values[column * rows + row if header["fortran_order"] else row * columns + column]
    if (rows == 12) == (columns == 12):
        raise UndecodableError(f"shape {shape}")
    return Decoded(matrix if columns == 12 else matrix.T, 500.0, STANDARD_LEADS, ("mV",) * 12)


# Text tables: names above, commas, 500 Hz and mV declared.


def decode_csv(content: bytes) -> Decoded:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = (text[:-1] if text.endswith("\n") else text).split("\n")
    separator = max(",;\t", key=lines[0].count)
    names = tuple(_unquoted(cell) for cell in lines[0].split(separator))
    rows = [line.split(separator) for line in lines[1:]]
    if any(len(row) != len(names) for row in rows):
        raise UndecodableError("rows of unequal length")
    signal = np.array([[_cell(cell) for cell in row] for row in rows])
    known = {lead.upper(): lead for lead in STANDARD_LEADS}
    return Decoded(signal, 500.0, names, tuple("mV" if name.upper() in known else "" for name in names))


def _unquoted(cell: str) -> str:
    return cell.strip().strip('"')


def _cell(cell: str) -> float:
    cell = _unquoted(cell)
    return np.nan if cell.lower() in ("", "nan", "na", "-", "?", "null", "none") else number(cell)


# GE MUSE.


def decode_muse(content: bytes) -> Decoded:
    root = _root(content, "RestingECG")
    (rhythm,) = [element for element in _children(root, "Waveform") if _text(element, "WaveformType") == "Rhythm"]
    rate = number(_text(rhythm, "SampleBase")) * 10 ** number(_text(rhythm, "SampleExponent") or "0")
    names, units, leads = [], [], []
    for lead in _children(rhythm, "LeadData"):
        try:
            data = base64.b64decode("".join(_text(lead, "WaveFormData").split()), validate=True)
        except binascii.Error as error:
            raise UndecodableError(str(error)) from None
        samples = [int.from_bytes(data[at : at + 2], "little", signed=True) for at in range(0, len(data), 2)]
        leads.append(np.array(samples) * number(_text(lead, "LeadAmplitudeUnitsPerBit")))
        names.append(_text(lead, "LeadID"))
        units.append({"MICROVOLTS": "uV", "MILLIVOLTS": "mV", "VOLTS": "V"}[_text(lead, "LeadAmplitudeUnits").upper()])
    return Decoded(np.stack(leads, axis=1), rate, tuple(names), tuple(units))


# HL7 aECG.


def decode_aecg(content: bytes) -> Decoded:
    root = _root(content, "AnnotatedECG")
    series = [series for component in _children(root, "component") for series in _children(component, "series")]
    (rhythm,) = [element for element in series if _attribute(element, "code", "code") == "RHYTHM"]
    (sequences,) = [s for component in _children(rhythm, "component") for s in _children(component, "sequenceSet")]
    rate, names, units, leads = None, [], [], []
    for component in _children(sequences, "component"):
        for sequence in _children(component, "sequence"):
            code = _attribute(sequence, "code", "code")
            (value,) = _children(sequence, "value")
            if code.startswith("TIME"):
                seconds = {"s": 1, "ms": 1e-3, "us": 1e-6}[_attribute(value, "increment", "unit")]
                rate = 1 / (number(_attribute(value, "increment", "value")) * seconds)
                continue
            digits = [whole(digit) for digit in _text(value, "digits").split()]
            scale, origin = (number(_attribute(value, name, "value")) for name in ("scale", "origin"))
            leads.append(np.array(digits, dtype=float) * scale + origin)
            names.append(code)
            units.append(_attribute(value, "scale", "unit"))
    if rate is None:
        raise UndecodableError("no sequence of times")
    return Decoded(np.stack(leads, axis=1), rate, tuple(names), tuple(units))


def _root(content: bytes, name: str) -> minidom.Element:
    try:
        root = minidom.parseString(content).documentElement
    except ExpatError as error:
        raise UndecodableError(str(error)) from None
    if root.localName != name:
        raise UndecodableError(root.localName)
    return root


def _children(element: minidom.Element, name: str) -> list[minidom.Element]:
    return [child for child in element.childNodes if child.nodeType == child.ELEMENT_NODE and child.localName == name]


def _text(element: minidom.Element, name: str) -> str:
    children = _children(element, name)
    return "".join(node.data for node in children[0].childNodes if hasattr(node, "data")).strip() if children else ""


def _attribute(element: minidom.Element, name: str, attribute: str) -> str:
    children = _children(element, name)
    return children[0].getAttribute(attribute).strip() if children else ""
