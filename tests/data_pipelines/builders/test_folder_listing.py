"""A folder of other files is told for what it is; what is no recording is left out, counted and named."""

import gzip
import io
import os
import re
import socket
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from data_pipelines.builders.code15_wfdb import Code15WfdbSource
from data_pipelines.builders.cpsc2018 import Cpsc2018Source
from data_pipelines.builders.folder import FolderSource
from data_pipelines.builders.physionet2021 import Physionet2021Source
from data_pipelines.builders.source_folder import check_source
from data_pipelines.command import command
from data_pipelines.errors import DataError
from data_pipelines.files.tree import file_litter, folder_litter, list_tree
from data_pipelines.readers.formats import find_recordings
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.statements.declared import Declared
from tests.support.fixtures import results_of, twelve_lead_mv, write_wfdb

RECIPE = RECIPES["plain"].changed(sampling_rate_hz=500)
DECLARED = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)


def source(folder, **changes):
    arguments = {"labels": None, "patient_field": None, "name": "mixed", "recipe": RECIPE, "declared": DECLARED}
    return FolderSource(folder, **(arguments | changes))


def write(folder, *names, content=b"x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def ecg_dicom():
    (example,) = [path for path in pydicom.data.get_testdata_files() if Path(path).name.endswith("ecg.dcm")][:1]
    return Path(example).read_bytes()


def csv_of(signal):
    lines = [",".join(STANDARD_LEADS), *(",".join(map(repr, row)) for row in signal.tolist())]
    return "\n".join(lines).encode()


# An empty or foreign folder


def test_a_foreign_folder_is_told_by_kind_and_how_each_is_converted(tmp_path):
    write(tmp_path, *(f"a/{number}.EDF" for number in range(41)), *(f"{number}.scp" for number in range(3)))
    write(tmp_path, "x.zip", "y.zip", "scan.pdf", "t.parquet", "h.ecg", "m.mwf", "._0.edf", "odd.qqq", "noname")
    with pytest.raises(DataError) as caught:
        source(tmp_path)
    message = str(caught.value)
    assert "no recording (.hea .npy" in message
    assert "found are 41 .edf, 3 .scp, 2 .zip" in message
    for said in ("EDF or BDF; convert each with edf2mit", "SCP-ECG; convert them to DICOM or HL7 aECG"):
        assert said in message
    for said in ("archives; unpack them", "they hold no samples", "save each recording as .npy", "Holter", "MFER"):
        assert said in message
    for said in ("1 companions of macOS (._…)", "1 .qqq", "1 no suffix"):
        assert said in message


def test_an_empty_folder_is_told_to_be_empty(tmp_path):
    with pytest.raises(DataError, match=r"no recording \(.*\) in it or below; it is empty; is --source right\?"):
        source(tmp_path)


def test_files_of_a_format_that_was_not_asked_for_are_told(tmp_path):
    write_wfdb(tmp_path, "w", twelve_lead_mv())
    with pytest.raises(DataError, match=r"found are 1 \.hea; \.hea files are read where --formats has wfdb"):
        source(tmp_path, formats=("dicom",))


def test_what_is_not_read_beside_recordings_is_told_in_the_notes(tmp_path):
    write_wfdb(tmp_path, "w", twelve_lead_mv())
    write(tmp_path, "e.edf", "f.edf", "s.scp", "w.atr")
    notes = source(tmp_path).card.notes
    assert "files passed over: 2 .edf, 1 .scp" in notes
    assert any(note.startswith("2 .edf: EDF or BDF; convert each") for note in notes)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: Physionet2021Source(folder, recipe=RECIPE, num_workers=1),
        lambda folder: Cpsc2018Source(folder, recipe=RECIPE),
        lambda folder: Code15WfdbSource(folder, recipe=RECIPE),
    ],
)
def test_builders_of_published_sets_tell_what_is_there(tmp_path, make):
    write(tmp_path, "a.edf", "b.edf", "c.zip", ".DS_Store")
    with pytest.raises(DataError, match=r"found are 2 \.edf, 1 \.zip; passed over are 1 hidden files"):
        make(tmp_path)


# What is no recording


@pytest.mark.parametrize(
    "name",
    [
        *("._a.csv", ".DS_Store", "Thumbs.db", "desktop.ini", "~$a.csv", "a.csv.tmp", "a.mat.crdownload", "a.npy.part"),
        *(".a.csv", "a.csv~", "__MACOSX/a.csv", ".git/a.npy", ".ipynb_checkpoints/a-checkpoint.csv", "b/.hidden/a.csv"),
        "@eaDir/a.csv",
    ],
)
def test_what_systems_and_programs_leave_is_no_recording(tmp_path, name):
    write(tmp_path, "a.csv", content=csv_of(twelve_lead_mv(seconds=1)))
    write(tmp_path, name, content=csv_of(twelve_lead_mv(seconds=1)))
    found = find_recordings(tmp_path)
    assert [recording.record_id for recording in found.recordings] == ["a"]
    assert sum(found.litter.values()) == 1
    assert any("passed over, since they are no recordings: 1 " in note for note in source(tmp_path).card.notes)


