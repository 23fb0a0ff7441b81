"""PTB-XL: its published layout in small, and the real records where they are there."""

import ast

import numpy as np
import pandas as pd
import pytest
import wfdb

from data_pipelines.builders.ptbxl import PtbxlSource
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from tests.support.fixtures import results_of, stored_examples, twelve_lead_mv, write_wfdb

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
NUM_CLASSES = {"all": 71, "diagnostic": 44, "subdiagnostic": 23, "superdiagnostic": 5, "form": 19, "rhythm": 12}

STATEMENTS = """\
,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal,1.0,,,NORM,NORM
IMI,inferior infarction,1.0,,,MI,IMI
LVH,hypertrophy,1.0,,,HYP,LVH
NDT,non-diagnostic T,1.0,1.0,,STTC,STTC
PVC,premature,,1.0,,,
SR,sinus rhythm,,,1.0,,
AFIB,fibrillation,,,1.0,,
"""

ROWS = [
    # ecg_id, patient_id, age, sex, scp_codes, strat_fold
    (1, "15709.0", "56.0", "1", {"NORM": 100.0, "SR": 0.0}, 3),
    (2, "15709.0", "300.0", "0", {"IMI": 0.0, "NDT": 35.0, "AFIB": 0.0}, 3),
    (3, "7.0", "", "0", {"PVC": 100.0}, 10),
    (4, "8.0", "40.0", "0", {"XYZ": 100.0}, 1),
    (5, "9.0", "40.0", "0", {"NORM": 100.0}, 1),
    (6, "", "40.0", "0", {"NORM": 100.0}, 1),
]


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "ptbxl"
    lines = ["ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr"]
    for ecg_id, patient, age, sex, codes, fold in ROWS:
        low, high = f"records100/00000/{ecg_id:05d}_lr", f"records500/00000/{ecg_id:05d}_hr"
        lines.append(f'{ecg_id},{patient},{age},{sex},"befund {ecg_id}, normal","{codes}",{fold},{low},{high}')
        if ecg_id != 5:
            signal = twelve_lead_mv(seed=ecg_id)
            leads = tuple(lead.upper() for lead in STANDARD_LEADS)
            write_wfdb(folder / "records500" / "00000", f"{ecg_id:05d}_hr", signal, leads=leads)
            write_wfdb(folder / "records100" / "00000", f"{ecg_id:05d}_lr", signal[::5], leads=leads, rate=100)
    (folder / "ptbxl_database.csv").write_text("\n".join(lines) + "\n")
    (folder / "scp_statements.csv").write_text(STATEMENTS)
    return folder


def source(folder, *, source_rate_hz=500, target_rate_hz=500):
    return PtbxlSource(
        folder,
        source_rate_hz=source_rate_hz,
        recipe=RECIPES["plain"].changed(sampling_rate_hz=target_rate_hz),
    )


def build(folder, out, **rates):
    build_dataset(lambda: source(folder, **rates), out, request=rates)
    return open_dataset(out)


