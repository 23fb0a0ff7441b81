"""NumPy's `.npy` and `.npz`.

None of them has to say its rate, unit or leads: what it does say is found by name (`names.py`), and whoever
has such files declares the rest.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import MAX_BYTES, check_unpacked, read_contents
from data_pipelines.recording import Recording
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.nested_values import named_values
from data_pipelines.statements.sample_matrix import (
    SIGNAL_NAMES,
    described_fields,
    is_matrix,
    is_signal_name,
    matrix_recording,
)
from data_pipelines.statements.stated import statements

# How an archive begins: one of files, and one of none.
_ARCHIVE = (b"PK\x03\x04", b"PK\x05\x06")


def read_numpy(path: Path | str, declared: Declared) -> Recording:
    """Reads a matrix from `.npy`, or from `.npz` with whatever it says beside.

    An archive's matrix is called one of `SIGNAL_NAMES`, or is its only one. Its other arrays, and texts and structured
    arrays in them, are searched for rate, unit, scale, leads and orientation. A structured array of a `.npy` is a table
    whose columns have names.

    Args:
        path: the file.
        declared: what it does not say.

    Raises:
        RecordError: `missing_file`, `truncated_file`, `unreadable_header`, `missing_metadata` or `header_disagrees`.
    """
    path = Path(path)
    data = read_contents(path, max_bytes=MAX_BYTES)
    try:
        # Not by `is_zipfile`, which passes over whatever damage has put ahead of an archive.
        is_archive = data.startswith(_ARCHIVE)
        arrays = _unpacked(data, path) if is_archive else {SIGNAL_NAMES[0]: _array(data)}
    except RecordError:
        raise
    except Exception as error:  # Beside their own errors, zipfile raises zlib's and NumPy those of Python's tokenizer.
        raise RecordError(
            f"{path}: cannot be read as an array of numbers ({error}); it is damaged, or holds objects",
            reason="truncated_file",
        ) from error
    return _from_archive(arrays, path, declared)


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


def _from_archive(arrays: dict[str, np.ndarray], path: Path, declared: Declared) -> Recording:
    name = _signal_of(arrays, path)
    beside = {other: array for other, array in arrays.items() if other != name}
    values = named_values(beside)
    return matrix_recording(arrays[name], path, declared, stated=statements(values), fields=described_fields(values))


def _signal_of(arrays: dict[str, np.ndarray], path: Path) -> str:
    matrices = [name for name, array in arrays.items() if is_matrix(array)]
    named = [name for name in arrays if is_signal_name(name)] or matrices
    if len(named) != 1:
        raise RecordError(
            f"{path}: holds {', '.join(arrays) or 'nothing'}, of which one matrix must be the samples; call it "
            f"'{SIGNAL_NAMES[0]}'",
            reason="unreadable_header",
        )
    return named[0]
