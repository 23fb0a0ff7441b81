"""Plain matrices of samples: NumPy's `.npy` and `.npz`, and tables of text.

None of them has to say its rate, unit or leads, so whoever has such files declares what they leave out.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.lead_names import standard_lead
from data_pipelines.readers.contents import MAX_BYTES, check_unpacked, read_contents
from data_pipelines.readers.declared import Declared
from data_pipelines.readers.recording import Recording
from data_pipelines.readers.samples import as_float

#: No converter is faster.
MAX_RATE_HZ = 1e6

#: No recording has more leads; body surface maps have some 250.
MAX_COLUMNS = 1000

#: What an archive may call its parts.
SIGNAL_NAMES = ("signal", "ecg", "data", "val")
RATE_NAMES = ("sampling_rate_hz", "sampling_rate", "fs")
UNIT_NAMES = ("unit", "units")
LEAD_NAMES = ("leads", "lead_names", "channels")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", flags=re.ASCII)


def read_numpy(path: Path | str, declared: Declared) -> Recording:
    """Reads a matrix from `.npy`, or from `.npz` with whatever it says beside.

    An archive's matrix is called one of `SIGNAL_NAMES`, or is its only one; rate, unit and leads are taken from arrays
    named as in `RATE_NAMES`, `UNIT_NAMES` and `LEAD_NAMES`.

    Args:
        path: the file.
        declared: what it does not say.

    Raises:
        RecordError: `missing_file`, `truncated_file`, `unreadable_header`, `missing_metadata` or `header_disagrees`.
    """
    path = Path(path)
    data = read_contents(path, max_bytes=MAX_BYTES)
    try:
        is_archive = zipfile.is_zipfile(io.BytesIO(data))
        arrays = _unpacked(data, path) if is_archive else {SIGNAL_NAMES[0]: _array(data)}
    except RecordError:
        raise
    except Exception as error:  # Beside their own errors, zipfile raises zlib's and NumPy those of Python's tokenizer.
        raise RecordError(
            f"{path}: cannot be read as an array of numbers ({error}); it is damaged, or holds objects",
            reason="truncated_file",
        ) from error
    samples = _signal_of(arrays, path)
    return matrix_recording(
        samples,
        path,
        declared,
        rate=stated_number(arrays, RATE_NAMES, path),
        unit=_text_of(arrays, UNIT_NAMES, path),
        leads=_texts_of(arrays, LEAD_NAMES),
    )


def read_csv(path: Path | str, declared: Declared) -> Recording:
    """Reads a table of text, a row a sample and a column a lead, with or without a line of names above it.

    Separators are commas, semicolons or tabs, whichever the first line has most of; numbers have a decimal point, and
    an empty cell or `NaN` is a sample marked as invalid. Columns that are no standard lead, such as one of times, stay
    channels of their own.

    Args:
        path: the file.
        declared: what it does not say, which is rate and unit, and without a line of names the leads.

    Raises:
        RecordError: `missing_file`, `unreadable_header`, `missing_metadata` or `header_disagrees`.
    """
    path = Path(path)
    try:
        text = read_contents(path, max_bytes=MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not a text in UTF-8 ({error}); save it so", reason="unreadable_header") from error
    first_line = text.partition("\n")[0]
    separator = max(",;\t", key=first_line.count)
    check_width(first_line.count(separator) + 1, path)
    rows = _rows(text, separator, path)
    cells = rows[0]
    named = not all(map(_is_number, cells))
    samples = _table(rows[named:], names=cells, path=path)
    leads = declared.leads_of(str(path), stated=cells if named else None)
    if len(leads) != samples.shape[1]:
        raise RecordError(
            f"{path}: {samples.shape[1]} columns, but --declared_leads names {len(leads)}", reason="header_disagrees"
        )
    return Recording(
        source=str(path),
        signal=samples,
        sampling_rate_hz=declared.rate_of(str(path)),
        channels=leads,
        units=_units(leads, declared.unit_of(str(path))),
    )


def matrix_recording(
    samples: np.ndarray,
    path: Path,
    declared: Declared,
    *,
    rate: float | None,
    unit: str | None,
    leads: tuple[str, ...] | None,
    fields: dict[str, str] | None = None,
) -> Recording:
    """Makes a recording of a matrix and what its file states.

    Args:
        samples: numbers, `[time, lead]` or `[lead, time]`.
        path: its file.
        declared: what the file does not state.
        rate: stated rate, or None.
        unit: stated unit, or None.
        leads: stated lead names, or None.
        fields: stated metadata.

    Raises:
        RecordError: `unreadable_header`, `missing_metadata` or `header_disagrees`.
    """
    source = str(path)
    if samples.dtype.kind not in "iuf":
        raise RecordError(
            f"{path}: its samples are of type {samples.dtype}; numbers are needed", reason="unreadable_header"
        )
    if rate is not None and not 0 < rate < MAX_RATE_HZ:
        raise RecordError(f"{path}: states a rate of {rate:g} Hz; correct it", reason="unreadable_header")
    names = declared.leads_of(source, stated=leads)
    by_time = declared.by_time(samples, num_leads=len(names), source=source)
    return Recording(
        source=source,
        signal=as_float(by_time),
        sampling_rate_hz=declared.rate_of(source, stated=rate),
        channels=names,
        units=_units(names, declared.unit_of(source, stated=unit)),
        fields=fields or {},
    )


def stated_number(values: Mapping[str, Any], names: tuple[str, ...], path: Path) -> float | None:
    """Returns the number that a file states under the first of some names that it has, or None where it has none.

    Args:
        values: what the file states, by name.
        names: for one thing.
        path: of the file, for the message.

    Raises:
        RecordError: `unreadable_header`: not one number.
    """
    value = next((np.asarray(values[name]) for name in names if name in values), None)
    if value is None:
        return None
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise RecordError(f"{path}: its {names[0]} is {value!r}, not one number", reason="unreadable_header")
    return float(value.reshape(()))


def check_width(num_columns: int, path: Path) -> None:
    """Raises where a table has more columns than any recording: each would become an object of its own.

    Raises:
        RecordError: `unreadable_header`.
    """
    if num_columns > MAX_COLUMNS:
        raise RecordError(
            f"{path}: its first line has {num_columns} cells, more than any recording has leads; a row is a sample and "
            "a column a lead: turn the table",
            reason="unreadable_header",
        )


def _units(channels: tuple[str, ...], unit: str) -> tuple[str, ...]:
    # What is said of the leads says nothing about a column of times.
    return tuple(unit if standard_lead(channel) else "" for channel in channels)


def _unpacked(data: bytes, path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        # Before anything is unpacked: a small archive can hold terabytes of zeros, and other packings far more.
        if any(part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for part in parts):
            raise ValueError("a part is packed by another method than NumPy's")
        check_unpacked(path, sum(part.file_size for part in parts), file_bytes=len(data))
        arrays = {part.filename.removesuffix(".npy"): _array(_content(archive, part)) for part in parts}
    for name, array in arrays.items():
        check_unpacked(path, 8 * array.size, file_bytes=len(data), part=f"'{name}'")
    return arrays


def _content(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    with archive.open(part) as file:
        # Not all at once, for which zipfile unpacks whatever there is and then cuts it to the size that is stated.
        return file.read(part.file_size)


def _array(data: bytes) -> np.ndarray:
    """Reads a `.npy` as `np.load` does, but without making room for more than there is: headers can claim anything.

    Raises:
        ValueError: no such file, one of objects, or one that says it holds another number of bytes than it does.
    """
    file = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(file)
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(major)
    if read_header is None:
        raise ValueError(f"version {major} of the format")
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds objects")
    if not dtype.itemsize:
        raise ValueError("its values take no bytes")
    found, expected = len(data) - file.tell(), math.prod(shape) * dtype.itemsize
    if found != expected or any(length < 0 for length in shape):
        raise ValueError(f"{found} bytes of samples where shape {shape} of {dtype} has {expected}")
    values = np.frombuffer(data, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")


def _signal_of(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    named = [name for name in SIGNAL_NAMES if name in arrays] or matrices
    if len(named) != 1:
        raise RecordError(
            f"{path}: holds {', '.join(arrays) or 'nothing'}, of which one matrix must be the samples; call it "
            f"'{SIGNAL_NAMES[0]}'",
            reason="unreadable_header",
        )
    return arrays[named[0]]


def _text_of(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path) -> str | None:
    texts = set(_texts_of(arrays, names) or ())
    if len(texts) > 1:
        raise RecordError(
            f"{path}: its {names[0]} is {', '.join(sorted(texts))}; one for all leads is needed",
            reason="unreadable_header",
        )
    return texts.pop() if texts else None


def _texts_of(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> tuple[str, ...] | None:
    array = next((arrays[name] for name in names if name in arrays), None)
    return None if array is None else tuple(str(value) for value in np.atleast_1d(array).ravel())


def _is_number(cell: str) -> bool:
    # Python's own float() also takes 'inf', '1_0' and the digits of other scripts.
    return not cell or cell.casefold() == "nan" or _NUMBER.fullmatch(cell) is not None


def _rows(text: str, separator: str, path: Path) -> list[list[str]]:
    """Returns the cells of every line, as many in each as in the first, so that a cut line is found."""
    try:
        lines = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), delimiter=separator, strict=True)
        rows = [[cell.strip() for cell in line] for line in lines]
    except csv.Error as error:
        raise RecordError(f"{path}: no table ({error}); export the file again", reason="unreadable_header") from error
    if not rows:
        raise RecordError(f"{path}: no table (it is empty); export the file again", reason="unreadable_header")
    for number, cells in enumerate(rows, start=1):
        if len(cells) != len(rows[0]):
            raise RecordError(
                f"{path}: no table (line {number} has {len(cells)} cells where the first has {len(rows[0])}); every "
                "line needs as many cells as the first, an empty one where a sample is invalid",
                reason="unreadable_header",
            )
    return rows


def _table(rows: list[list[str]], *, names: list[str], path: Path) -> np.ndarray:
    """Returns the samples, `f64[row, column]`."""
    if not rows:
        raise RecordError(
            f"{path}: no table (names, but no samples); export the file again", reason="unreadable_header"
        )
    for number, cells in enumerate(rows, start=1):
        wrong = next((column for column, cell in enumerate(cells) if not _is_number(cell)), None)
        if wrong is not None:
            raise RecordError(
                f"{path}: '{cells[wrong][:40]}' in column '{names[wrong]}', line {number} of the samples, is no number;"
                " correct it, or leave the cell empty where the sample is invalid",
                reason="unreadable_header",
            )
    return np.array([[float(cell or "nan") for cell in cells] for cells in rows], np.float64)
