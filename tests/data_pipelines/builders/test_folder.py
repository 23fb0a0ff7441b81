"""A tree of recordings in several formats, with one table of labels, becomes one data set."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pydicom.data
import pytest
import scipy.io

from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError
from data_pipelines.label_tables.label_table import LabelTable
from data_pipelines.readers.formats import find_recordings
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.statements.declared import Declared
from tests.support.fixtures import results_of, twelve_lead_mv, write_wfdb

REPOSITORY = Path(__file__).parents[3]
STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
RECIPE = RECIPES["plain"].changed(sampling_rate_hz=500)
DECLARED = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)


def write_tree(folder):
    """Writes one recording of each format that can be written here; returns `f64[time, 12]` by record id."""
    signals = {name: twelve_lead_mv(seed=seed) for seed, name in enumerate(("a/w", "a/m", "b/n", "b/t", "h", "c"))}
    write_wfdb(folder / "a", "w", signals["a/w"], comments=("Age: 61", "Sex: Male", "Patient ID: p1"))
    write_wfdb(folder / "a", "m", signals["a/m"])
    (folder / "b").mkdir()
    np.save(folder / "b" / "n.npy", signals["b/n"].T)
    lines = [",".join(STANDARD_LEADS), *(",".join(map(repr, row)) for row in signals["b/t"].tolist())]
    (folder / "b" / "t.csv").write_text("\n".join(lines))
    with h5py.File(folder / "h.h5", "w") as file:
        file["signal"] = signals["h"] * 1000
        file["signal"].attrs["unit"] = "uV"
    scipy.io.savemat(folder / "c.mat", {"ECG": {"sex": "Female", "age": 50, "data": signals["c"].T}})
    (folder / "readme.txt").write_text("not a recording")
    (folder / "notes").write_text("nor this")
    return signals


def source(folder, **changes):
    arguments = {"labels": None, "patient_field": None, "name": "mixed", "recipe": RECIPE, "declared": DECLARED}
    return FolderSource(folder, **(arguments | changes))


def test_a_tree_of_mixed_formats(tmp_path):
    signals = write_tree(tmp_path)
    # HDF5 says µV, which the declaration for all must then not contradict.
    mixed = source(tmp_path, declared=Declared(sampling_rate_hz=500.0, leads=STANDARD_LEADS))
    results = {result.record_id: result for result in results_of(mixed)}
    assert sorted(results) == sorted(signals)
    for name in ("a/w", "a/m", "h", "c"):
        np.testing.assert_array_equal(results[name].signal, np.rint(signals[name][:, STORED_COLUMNS] * 1000))
    assert {results[name].reason for name in ("b/n", "b/t")} == {"missing_metadata"}
    assert (results["c"].age_years, results["c"].sex) == (50, 1)
    declared = {result.record_id: result for result in results_of(source(tmp_path))}
    for name in ("b/n", "b/t"):
        np.testing.assert_array_equal(declared[name].signal, np.rint(signals[name][:, STORED_COLUMNS] * 1000))
    assert declared["h"].reason == "header_disagrees"
    assert "files passed over: 1 no suffix, 1 .txt" in mixed.card.notes
    assert mixed.card.description.count("6 recordings (2 wfdb, ") == 1


def test_dicom_beside_wfdb_by_the_patient_of_each_file(tmp_path):
    (example,) = [path for path in pydicom.data.get_testdata_files() if Path(path).name.endswith("ecg.dcm")][:1]
    (tmp_path / "d.dcm").write_bytes(Path(example).read_bytes())
    write_wfdb(tmp_path, "w", twelve_lead_mv(), comments=("Patient ID: p1",))
    dicom, wfdb = results_of(source(tmp_path, patient_field="Patient ID"))
    assert wfdb.patient_id == "p1"
    assert dicom.record_id == "d"


def test_labels_in_parquet(tmp_path):
    write_tree(tmp_path)
    table = tmp_path / "labels.parquet"
    pd.DataFrame(
        {
            "record": ["w", "a/m", "c", "gone"],
            "patient_id": [12.0, 12.0, 7.0, 8.0],
            "age": [np.nan, 40.0, None, 1.0],
            "lvef": [55.5, None, 30.0, 1.0],
            "ward": ["north", None, "south", "x"],
        }
    ).to_parquet(table)
    labelled = source(tmp_path, labels=table, formats=("wfdb", "matlab"))
    results = results_of(labelled)
    assert [result.record_id for result in results] == ["a/m", "a/w", "c", "gone"]
    assert [result.patient_id for result in results[:3]] == ["12", "12", "7"]
    assert [result.age_years for result in results[:3]] == [40, 61, 50]
    np.testing.assert_array_equal([result.scalars["lvef"] for result in results[:3]], [np.nan, 55.5, 30])
    assert results[3].reason == "missing_file"
    assert "columns that are not numeric are not stored: ward ('north', 'south', 'x')" in labelled.card.notes


def test_a_table_of_labels_in_the_folder_is_no_recording(tmp_path):
    write_wfdb(tmp_path, "w", twelve_lead_mv())
    table = tmp_path / "labels.csv"
    table.write_text("record,patient_id\nw,p1\n")
    assert [result.record_id for result in results_of(source(tmp_path, labels=table))] == ["w"]
    listed = find_recordings(tmp_path)
    assert [found.record_id for found in listed.recordings] == ["w"]
    assert listed.tables == {table: ("record", "patient_id")}


def test_two_files_of_one_id(tmp_path):
    np.save(tmp_path / "a.npy", twelve_lead_mv())
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(DataError, match=r"a\.npy and a\.csv would both be record 'a'; rename one, or take one format"):
        source(tmp_path)
    assert len(source(tmp_path, formats=("numpy",)).items) == 1


def test_unknown_formats(tmp_path):
    with pytest.raises(DataError, match=r"--formats=scp: known formats are wfdb, numpy, csv"):
        source(tmp_path, formats=("wfdb", "scp"))


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("labels.txt", b"record,patient_id\n", r"a table ends with \.csv or \.parquet"),
        ("labels.parquet", b"no parquet", r"not a \.parquet table that can be read"),
        ("labels.csv", b"", r"not a \.csv table that can be read"),
        ("labels.csv", b"record,patient_id,age\na,7,60,\nb,8,61,\n", r"line 2 has 4 cells where the header names 3"),
        ("labels.csv", b"record,patient_id,age\na,7,60\nb,8\n", r"line 3 has 2 cells where the header names 3"),
        ("labels.csv", b"record,patient_id,patient_id\na,7,8\n", r"column 'patient_id' comes twice"),
        ("labels.csv", b"record,patient_id,age_years\na,7,60\n", r"rename its column 'age_years' to 'age'"),
        ("labels.csv", b'record,patient_id\na,"7\n', r"not a \.csv table that can be read"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, contents, message):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(DataError, match=message):
        LabelTable(tmp_path / name)


def test_tables_as_spreadsheets_and_pandas_write_them(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes('\ufeff,record, patient_id,lvef,k\r\n0,a,007,55,inf\r\n1,"b,é",0x,,1\r\n\r\n'.encode())
    table = LabelTable(path)
    # The numbers of the rows are no label, nor is what a float32 cannot hold.
    assert (table.scalars, table.ignored) == (("lvef",), ("", "k"))
    rows = table.rows_of(["a", "b,é"])
    assert [row["patient_id"] for row in rows.values()] == ["007", "0x"]


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    np.save(tmp_path / "a.npy", twelve_lead_mv())
    command = [sys.executable, "-m", "data_pipelines.build", "--builder=folder", f"--source={tmp_path}"]
    declared = ["--declared_rate_hz=500", "--declared_unit=mV", f"--declared_leads={','.join(STANDARD_LEADS)}"]
    command += [*declared, f"--out={tmp_path / 'out'}", "--num_workers=1", "--recipe=level", "--physiology"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "recipe              level, version 1" in done.stdout
    assert "stored              1 of 1 patient in 1 shard" in done.stdout
    assert (tmp_path / "out" / "physiology").is_dir()
    other = subprocess.run([*command[:4], "--builder=simulated", *declared, "--out=x"], cwd=REPOSITORY,
                           capture_output=True, text=True)  # fmt: skip
    assert other.returncode != 0
    assert "--declared_leads means nothing to --builder=simulated; leave it out" in other.stderr
