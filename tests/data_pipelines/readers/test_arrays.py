"""Matrices in NumPy, text, HDF5 and MATLAB files: read as they are, never guessed at, refused in plain words."""

import io
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from data_pipelines.errors import RecordError
from data_pipelines.files import contents
from data_pipelines.readers import arrays as arrays_module
from data_pipelines.readers import matlab_files
from data_pipelines.readers.arrays import read_numpy
from data_pipelines.readers.hdf5_files import read_hdf5
from data_pipelines.readers.matlab_files import read_matlab
from data_pipelines.readers.text import samples
from data_pipelines.readers.text.samples import read_csv
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.statements.declared import Declared
from tests.support.fixtures import twelve_lead_mv

SIGNAL = twelve_lead_mv(seconds=2)
FULL = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)
NOTHING = Declared()


def refused(read, path, reason, message, declared=FULL):
    with pytest.raises(RecordError, match=message) as caught:
        read(path, declared)
    assert caught.value.reason == reason
    assert path.name in str(caught.value)


def check(recording, signal=SIGNAL):
    np.testing.assert_array_equal(recording.signal, signal)
    assert recording.signal.dtype == np.float64
    assert recording.sampling_rate_hz == 500.0
    assert recording.channels == STANDARD_LEADS
    assert recording.units == ("mV",) * 12


# What is declared


@pytest.mark.parametrize("orientation", [None, "time_lead", "lead_time"])
def test_time_is_found_by_the_number_of_leads_or_by_the_declaration(tmp_path, orientation):
    path = tmp_path / "a.npy"
    declared = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS, orientation=orientation)
    for axes, fits in ((SIGNAL, "time_lead"), (SIGNAL.T, "lead_time")):
        np.save(path, axes)
        if orientation in (None, fits):
            check(read_numpy(path, declared))
        else:
            refused(read_numpy, path, "header_disagrees", f"12 leads over time as {orientation}", declared)


def test_a_square_matrix_needs_its_orientation(tmp_path):
    path = tmp_path / "square.npy"
    np.save(path, SIGNAL[:12])
    refused(read_numpy, path, "header_disagrees", r"shape \(12, 12\) cannot be told to be 12 leads over time")
    check(read_numpy(path, Declared(**(vars(FULL) | {"orientation": "lead_time"}))), SIGNAL[:12].T)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("sampling_rate_hz", "does not state its rate; say it for all such files with --declared_rate_hz"),
        ("unit", "does not state its unit; .* --declared_unit"),
        ("leads", "does not state its lead names; .* --declared_leads"),
    ],
)
def test_nothing_is_assumed(tmp_path, missing, message):
    path = tmp_path / "a.npy"
    np.save(path, SIGNAL)
    refused(read_numpy, path, "missing_metadata", message, Declared(**(vars(FULL) | {missing: None})))


# NumPy


def test_archives_say_what_they_are(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(
        path, signal=SIGNAL.astype(np.float32), fs=500, unit="mV", leads=np.array(STANDARD_LEADS), x=[1]
    )
    check(read_numpy(path, NOTHING), SIGNAL.astype(np.float32))
    contrary = Declared(sampling_rate_hz=400.0)
    refused(read_numpy, path, "header_disagrees", "states the rate 500.0, but --declared_rate_hz says 400.0", contrary)


def test_an_archive_behind_damage_is_none(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, signal=SIGNAL, fs=500, unit="mV", leads=np.array(STANDARD_LEADS))
    path.write_bytes(b"r\xbe" + path.read_bytes())
    refused(read_numpy, path, "truncated_file", "cannot be read as an array of numbers", NOTHING)


@pytest.mark.parametrize("dtype", ["<i2", ">i4", "<f8", "|u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_type_and_order_of_numbers(tmp_path, dtype, order):
    values = np.asarray(np.arange(24).reshape(2, 12), dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    check(read_numpy(tmp_path / "a.npy", FULL), values.astype(np.float64))


def npy_claiming(shape, data=b"\0" * 96):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "damaged"),
        (b"no array at all", "damaged"),
        (npy_claiming((10**9, 12)), "bytes of samples where shape"),
        (npy_claiming((-1, 12)), "bytes of samples where shape"),
        (npy_claiming((2, 12)), "96 bytes of samples where shape .* has 192"),
        (b"PK\x05\x06" + bytes(18), "holds nothing"),
    ],
)
def test_damaged_arrays(tmp_path, contents, message):
    path = tmp_path / "a.npy"
    path.write_bytes(contents)
    with pytest.raises(RecordError, match=message):
        read_numpy(path, FULL)


def test_objects_are_not_unpickled(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([[object()]], object), allow_pickle=True)
    refused(read_numpy, path, "truncated_file", "holds objects")


def test_archives_that_unpack_to_too_much_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "ALWAYS_UNPACKED_BYTES", 100_000)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("signal.npy", bytes(1_000_000))
    assert path.stat().st_size < 10_000
    refused(read_numpy, path, "unreadable_header", "unpacks to 1000000 bytes, more than any ECG takes")