def test_a_hidden_folder_that_is_asked_for_is_searched(tmp_path):
    write(tmp_path / ".cache", "a.npy")
    assert [path.name for path in list_tree(tmp_path / ".cache").files] == ["a.npy"]


@pytest.mark.parametrize("name", ["a.csv", "Thumbs.db.csv", "1.2.840", "part.npy", "temp", "_a.mat"])
def test_ordinary_names_are_no_litter(name):
    assert file_litter(name) is None
    assert folder_litter(name) is None


def test_pipes_sockets_and_links_to_nothing_neither_hang_nor_pass_unsaid(tmp_path):
    write(tmp_path, "a.npy")
    os.mkfifo(tmp_path / "b.csv")
    (tmp_path / "c.csv").symlink_to(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(tmp_path / "d.csv"))
        found = find_recordings(tmp_path)
    assert [recording.record_id for recording in found.recordings] == ["a"]
    assert found.litter == {"pipes, sockets and devices": 2, "links to files that are not there": 1}


def test_folders_that_may_not_be_looked_at_are_told(tmp_path, monkeypatch):
    write(tmp_path, "a/x.npy", "b/y.npy")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    notes = source(tmp_path).card.notes
    said = "1 folders or files cannot be looked at, what is in them is NOT in the data set (permissions?): "
    assert f"{said}{tmp_path / 'b'}" in notes
    with pytest.raises(DataError, match="b: cannot be listed"):
        source(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", b"record,patient_id,age\na,1,60\nb,2,61\n"),
        ("meta.tsv", b"\xef\xbb\xbfECG ID\tSex\n1\tM\n"),
        ("list.csv", b'"filename";"label"\n"a";"x"\n'),
        ("ptbxl_database.csv", b'ecg_id,patient_id,report\n1,2,"a, b"\n'),
        ("codes.csv", b"code,description\nAF,atrial fibrillation\n"),
        ("README.csv", b"anything\n"),
        ("RECORDS.csv", b"g1/a\ng1/b\n"),
        ("numbers.csv", b"patient_id,age,sex\n1,60,0\n2,61,1\n"),
    ],
)
def test_tables_among_recordings_are_left_out_and_named(tmp_path, name, content):
    write(tmp_path, name, content=content)
    write_wfdb(tmp_path, "a", twelve_lead_mv())
    listed = source(tmp_path)
    assert [item.record_id for item in listed.items] == ["a"]
    (note,) = [note for note in listed.card.notes if note.startswith(f"{name} was left out: it is a table")]
    assert ("--builder=ptbxl" in note) == (name == "ptbxl_database.csv")
    if name == "labels.csv":
        remedy = "if it says who was recorded, name its columns record and patient_id and give --labels="
        assert note.endswith(f"(columns record, patient_id, age); {remedy}{tmp_path / name}")


@pytest.mark.parametrize(
    "content",
    [
        csv_of(twelve_lead_mv(seconds=1)),
        b"time," + csv_of(twelve_lead_mv(seconds=1)),
        b"0.1,0.2\n0.3,0.4\n",
        b"record,time,I,II,III,V1\n",
        b"Name,Smith\nPatient ID,17\nSample rate,500\n\n1,2,3,4,5,6,7,8\n",
        b"",
        b"lead one\n1\n",
    ],
)
def test_recordings_as_text_are_not_taken_for_tables(tmp_path, content):
    write(tmp_path, "a.csv", content=content)
    assert not find_recordings(tmp_path).tables


# Content against suffix


@pytest.mark.parametrize(
    ("name", "record_id"),
    [("scan", "scan"), ("1.2.840.113619.2", "1.2.840.113619.2"), ("a.IMA", "a"), ("a.dicom", "a"), ("a.DCM", "a")],
)
def test_dicom_is_known_by_its_content(tmp_path, name, record_id):
    write(tmp_path, name, content=ecg_dicom())
    write(tmp_path, "1.2.840.113619.3", "notes", content=bytes(200))
    (item,) = source(tmp_path).items
    assert (item.record_id, item.found.format) == (record_id, "dicom")
    (record,) = results_of(source(tmp_path, declared=None))
    assert record.record_id == record_id