@pytest.mark.parametrize("rate", [100, 500])
def test_labels_follow_the_benchmark(published, tmp_path, rate):
    dataset = build(published, tmp_path / "out", source_rate_hz=rate, target_rate_hz=rate)
    index = dataset.index
    assert index.record_id.tolist() == ["1", "2", "3", "4"]
    assert index.patient_id.tolist() == ["15709", "15709", "7", "8"]
    np.testing.assert_array_equal(index.age_years, np.array([56, 90, np.nan, 40], np.float32))
    assert index.sex.tolist() == [1, 0, 0, 0]
    assert index.fold.tolist() == [3, 3, 10, 1]
    # Record 4 has a code that the statements do not list: it has no labels, for it would count as free of that.
    assert all((task.values[3] == -1).all() for task in index.tasks.values())
    assert {reason: told["values"] for reason, told in dataset.card["summary"]["remarks"].items()} == {
        "age_at_limit": {"300.0": 1},
        "unread_label": {"scp_codes=XYZ": 1},
    }
    assert dataset.card["summary"]["sex_reading"] == "0 as male and 1 as female, PTB-XL's coding"
    tasks = index.tasks
    assert tasks["all"].classes == ("AFIB", "IMI", "LVH", "NDT", "NORM", "PVC", "SR")
    assert tasks["all"].values.tolist()[:3] == [[0, 0, 0, 0, 1, 0, 1], [1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0]]
    assert tasks["diagnostic"].classes == ("IMI", "LVH", "NDT", "NORM")
    assert tasks["diagnostic"].values.tolist()[:3] == [[0, 0, 0, 1], [1, 0, 1, 0], [-1, -1, -1, -1]]
    assert tasks["subdiagnostic"].classes == ("IMI", "LVH", "NORM", "STTC")
    assert tasks["superdiagnostic"].classes == ("HYP", "MI", "NORM", "STTC")
    assert tasks["superdiagnostic"].values.tolist()[:3] == [[0, 0, 1, 0], [0, 1, 0, 1], [-1] * 4]
    assert tasks["form"].values.tolist()[:3] == [[-1, -1], [1, 0], [0, 1]]
    assert tasks["rhythm"].classes == ("AFIB", "SR")
    assert tasks["rhythm"].values.tolist()[:3] == [[0, 1], [1, 0], [-1, -1]]
    np.testing.assert_array_equal(index.label("superdiagnostic:NORM")[:3], np.array([1, 0, np.nan], np.float32))
    signals = [stored["signal"] for stored in stored_examples(dataset.directory)]
    for signal, ecg_id in zip(signals, (1, 2, 3, 4), strict=True):
        expected = twelve_lead_mv(seed=ecg_id)[:: 500 // rate, STORED_COLUMNS] * 1000
        np.testing.assert_array_equal(signal, np.rint(expected))


def test_what_cannot_be_stored_says_why(published):
    results = results_of(source(published))
    assert [(result.record_id, result.reason) for result in results[4:]] == [
        ("5", "missing_file"),
        ("6", "missing_patient"),
    ]
    (remark,) = results[3].remarks
    assert remark.message.startswith("ecg_id 4: scp_codes is 'XYZ', codes of scp_statements.csv (use the two files of")


@pytest.mark.parametrize("path", ["../../elsewhere/00001_hr", "/etc/passwd", "a\\b", ""])
def test_no_record_is_read_from_beside_the_folder_of_the_table(published, path):
    database = pd.read_csv(published / "ptbxl_database.csv", dtype=str)
    database.loc[0, ["filename_lr", "filename_hr"]] = path
    database.to_csv(published / "ptbxl_database.csv", index=False)
    refused = results_of(source(published))[0]
    assert (refused.record_id, refused.reason) == ("1", "missing_file")
    assert "is not that of a file below the folder" in refused.message


def test_files_that_are_not_ptbxl(published):
    with pytest.raises(DataError, match="--source_rate_hz=250: PTB-XL is published at 100 and 500 Hz"):
        source(published, source_rate_hz=250)
    database = published / "ptbxl_database.csv"
    database.write_text(database.read_text().replace("strat_fold", "fold", 1))
    with pytest.raises(DataError, match=r"ptbxl_database.csv: column strat_fold is missing"):
        source(published)
    database.unlink()
    with pytest.raises(DataError, match=r"ptbxl_database.csv: no such file; --source is the folder PTB-XL"):
        source(published)


def benchmark_labels(folder):
    """Labels of every record as in the benchmark's own code: a set of class names per task and record."""
    database = pd.read_csv(folder / "ptbxl_database.csv", index_col="ecg_id")
    statements = pd.read_csv(folder / "scp_statements.csv", index_col=0)
    diagnostic = statements[statements.diagnostic == 1.0]
    form, rhythm = statements[statements.form == 1.0], statements[statements.rhythm == 1.0]

    def classes(codes, column):
        names = (diagnostic.loc[code, column] for code in codes if code in diagnostic.index)
        return {name for name in names if str(name) != "nan"}

    rules = {
        "all": lambda codes: set(codes),
        "diagnostic": lambda codes: {c for c in codes if c in diagnostic.index},
        "subdiagnostic": lambda codes: classes(codes, "diagnostic_subclass"),
        "superdiagnostic": lambda codes: classes(codes, "diagnostic_class"),
        "form": lambda codes: {c for c in codes if c in form.index},
        "rhythm": lambda codes: {c for c in codes if c in rhythm.index},
    }
    codes = database.scp_codes.map(ast.literal_eval)
    return {task: codes.map(rule) for task, rule in rules.items()}


@pytest.mark.slow
def test_real_records(real_data, tmp_path):
    folder = real_data / "ptbxl"
    dataset = build(folder, tmp_path / "out", source_rate_hz=500, target_rate_hz=500)
    index, database = dataset.index, pd.read_csv(folder / "ptbxl_database.csv", index_col="ecg_id")
    assert dataset.card["summary"]["records_in"] == len(database)
    assert dataset.card["summary"]["quarantined"] == {}
    assert index.record_id.tolist() == [str(number) for number in database.index]
    assert index.num_patients == database.patient_id.nunique()
    assert index.fold.tolist() == database.strat_fold.tolist()
    assert {task: len(values.classes) for task, values in index.tasks.items()} == NUM_CLASSES
    for task, expected in benchmark_labels(folder).items():
        for row, names in zip(index.tasks[task].values, expected, strict=True):
            classes = np.array(index.tasks[task].classes)
            assert set(classes[row == 1]) == names
            assert (row == -1).all() == (not names)
    pairs = {tuple(pair) for pair in dataset.card["summary"]["duplicates"]}
    assert {("138", "137"), ("144", "143"), ("463", "145"), ("457", "456"), ("460", "459")} <= pairs
    for number, stored in enumerate(stored_examples(dataset.directory)):
        if number % 10 == 0:
            record = folder / database.filename_hr.iloc[number]
            expected = wfdb.rdrecord(str(record)).p_signal[:, STORED_COLUMNS]
            np.testing.assert_allclose(stored["signal"] / 1000, expected, atol=1e-3, rtol=0)
