"""A whole small file of every format, how it is read, and where there is one the independent decoder."""

import dataclasses
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from data_pipelines.readers.arrays import read_numpy
from data_pipelines.readers.dicom_files import read_dicom
from data_pipelines.readers.hdf5_files import read_hdf5
from data_pipelines.readers.matlab_files import read_matlab
from data_pipelines.readers.text.samples import read_csv
from data_pipelines.readers.wfdb_files import read_wfdb
from data_pipelines.readers.xml.vendors import read_vendor_xml
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.statements.declared import Declared
from tests.data_pipelines.readers.vendor_files import (
    STORED_COLUMNS,
    aecg_xml,
    counts_of,
    muse_xml,
    philips_xml,
    write_dicom,
)
from tests.fuzzing.fuzz_decoders import Decoded, decode_aecg, decode_csv, decode_muse, decode_npy, decode_wfdb
from tests.fuzzing.fuzz_nested_decoders import decode_cpsc2018, decode_dicom, decode_hdf5, decode_npz
from tests.support.fixtures import twelve_lead_mv, write_wfdb

SECONDS = 0.3
FULL = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)
RATE_AND_UNIT = Declared(sampling_rate_hz=500.0, unit="mV")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specimen:
    """One format's file.

    Attributes:
        name: of the format.
        files: all that belong to it, by name.
        main: the one that is mutated most.
        texts: those that are text.
        read: from the folder that the files lie in.
        original: what the file says before it is mutated.
        decode: the second opinion, from the files.
    """

    name: str
    files: dict[str, bytes]
    main: str
    texts: tuple[str, ...]
    read: Callable[[Path], Recording]
    original: Recording
    decode: Callable[[dict[str, bytes]], Decoded] | None


def specimens() -> list[Specimen]:
    """Returns one of every format."""
    signal = twelve_lead_mv(seconds=SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), signal)
    made = [
        _specimen("npy", {"a.npy": files["a.npy"]}, lambda f: read_numpy(f / "a.npy", FULL), decode=decode_npy),
        _specimen("npz", {"a.npz": files["a.npz"]}, lambda f: read_numpy(f / "a.npz", Declared()), decode=decode_npz),
        _specimen(
            "csv",
            {"a.csv": files["a.csv"]},
            lambda f: read_csv(f / "a.csv", RATE_AND_UNIT),
            decode=decode_csv,
            text=True,
        ),
        _specimen("hdf5", {"a.h5": files["a.h5"]}, lambda f: read_hdf5(f / "a.h5", Declared()), decode=decode_hdf5),
        # Without compression, damage to the samples goes further.
        _specimen(
            "hdf5_bare", {"b.h5": files["b.h5"]}, lambda f: read_hdf5(f / "b.h5", Declared()), decode=decode_hdf5
        ),
        _specimen(
            "cpsc2018",
            {"a.mat": files["a.mat"]},
            lambda f: read_matlab(f / "a.mat", Declared()),
            decode=decode_cpsc2018,
        ),
        _specimen("dicom", {"a.dcm": files["a.dcm"]}, lambda f: read_dicom(f / "a.dcm"), decode=decode_dicom),
    ]
    documents = {
        "muse": (muse_xml(counts_of(microvolts=4.88, seconds=SECONDS)[:, STORED_COLUMNS]), decode_muse),
        "aecg": (aecg_xml(counts_of(microvolts=2.5, seconds=SECONDS)), decode_aecg),
        "philips": (philips_xml(counts_of(microvolts=5, seconds=SECONDS)), None),
    }
    made += [
        _specimen(name, {"a.xml": text.encode()}, lambda f: read_vendor_xml(f / "a.xml"), decode=decode, text=True)
        for name, (text, decode) in documents.items()
    ]
    wfdb_files = {name: files[name] for name in ("a.hea", "a.dat", "b.dat")}
    # Without its checksums, damage to the samples and to their layout goes further.
    lines = wfdb_files["a.hea"].decode().splitlines(keepends=True)
    bare = "".join(line if "." not in line.split()[0] else " ".join(line.split()[:3]) + "\n" for line in lines)
    for name, header in (("wfdb", wfdb_files["a.hea"]), ("wfdb_bare", bare.encode())):
        made.append(
            _specimen(
                name,
                wfdb_files | {"a.hea": header},
                lambda f: read_wfdb(f / "a"),
                decode=lambda content: decode_wfdb(content, "a.hea"),
                text=True,
            )
        )
    return made


def _specimen(
    name: str,
    files: dict[str, bytes],
    read: Callable[[Path], Recording],
    *,
    decode: Callable | None = None,
    text: bool = False,
) -> Specimen:
    main = next(iter(files))
    if decode is not None and len(files) == 1:
        of_content = decode

        def decode(contents: dict[str, bytes]) -> Decoded:
            return of_content(contents[main])

    with tempfile.TemporaryDirectory() as folder:
        for file_name, content in files.items():
            (Path(folder) / file_name).write_bytes(content)
        original = read(Path(folder))
    return Specimen(
        name=name, files=files, main=main, texts=(main,) if text else (), read=read, original=original, decode=decode
    )


def _files(folder: Path, signal: np.ndarray) -> dict[str, bytes]:
    np.save(folder / "a.npy", signal)
    archive = io.BytesIO()
    np.savez_compressed(archive, signal=signal, fs=500.0, unit="mV", leads=np.array(STANDARD_LEADS))
    (folder / "a.npz").write_bytes(archive.getvalue())
    rows = "".join(",".join(f"{value:.3f}" for value in row) + "\n" for row in signal)
    (folder / "a.csv").write_text(",".join(STANDARD_LEADS) + "\n" + rows)
    for name, compression in (("a.h5", "gzip"), ("b.h5", None)):
        with h5py.File(folder / name, "w") as file:
            dataset = file.create_dataset("signal", data=signal.astype(np.float32), compression=compression)
            dataset.attrs.update({"sampling_rate": 500.0, "unit": "mV", "leads": list(STANDARD_LEADS), "age": 40})
    scipy.io.savemat(folder / "a.mat", {"ECG": {"sex": "Male", "age": 40, "data": signal.T}})
    write_dicom(folder / "a.dcm", counts_of(microvolts=2.5, seconds=SECONDS))
    write_wfdb(folder, "a", signal, comments=("Age: 40", "Sex: F"))
    write_wfdb(folder, "b", signal[::-1])
    return {path.name: path.read_bytes() for path in folder.iterdir()}
