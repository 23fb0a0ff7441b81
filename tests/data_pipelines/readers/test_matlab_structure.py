"""MATLAB files are walked over before SciPy sees them; damage that would crash it is refused."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io

from data_pipelines.errors import RecordError
from data_pipelines.readers.matlab_files import read_matlab
from data_pipelines.readers.matlab_structure import check_structure
from data_pipelines.statements.declared import Declared
from tests.support.fixtures import twelve_lead_mv

SIGNAL = twelve_lead_mv(seconds=0.2)
ECG = {"sex": "Male", "age": 40, "data": SIGNAL.T}


def saved(path, variables, **kwargs):
    scipy.io.savemat(path, variables, **kwargs)
    return path.read_bytes()


@pytest.mark.parametrize("do_compression", [False, True])
@pytest.mark.parametrize(
    "variables",
    [
        {"ECG": ECG},
        {"val": SIGNAL, "b": np.arange(3, dtype=np.int8), "c": 1 + 2j, "text": "µV", "empty": np.zeros((0, 3))},
        {"cells": np.array([np.zeros(2), "ab"], dtype=object), "struct": {"inner": {"x": 1.0}}, "truth": True},
    ],
)
def test_whole_files_pass(tmp_path, variables, do_compression):
    check_structure(saved(tmp_path / "a.mat", variables, do_compression=do_compression), most_bytes=2**20)


@pytest.mark.parametrize("do_compression", [False, True])
def test_a_struct_of_cpsc2018(tmp_path, do_compression):
    saved(tmp_path / "a.mat", {"ECG": ECG}, do_compression=do_compression)
    recording = read_matlab(tmp_path / "a.mat", Declared())
    np.testing.assert_array_equal(recording.signal, SIGNAL)
    assert recording.fields == {"Sex": "Male", "Age": "40"}


@pytest.mark.parametrize("end", [127, 130, 200, 400, -8])
def test_cut_files(tmp_path, end):
    content = saved(tmp_path / "a.mat", {"ECG": ECG})
    with pytest.raises(ValueError, match=r"cut|are left|no header"):
        check_structure(content[:end], most_bytes=2**20)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (128, 99, "an element of type 99 where 14 or 15 belongs"),
        (132, 2**31, "an element of 2147483648 bytes where"),
        (144, 17, "an array of class 17; numbers, text, structs and cells are read"),
        (160, 2**20, "are left|belongs|cut"),
        (164, 2**32 - 1, "shape"),
    ],
)
def test_damaged_fields(tmp_path, position, value, message):
    content = bytearray(saved(tmp_path / "a.mat", {"val": SIGNAL}))
    struct.pack_into("<I", content, position, value)
    with pytest.raises(ValueError, match=f"{message}|values where the shape has"):
        check_structure(bytes(content), most_bytes=2**20)
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(RecordError, match=r"a\.mat: cannot be read as MATLAB"):
        read_matlab(tmp_path / "a.mat", Declared())


def test_compressed_variables_do_not_unpack_without_limit(tmp_path):
    header = saved(tmp_path / "a.mat", {"val": SIGNAL})[:128]
    bomb = zlib.compress(bytes(2**24))
    with pytest.raises(ValueError, match="unpacks to more than 1048576 bytes"):
        check_structure(header + struct.pack("<II", 15, len(bomb)) + bomb, most_bytes=2**20)
