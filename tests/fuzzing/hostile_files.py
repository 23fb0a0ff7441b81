"""Files made to exhaust memory or to reach other files: `python -m tests.fuzzing.hostile_files` reads each.

Prints JSON: for each file the reason it was refused under (or `read`), the most memory that reading it added in MiB,
and which other files Python opened or reached meanwhile.
"""

import io
import json
import os
import resource
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from data_pipelines.errors import RecordError
from data_pipelines.readers.formats import FORMAT_OF_SUFFIX, FoundRecording, read_recording
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.statements.declared import Declared

DECLARED = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)
SECRET = "secret.bin"

#: Bytes that no file may unpack to, and few enough to make in a test. They are packed at the fastest level, as zeros
#: become few bytes at any.
BOMB_BYTES = 160 * 2**20


def _npz(folder: Path, name: str, parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(folder / name, "w", method, compresslevel=1) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)


def _npy(shape: tuple[int, ...], dtype: str = "<i2") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz_of_zeros(folder: Path) -> None:
    """A megabyte of deflated zeros."""
    _npz(folder, "zeros.npz", {"signal.npy": _npy((BOMB_BYTES // 24, 12)) + bytes(BOMB_BYTES // 24 * 24)})


def npz_of_many(folder: Path) -> None:
    """Parts each of which is small enough."""
    part = _npy((BOMB_BYTES // 240, 12)) + bytes(BOMB_BYTES // 240 * 24)
    _npz(folder, "many.npz", {f"a{number}.npy": part for number in range(10)})


def npz_that_lies(folder: Path) -> None:
    """An archive that states a hundredth of what its part unpacks to."""
    data = bytearray((folder.parent / npz_of_zeros.__name__ / "zeros.npz").read_bytes())
    size = struct.pack("<I", len(_npy((BOMB_BYTES // 24, 12))) + BOMB_BYTES // 24 * 24)
    (folder / "lying.npz").write_bytes(data.replace(size, struct.pack("<I", 1_000_000)))


def npz_of_bytes(folder: Path) -> None:
    """Samples of one byte, which are worked with in eight."""
    _npz(folder, "bytes.npz", {"signal.npy": _npy((5_000_000, 12), "|i1") + bytes(60_000_000)})


def npz_by_lzma(folder: Path) -> None:
    """A packing that makes a terabyte of a megabyte, and that NumPy never uses."""
    _npz(folder, "lzma.npz", {"signal.npy": bytes(1000)}, zipfile.ZIP_LZMA)


def npy_without_bytes(folder: Path) -> None:
    """As many values as one likes, of no bytes each."""
    (folder / "none.npy").write_bytes(_npy((10**12, 12), "|V0"))


def npy_with_claims(folder: Path) -> None:
    """A header that claims terabytes."""
    (folder / "claims.npy").write_bytes(_npy((10**12, 12)) + bytes(2400))


def csv_of_columns(folder: Path) -> None:
    """A million columns."""
    (folder / "wide.csv").write_bytes(b"1," * 10**6 + b"1\n")


def matlab_of_zeros(folder: Path) -> None:
    """A compressed variable of zeros."""
    rows = BOMB_BYTES // 12
    body = struct.pack("<IIII", 6, 8, 9, 0) + struct.pack("<IIii", 5, 8, rows, 12) + struct.pack("<II", 1, 4)
    body += b"data" + bytes(4) + struct.pack("<II", 1, rows * 12)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    packer = zlib.compressobj(1)
    packed = packer.compress(struct.pack("<II", 14, len(body) + rows * 12) + body)
    packed += b"".join(packer.compress(bytes(2**20)) for _ in range(rows * 12 // 2**20)) + packer.flush()
    (folder / "zeros.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)


def matlab_of_cells(folder: Path) -> None:
    """A million empty cells, each of which becomes an object."""
    count = 10**6
    body = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, count, 1) + struct.pack("<II", 1, 1) + b"c" * 8
    body += struct.pack("<II", 14, 0) * count
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body, 9)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (folder / "cells.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)


def hdf5_without_samples(folder: Path) -> None:
    """A matrix of a shape without a byte behind it, all of it fill values."""
    with h5py.File(folder / "fill.h5", "w") as file:
        file.create_dataset("signal", (10**8, 12), "i2", chunks=(1000, 12), fillvalue=3)


def hdf5_of_zeros(folder: Path) -> None:
    """Zeros under deflate."""
    with h5py.File(folder / "zeros.h5", "w") as file:
        rows = BOMB_BYTES // 24
        dataset = file.create_dataset("signal", (rows, 12), "i2", chunks=(2**20, 12), compression="gzip")
        dataset[: 2**20] = 0


def hdf5_of_one_chunk(folder: Path) -> None:
    """A small matrix in a chunk of gigabytes."""
    with h5py.File(folder / "chunk.h5", "w") as file:
        file.create_dataset("signal", (5000, 12), "i2", chunks=(10**8, 12), maxshape=(None, 12), fillvalue=1)


def hdf5_of_texts(folder: Path) -> None:
    """Names of leads that are all the same long text of the file, four thousand times."""
    with h5py.File(folder / "texts.h5", "w") as file:
        file["signal"] = np.zeros((5000, 12), np.int16)
        # As many as fit an attribute; each is a text of its own here, where a stranger's could be one.
        file["signal"].attrs["leads"] = ["x" * 1000] * 4000


def xml_of_entities(folder: Path) -> None:
    """A billion laughs."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    (folder / "laughs.xml").write_text(f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><RestingECG>&e9;</RestingECG>')


def xml_of_elements(folder: Path) -> None:
    """Hundreds of thousands of elements of four bytes."""
    (folder / "elements.xml").write_bytes(b"<RestingECG>" + b"<a/>" * 6 * 10**5 + b"</RestingECG>")


def xml_of_attributes(folder: Path) -> None:
    """An element of 600,000 attributes."""
    attributes = b" ".join(b'a%d=""' % number for number in range(6 * 10**5))
    (folder / "attributes.xml").write_bytes(b"<RestingECG " + attributes + b"/>")


def xml_that_is_deep(folder: Path) -> None:
    """Elements in elements, ten thousand deep."""
    (folder / "deep.xml").write_bytes(b"<a>" * 10**4 + b"</a>" * 10**4)


def dicom_of_items(folder: Path) -> None:
    """A sequence of 300,000 empty items."""
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    group = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 3 * 10**5
    sequence = struct.pack("<HH2sHI", 0x5400, 0x0100, b"SQ", 0, len(items)) + items
    (folder / "items.dcm").write_bytes(bytes(128) + b"DICM" + group + meta + sequence)


def wfdb_of_claims(folder: Path) -> None:
    """A header of ten thousand million samples."""
    lines = ["claims 12 500 9999999999", *(f"claims.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in STANDARD_LEADS)]
    (folder / "claims.hea").write_text("\n".join(lines))
    (folder / "claims.dat").write_bytes(bytes(2400))


def wfdb_elsewhere(folder: Path) -> None:
    """Headers whose signals lie in other folders, or on another machine."""
    secret = (folder.parent / SECRET).resolve()
    for number, name in enumerate(
        (f"../{SECRET}", str(secret), f"file://{secret}", "http://127.0.0.1/x.dat", "~", "-")
    ):
        lines = [f"other{number} 12 500 100", *(f"{name} 16 1000/mV 16 0 0 0 0 {lead}" for lead in STANDARD_LEADS)]
        (folder / f"other{number}.hea").write_text("\n".join(lines))
    (folder / "parent.hea").write_text(f"../{SECRET} 12 500 100\n")


def hdf5_elsewhere(folder: Path) -> None:
    """Samples by an external link, in external storage, in a virtual data set."""
    secret = (folder.parent / SECRET).resolve()
    with h5py.File(folder.parent / "other.h5", "w") as file:
        file["signal"] = np.ones((5000, 12), np.int16)
    with h5py.File(folder / "link.h5", "w") as file:
        file["signal"] = h5py.ExternalLink(str(folder.parent / "other.h5"), "signal")
    with h5py.File(folder / "external.h5", "w") as file:
        file.create_dataset("signal", (100, 12), "i2", external=[(str(secret), 0, 2400)])
    with h5py.File(folder / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((5000, 12), "i2")
        layout[:] = h5py.VirtualSource(str(folder.parent / "other.h5"), "signal", (5000, 12))
        file.create_virtual_dataset("signal", layout)


def xml_elsewhere(folder: Path) -> None:
    """Entities, a document type and an inclusion that name other files."""
    secret = (folder.parent / SECRET).resolve()
    (folder / "entity.xml").write_text(
        f'<!DOCTYPE a [<!ENTITY e SYSTEM "file://{secret}">]><RestingECG>&e;</RestingECG>'
    )
    (folder / "type.xml").write_text(f'<!DOCTYPE RestingECG SYSTEM "file://{secret}"><RestingECG/>')
    include = f'<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="{secret}" parse="text"/>'
    (folder / "include.xml").write_text(f"<RestingECG>{include}</RestingECG>")


def npz_elsewhere(folder: Path) -> None:
    """Parts with names of other folders, one of which claims to be a link."""
    link = zipfile.ZipInfo("signal.npy")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(folder / "elsewhere.npz", "w") as archive:
        archive.writestr(link, str((folder.parent / SECRET).resolve()))
        archive.writestr(f"../../{SECRET}.npy", _npy((100, 12)) + bytes(2400))


#: What makes the files, each in a folder of its own.
MAKERS: tuple[Callable[[Path], None], ...] = (
    npz_of_zeros,
    npz_of_many,
    npz_that_lies,
    npz_of_bytes,
    npz_by_lzma,
    npy_without_bytes,
    npy_with_claims,
    csv_of_columns,
    matlab_of_zeros,
    matlab_of_cells,
    hdf5_without_samples,
    hdf5_of_zeros,
    hdf5_of_one_chunk,
    hdf5_of_texts,
    xml_of_entities,
    xml_of_elements,
    xml_of_attributes,
    xml_that_is_deep,
    dicom_of_items,
    wfdb_of_claims,
    wfdb_elsewhere,
    hdf5_elsewhere,
    xml_elsewhere,
    npz_elsewhere,
)

_seen: list[str] = []


def _watch(event: str, arguments: tuple) -> None:
    """Notes what Python opens, connects to or starts; h5py's own library is not seen."""
    if event == "open" and isinstance(arguments[0], str | bytes):
        _seen.append(os.fsdecode(arguments[0]))
    elif event in ("socket.connect", "subprocess.Popen", "urllib.Request"):
        _seen.append(f"{event} {arguments!r}")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _read(path: Path) -> str:
    found = FoundRecording(record_id=path.stem, path=path, format=FORMAT_OF_SUFFIX[path.suffix])
    try:
        read_recording(found, DECLARED)
    except RecordError as error:
        return error.reason
    return "read"


def main() -> None:
    """Makes the files in another process, for its memory is not that of reading, and reads them in this one."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        pid = os.fork()
        if pid == 0:
            (top / SECRET).write_bytes(bytes(range(100)) * 24)
            for make in MAKERS:
                (top / make.__name__).mkdir()
                make(top / make.__name__)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            sys.exit("the files could not be made")
        paths = sorted(path for path in top.glob("*/*") if path.suffix in FORMAT_OF_SUFFIX)
        results = {}
        for path in paths:
            before, number = _peak_mib(), len(_seen)
            reason = _read(path)
            own = (str(path.parent), sys.prefix, sys.base_prefix)
            others = [seen for seen in _seen[number:] if not seen.startswith(own)]
            size = path.stat().st_size
            results[f"{path.parent.name}/{path.name}"] = [reason, round(_peak_mib() - before, 1), others, size]
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.addaudithook(_watch)
    main()