def test_dicom_of_other_kinds_without_suffix_is_left_out_and_told(tmp_path):
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
        pydicom.uid.CTImageStorage,
        pydicom.uid.ExplicitVRLittleEndian,
    )
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    image = pydicom.Dataset()
    image.file_meta, image.SOPClassUID, image.SOPInstanceUID = meta, pydicom.uid.CTImageStorage, "1.2.3"
    image.save_as(tmp_path / "IM0001", enforce_file_format=True)
    write(tmp_path, "ecg", content=ecg_dicom())
    listed = source(tmp_path)
    assert [item.record_id for item in listed.items] == ["ecg"]
    assert "files left out: 1 DICOM without a waveform (CT Image Storage)" in listed.card.notes


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", zipped("b.csv"), r"is a ZIP archive, though its suffix is \.csv: unpack it"),
        ("a.csv", zipped("[Content_Types].xml"), r"is an Excel workbook.* save its sheet as \.csv"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), r"is an old Excel or Word file"),
        ("a.dcm", b"\xff\xd8\xff\xe0" + bytes(300), r"is a picture \(JPEG\).* export the recording"),
        ("a.dcm", b"%PDF-1.4\n" + bytes(300), r"is a PDF"),
        ("a.xml", gzip.compress(b"<a/>", mtime=0), r"is gzipped.* unpack it \(gunzip\)"),
        ("a.xml", b"<!DOCTYPE html><html><body>Please log in</body>", r"is a web page.* log in"),
        ("a.npy", LFS, r"is a pointer of Git LFS.*git lfs pull"),
        ("a.mat", b"\x93NUMPY" + bytes(200), r"is a NumPy array.* give it the suffix \.npy"),
        ("a.h5", b"0       X X" + bytes(300), r"is EDF.* edf2mit"),
        ("a.npy", b"\x80\x04\x95" + bytes(50), r"is a pickle of Python"),
        ("a.csv", b"", r"is empty"),
        ("a.npz", bytes(5000), r"is nothing but zero bytes at its start"),
        ("a.hea", b"<html><head></head>", r"is a web page"),
        ("a.h5", bytes(128) + b"DICM" + bytes(50), r"is DICOM.* give it the suffix \.dcm"),
    ],
)
def test_a_file_that_is_something_else_is_told_to_be(tmp_path, name, content, said):
    write(tmp_path, name, content=content)
    (result,) = results_of(source(tmp_path))
    assert result.reason == "wrong_format"
    assert result.message.startswith(str(tmp_path / name))
    assert re.search(said, result.message), result.message


def test_a_signal_that_is_a_pointer_is_told_to_be_one(tmp_path):
    write_wfdb(tmp_path, "a", twelve_lead_mv())
    (tmp_path / "a.dat").write_bytes(LFS)
    (result,) = results_of(source(tmp_path))
    assert result.reason == "wrong_format"
    assert result.message.startswith(f"{tmp_path / 'a.dat'}: is a pointer of Git LFS")


@pytest.mark.parametrize("start", [bytes(4000), b"MZ", b"\x1f\x8b", b"\xff\xfe", b"BZh"])
def test_a_signal_may_begin_with_any_samples(tmp_path, start):
    write_wfdb(tmp_path, "a", twelve_lead_mv())
    data = (tmp_path / "a.dat").read_bytes()
    (tmp_path / "a.dat").write_bytes(start + data[len(start) : -24])
    (result,) = results_of(source(tmp_path))
    assert result.reason == "truncated_file"


# What is given as the source


def test_what_is_no_folder_of_recordings_is_told_what_to_do(tmp_path, stored_dataset):
    write(tmp_path, "a.zip", content=zipped("a"))
    write(tmp_path, "a.tar.gz", content=gzip.compress(b"x"))
    write(tmp_path, "a.npy", content=b"\x93NUMPY")
    for given, said in (
        ("a.zip", r"a\.zip: is a ZIP archive; unpack it \(unzip\), and give the folder"),
        ("a.tar.gz", r"is gzipped; unpack it"),
        ("a.npy", rf"is a file; give the folder that it lies in, {tmp_path}"),
        ("nowhere", "no such directory"),
    ):
        with pytest.raises(DataError, match=said):
            check_source(tmp_path / given, given, builder="folder")
    directory = stored_dataset[0].directory
    with pytest.raises(DataError, match=r"is a prepared data set, not a folder of recordings; .*--builder=prepared"):
        check_source(directory, str(directory), builder="folder")
    check_source(directory, str(directory), builder="prepared")
    with pytest.raises(DataError, match="mount the bucket"):
        check_source(Path("gs://b/x"), "gs://b/x", builder="folder")


def test_names_that_are_no_utf8_are_read_and_shown(tmp_path, capsys):
    path = os.fsencode(tmp_path) + b"/M\xfcller\x1b[31m.npy"
    with open(path, "wb") as file:
        np.save(file, twelve_lead_mv().T)
    (record,) = results_of(source(tmp_path))
    assert record.record_id == record.patient_id == "M\\xfcller\x1b[31m"
    (refused,) = results_of(source(tmp_path, declared=Declared()))

    @command
    def fail():
        raise DataError(refused.message)

    with pytest.raises(SystemExit):
        fail(["build"])
    printed = capsys.readouterr().err
    assert "M\\xfcller\\x1b[31m.npy: does not state its lead names" in printed
    assert "\x1b" not in printed


def test_a_single_file_is_a_source_of_its_own(tmp_path):
    for name in ("a", "b"):
        write_wfdb(tmp_path, name, twelve_lead_mv(seed=1))
    for suffix in (".hea", ".dat"):
        source = FolderSource(
            tmp_path,
            labels=None,
            patient_field=None,
            name="one",
            recipe=RECIPES["plain"],
            only=tmp_path / f"b{suffix}",
        )
        (record,) = results_of(source)
        assert record.record_id == "b"
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(DataError, match="no recording"):
        FolderSource(
            tmp_path, labels=None, patient_field=None, name="one", recipe=RECIPES["plain"], only=tmp_path / "notes.md"
        )
