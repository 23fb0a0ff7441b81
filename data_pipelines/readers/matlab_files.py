"""MATLAB files: CPSC-2018's structs, and plain matrices.

MATLAB v4 and v5 through SciPy. Files of v7.3 are HDF5 underneath; save them with `-v7`.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import scipy.io

from data_pipelines.errors import RecordError
from data_pipelines.readers import metadata
from data_pipelines.readers.arrays import SIGNAL_NAMES, matrix_recording
from data_pipelines.readers.contents import MAX_BYTES, check_present, most_unpacked, read_contents
from data_pipelines.readers.declared import Declared
from data_pipelines.readers.matlab_structure import check_structure
from data_pipelines.readers.recording import Recording
from data_pipelines.records import STANDARD_LEADS

#: Name of CPSC-2018's struct, and what its publishers state about all of them (Liu et al., An open access database for
#: evaluating the algorithms of ECG rhythm and morphology abnormality detection, J. Med. Imaging Health Inform. 2018).
CPSC2018_STRUCT = "ECG"
CPSC2018_RATE_HZ = 500.0
CPSC2018_UNIT = "mV"


def read_matlab(path: Path | str, declared: Declared) -> Recording:
    """Reads a MATLAB file of one recording.

    Either a struct `ECG` with `sex`, `age` and `data` as CPSC-2018 has it, whose rate, unit and leads are that set's,
    or a matrix called one of `arrays.SIGNAL_NAMES`, or the only one, about which everything must be declared.

    Args:
        path: the file.
        declared: what it does not state.

    Raises:
        RecordError: `missing_file`, `truncated_file`, `unreadable_header`, `missing_metadata` or `header_disagrees`.
    """
    path = Path(path)
    check_present(path)
    content = read_contents(path, max_bytes=MAX_BYTES)
    try:
        if 0 not in content[:4]:  # By this SciPy tells version 5, which begins with text, from 4, with a small number.
            check_structure(content, most_bytes=most_unpacked(len(content)))
        variables = scipy.io.loadmat(io.BytesIO(content))
    except Exception as error:  # SciPy's reader raises whatever a damaged length or type leads it to.
        raise RecordError(
            f"{path}: cannot be read as MATLAB v4 or v5 ({error}); it is damaged, or of v7.3: save it with -v7",
            reason="truncated_file",
        ) from error
    arrays = {name: value for name, value in variables.items() if not name.startswith("__")}
    if CPSC2018_STRUCT in arrays:
        return _read_cpsc2018(arrays[CPSC2018_STRUCT], path, declared)
    matrices = {
        name: value for name, value in arrays.items() if isinstance(value, np.ndarray) and value.dtype.kind in "iuf"
    }
    named = [name for name in matrices if name in SIGNAL_NAMES] or list(matrices)
    if len(named) != 1:
        raise RecordError(
            f"{path}: holds {', '.join(arrays) or 'nothing'}; a struct '{CPSC2018_STRUCT}' or one matrix, called "
            f"'{SIGNAL_NAMES[0]}', is read",
            reason="unreadable_header",
        )
    return matrix_recording(matrices[named[0]], path, declared, rate=None, unit=None, leads=None)


def _read_cpsc2018(struct: np.ndarray, path: Path, declared: Declared) -> Recording:
    try:
        fields = struct.reshape(-1)[0]
        samples, sex, age = (np.asarray(fields[name]) for name in ("data", "sex", "age"))
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path}: its struct '{CPSC2018_STRUCT}' lacks data, sex or age ({error})", reason="unreadable_header"
        ) from error
    return matrix_recording(
        samples,
        path,
        declared,
        rate=CPSC2018_RATE_HZ,
        unit=CPSC2018_UNIT,
        leads=STANDARD_LEADS,
        fields=metadata.known_fields({metadata.SEX: _scalar(sex), metadata.AGE: _scalar(age)}),
    )


def _scalar(value: np.ndarray) -> str:
    """Returns the one value of a MATLAB array as text, empty where there is none."""
    return str(value.reshape(-1)[0]) if value.size else ""
