"""Reads NumPy's `.npy` and `.npz`.

These files need not state their rate, unit or leads: what they do state is found by name (`names.py`), and the user
declares the rest.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from data_pipelines.files.contents import MAX_BYTES, check_unpacked, read_contents
from data_pipelines.files.refusals import refusing, truncated_file, unreadable_header
from data_pipelines.recording import Recording
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.nested_values import named_values
from data_pipelines.statements.sample_matrix import SIGNAL_NAMES, is_matrix, is_signal_name, matrix_recording

# First bytes of an archive: of one with files, and of an empty one.
_ARCHIVE = (b"PK\x03\x04", b"PK\x05\x06")


def read_numpy(path: Path | str, declared: Declared) -> Recording:
    """Reads a matrix from `.npy`, or from `.npz` together with its other arrays.

    The matrix of an archive has one of `SIGNAL_NAMES`, or is its only one. The archive's other arrays, and texts and
    structured arrays in them, are searched for rate, unit, scale, leads and orientation. A structured array in a `.npy`
    is a table with named columns.

    Args:
        path: Path of the file.
        declared: Declaration for what the file does not state.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `truncated_file`, `unreadable_header`), or
            its statements are incomplete or contradictory (`missing_metadata`, `header_disagrees`).
    """
    path = Path(path)
    data = read_contents(path, max_bytes=MAX_BYTES)
    # Besides their own, NumPy and zipfile raise zlib's and the tokenizer's errors.
    with refusing(truncated_file, f"{path}: cannot be read as an array of numbers", "it is damaged, or holds objects"):
        # `is_zipfile` is not used, since it ignores whatever damage has put ahead of an archive.
        arrays = _unpacked(data, path) if data.startswith(_ARCHIVE) else {SIGNAL_NAMES[0]: _array(data)}
    samples = arrays.pop(_signal_of(arrays, path))
    return matrix_recording(samples, path, declared, values=named_values(arrays))


def _unpacked(data: bytes, path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        # The check comes before unpacking: a small archive can hold terabytes of zeros, and other methods pack far more
        # densely.
        if any(part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for part in parts):
            raise ValueError("a part is packed by another method than NumPy's")
        check_unpacked(path, sum(part.file_size for part in parts), file_bytes=len(data))
        arrays = {part.filename.removesuffix(".npy"): _array(_content(archive, part)) for part in parts}
    for name, array in arrays.items():
        check_unpacked(path, 8 * array.size, file_bytes=len(data), part=f"'{name}'")
    return arrays


def _content(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    with archive.open(part) as file:
        # Without a size, zipfile would unpack all that there is and only then cut it to the stated size.
        return file.read(part.file_size)


def _array(data: bytes) -> np.ndarray:
    """Reads a `.npy` as `np.load` does, but never allocates more than the file holds, whatever its header claims.

    Raises:
        ValueError: The data are not a `.npy`, hold objects, or have another number of bytes than the header states.
    """
    file = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(file)
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(major)
    # Version 3 differs only in the names of columns, which may then be Unicode; `np.save` falls back to it by itself.
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


def _signal_of(arrays: dict[str, np.ndarray], path: Path) -> str:
    matrices = [name for name, array in arrays.items() if is_matrix(array)]
    named = [name for name in arrays if is_signal_name(name)] or matrices
    if len(named) != 1:
        raise unreadable_header(
            f"{path}: holds {', '.join(arrays) or 'nothing'}, of which one matrix must be the samples; call it "
            f"'{SIGNAL_NAMES[0]}'"
        )
    return named[0]