def test_numbers_only(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, SIGNAL.astype(np.complex64))
    refused(read_numpy, path, "unreadable_header", "of type complex64; numbers are needed")
    np.save(path, SIGNAL[None])
    refused(read_numpy, path, "header_disagrees", r"an array of shape \(1, 1000, 12\); a matrix of samples")


def test_no_such_file(tmp_path):
    for read in (read_numpy, read_csv):
        refused(read, tmp_path / "gone.x", "missing_file", r"gone\.x: cannot be read \(No such file or directory\)$")
    for read in (read_hdf5, read_matlab):
        refused(read, tmp_path / "gone.x", "missing_file", r"gone\.x: no such file$")


@pytest.mark.parametrize(
    ("read", "module"), [(read_numpy, arrays_module), (read_csv, samples), (read_matlab, matlab_files)]
)
def test_files_larger_than_any_recording(tmp_path, monkeypatch, read, module):
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    path = tmp_path / "a.x"
    path.write_bytes(bytes(101))
    refused(read, path, "unreadable_header", r"a\.x: 101 bytes, more than any ECG takes$")


# Text


def text_of(signal, separator=",", names=STANDARD_LEADS):
    lines = [separator.join(names)] if names else []
    return "\n".join(lines + [separator.join(map(repr, row)) for row in signal.tolist()]) + "\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("names", [STANDARD_LEADS, None])
def test_tables_of_text(tmp_path, separator, names):
    path = tmp_path / "a.csv"
    path.write_text(text_of(SIGNAL[:50], separator, names))
    declared = Declared(sampling_rate_hz=500.0, unit="mV", leads=None if names else STANDARD_LEADS)
    check(read_csv(path, declared), SIGNAL[:50])


def test_a_column_of_times_is_no_lead(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text_of(np.column_stack([np.arange(50) / 500, SIGNAL[:50]]), names=("time", *STANDARD_LEADS)))
    recording = read_csv(path, Declared(sampling_rate_hz=500.0, unit="mV"))
    assert recording.channels == ("time", *STANDARD_LEADS)
    assert recording.units == ("", *("mV",) * 12)


