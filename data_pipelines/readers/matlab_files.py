"""Reads MATLAB files: CPSC-2018's structs, and matrices with the variables and structs that describe them.

MATLAB v4 and v5 are read through SciPy. Files of v7.3 are HDF5 internally; they have to be saved with `-v7`.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import scipy.io

from data_pipelines.files.contents import MAX_BYTES, check_present, most_unpacked, read_contents
from data_pipelines.files.refusals import refusing, truncated_file, unreadable_header
from data_pipelines.metadata import recorder_fields
from data_pipelines.readers.matlab_structure import check_structure
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.statements import sample_matrix
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind
from data_pipelines.statements.nested_values import NamedValue, named_values
from data_pipelines.statements.stated import Statement, statements

#: Name of CPSC-2018's struct, and the properties that its publishers state for all of them (Liu et al., An open access
#: database for evaluating the algorithms of ECG rhythm and morphology abnormality detection, J. Med. Imaging Health
#: Inform. 2018).
CPSC2018_STRUCT = "ECG"
CPSC2018_RATE_HZ = 500.0
CPSC2018_UNIT = "mV"
_CPSC2018_FIELDS = ("data", "sex", "age")

#: First bytes of v7.3 files, which SciPy does not read.
_HDF5_HEADER = b"MATLAB 7.3 MAT-file"


def read_matlab(path: Path | str, declared: Declared) -> Recording:
    """Reads a MATLAB file of one recording.

    The file has either a struct `ECG` with `sex`, `age` and `data` as in CPSC-2018, whose rate, unit and leads are
    known, or a matrix named as one of `SIGNAL_NAMES`, or a single matrix, at the top level or within a struct. All
    other variables and fields are searched for rate, unit, scale, leads and orientation.

    Args:
        path: Path of the file.
        declared: Declaration for what the file does not state.

    Raises:
        RecordError: The file is missing or cannot be read (`missing_file`, `truncated_file`, `unreadable_header`), or
            its statements are incomplete or contradictory (`missing_metadata`, `header_disagrees`).
    """
    path = Path(path)
    check_present(path)
    content = read_contents(path, max_bytes=MAX_BYTES)
    if content.startswith(_HDF5_HEADER):
        raise unreadable_header(f"{path}: a MATLAB file of v7.3, which is not read; load it and save it with -v7")
    remedy = "it is damaged, or of v7.3: save it with -v7"
    with refusing(truncated_file, f"{path}: cannot be read as MATLAB v4 or v5", remedy):
        if 0 not in content[:4]:  # SciPy takes files with a zero in these bytes for v4.
            check_structure(content, most_bytes=most_unpacked(len(content)))
        variables = scipy.io.loadmat(io.BytesIO(content))
    arrays = {name: value for name, value in variables.items() if not name.startswith("__")}
    if _is_cpsc2018(arrays):
        return _read_cpsc2018(arrays, path, declared)
    values = named_values(arrays)
    signal, samples = _signal_of(values, arrays, path)
    others = [value for value in values if value is not signal]
    return sample_matrix.matrix_recording(samples, path, declared, values=others, beside=signal.path[:-1])


def _signal_of(values: list[NamedValue], arrays: dict[str, np.ndarray], path: Path) -> tuple[NamedValue, np.ndarray]:
    """Returns the named value (`NamedValue`) that is the samples, and its matrix of numbers.

    Raises:
        RecordError: No variable or several variables may be the samples (`unreadable_header`).
    """
    arrays_of = [(value, value.value) for value in values if isinstance(value.value, np.ndarray)]
    numbers = [(value, array) for value, array in arrays_of if array.dtype.kind in "iuf"]
    named = [(value, array) for value, array in numbers if sample_matrix.is_signal_name(value.path[-1])]
    matrices = [(value, array) for value, array in named if sample_matrix.is_matrix(array)] or named
    matrices = matrices or [(value, array) for value, array in numbers if sample_matrix.is_matrix(array)]
    if len(matrices) != 1:
        raise unreadable_header(
            f"{path}: holds {', '.join(arrays) or 'nothing'}; a struct '{CPSC2018_STRUCT}' or one matrix, called "
            f"'{sample_matrix.SIGNAL_NAMES[0]}', is read"
        )
    return matrices[0]


def _is_cpsc2018(arrays: dict[str, np.ndarray]) -> bool:
    """Returns whether the file has a struct meant as CPSC-2018's: one called `ECG` with a field `sex` or `age`.

    A variable `ECG` that is no struct counts too, so that the error names the missing fields.
    """
    names = getattr(arrays.get(CPSC2018_STRUCT), "dtype", np.dtype(float)).names or ()
    return bool({"sex", "age"} & set(names)) or (CPSC2018_STRUCT in arrays and not names)


def _read_cpsc2018(arrays: dict[str, np.ndarray], path: Path, declared: Declared) -> Recording:
    struct = arrays[CPSC2018_STRUCT]
    try:
        fields = struct.reshape(-1)[0]
        samples, sex, age = (np.asarray(fields[name]) for name in _CPSC2018_FIELDS)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise unreadable_header(f"{path}: its struct '{CPSC2018_STRUCT}' lacks data, sex or age ({error})") from error
    # The publishers' statements count like those of the file, so that a contradiction in the file is noticed.
    beside = {name: value for name, value in arrays.items() if name != CPSC2018_STRUCT}
    of_struct = {name: fields[name] for name in struct.dtype.names or () if name not in _CPSC2018_FIELDS}
    stated = statements(named_values({**beside, CPSC2018_STRUCT: of_struct}), beside=(CPSC2018_STRUCT,))
    for kind, value in (
        (Kind.RATE, np.array(CPSC2018_RATE_HZ)),
        (Kind.UNIT, CPSC2018_UNIT),
        (Kind.LEADS, STANDARD_LEADS),
    ):
        stated.add(kind, Statement(where="the description of CPSC-2018", value=value))
    known = recorder_fields.known_fields({recorder_fields.SEX: _scalar(sex), recorder_fields.AGE: _scalar(age)})
    return sample_matrix.stated_recording(samples, path, declared, stated=stated, fields=known)


def _scalar(value: np.ndarray) -> str:
    """Returns the first value of a MATLAB array as text, empty where there is none."""
    return str(value.reshape(-1)[0]) if value.size else ""