def test_gaps_are_marked_as_invalid(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join(STANDARD_LEADS) + "\n" + "1,,NaN" + ",0" * 9 + "\n")
    assert np.isnan(read_csv(path, FULL).signal).tolist() == [[False, True, True, *[False] * 9]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table"),
        (",".join(STANDARD_LEADS), "no table"),
        (",".join(STANDARD_LEADS) + "\n1,2\n", "line 2 has 2 cells where the first has 12"),
        (text_of(SIGNAL[:3]) + "1,2,3,4,5,6,7,8,9,10,11,12,13\n", "no table"),
        (text_of(SIGNAL[:3]) + "1,2,x" + ",0" * 9, "'x' in column 'III', line 4 of the samples, is no number"),
        (text_of(SIGNAL[:3]) + '1,2,"1,5"' + ",0" * 9, "'1,5' in column 'III'"),
    ],
)
def test_damaged_tables(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        read_csv(path, Declared(sampling_rate_hz=500.0, unit="mV"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_text_in_another_encoding(tmp_path, encoding):
    path = tmp_path / "a.csv"
    names = [f"{lead} [µV]" for lead in STANDARD_LEADS]
    path.write_bytes(text_of(SIGNAL[:3] * 1000, names=names).encode(encoding))
    recording = read_csv(path, Declared(sampling_rate_hz=500.0))
    np.testing.assert_array_equal(recording.signal, SIGNAL[:3] * 1000)
    assert recording.units == ("uV",) * 12
    path.write_bytes(b"\0".join(text_of(SIGNAL[:3]).encode().split(b",")))
    refused(read_csv, path, "unreadable_header", "not a text in UTF-8, UTF-16 or Latin-1 .it has zero bytes")


# HDF5


def test_hdf5_says_what_it_is(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("deep/ecg", data=SIGNAL.T, compression="gzip")
        file["deep/ecg"].attrs.update({"Sampling_Rate": 500, "units": "mV", "leads": list(STANDARD_LEADS)})
        file.attrs.update({"patient_id": "p7", "age": 51, "sex": "F"})
        file["note"] = "text"
    recording = read_hdf5(path, NOTHING)
    check(recording)
    assert dict(recording.fields) == {"Patient ID": "p7", "Age": "51", "Sex": "F"}


def test_hdf5_of_several_matrices_needs_a_name(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["one"], file["two"] = SIGNAL, SIGNAL
    refused(read_hdf5, path, "unreadable_header", r"2 matrices of numbers \(one, two\)")
    with h5py.File(path, "a") as file:
        file["signal"] = SIGNAL * 2
    check(read_hdf5(path, FULL), SIGNAL * 2)


def test_hdf5_that_claims_too_much(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("signal", shape=(10**10, 12), dtype="f8", chunks=(1000, 12))
    refused(read_hdf5, path, "unreadable_header", "960000000000 bytes, more than any ECG takes")


def test_damaged_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["signal"] = SIGNAL
    path.write_bytes(path.read_bytes()[:-20_000])
    refused(read_hdf5, path, "truncated_file", "cannot be read as HDF5")


def test_hdf5_whose_heap_never_ends(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["signal"] = SIGNAL
        file["signal"].attrs["leads"] = list(STANDARD_LEADS)
    check(read_hdf5(path, Declared(sampling_rate_hz=FULL.sampling_rate_hz, unit=FULL.unit)), SIGNAL)
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    # The last of the twelve names begins a longer text, so that nothing but zeros is where free space should begin.
    last = heap + 16 + 11 * 24
    assert content[last : last + 2] == bytes([12, 0])
    path.write_bytes(content[: last + 8] + (33).to_bytes(8, "little") + content[last + 16 :])
    refused(read_hdf5, path, "truncated_file", "an object of 0 bytes in a heap")


def test_hdf5_groups_in_a_circle_and_links_to_nothing(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("group")
        group["up"] = file["/"]
        group["signal"] = SIGNAL
        file["another_name"] = h5py.SoftLink("/group/signal")
        file["gone"] = h5py.SoftLink("/none")
    check(read_hdf5(path, FULL), SIGNAL)


# MATLAB


def test_cpsc2018_structs(tmp_path):
    path = tmp_path / "A0001.mat"
    scipy.io.savemat(path, {"ECG": {"sex": "Female", "age": 74, "data": SIGNAL.T}})
    recording = read_matlab(path, NOTHING)
    check(recording)
    assert dict(recording.fields) == {"Sex": "Female", "Age": "74"}
    refused(read_matlab, path, "header_disagrees", "states the unit mV", Declared(unit="uV"))


def test_matlab_matrices(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"val": SIGNAL.T})
    check(read_matlab(path, FULL))
    message = "does not state its lead names; .* --declared_leads, and with --declared_rate_hz and --declared_unit what"
    refused(read_matlab, path, "missing_metadata", message, NOTHING)
    scipy.io.savemat(path, {"one": SIGNAL, "two": SIGNAL})
    refused(read_matlab, path, "unreadable_header", "holds one, two; a struct 'ECG' or one matrix")
    scipy.io.savemat(path, {"ECG": {"data": SIGNAL.T, "sex": "Male"}})
    refused(read_matlab, path, "unreadable_header", "its struct 'ECG' lacks data, sex or age")
    scipy.io.savemat(path, {"ECG": {"data": SIGNAL.T}})
    check(read_matlab(path, FULL))
    refused(read_matlab, path, "missing_metadata", "does not state its lead names", NOTHING)


def test_damaged_matlab(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"val": SIGNAL.T})
    path.write_bytes(path.read_bytes()[:5000])
    refused(read_matlab, path, "truncated_file", "cannot be read as MATLAB v4 or v5")
