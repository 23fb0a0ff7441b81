"""MIMIC-IV-ECG: its published layout in small; no record of it may be kept here."""

import shutil

import numpy as np
import pytest
import wfdb

from data_pipelines.builders.mimic_iv_ecg import MEASUREMENTS, MimicIvEcgSource
from data_pipelines.errors import DataError
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import SEX_UNKNOWN, STANDARD_LEADS, STORED_LEADS
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from tests.support.fixtures import results_of, stored_examples, twelve_lead_mv, write_wfdb

#: As the carts write them: aVF before aVL.
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]

RECORDS = [
    # subject, study, time
    (10000032, 40689238, "2180-07-23 08:44:00"),
    (10000032, 49036311, "2180-08-06 09:07:00"),
    (10000980, 46642833, "2137-05-21 15:50:00"),
    (10000032, 44458630, "2180-07-22 20:44:00"),
    (10001884, 45227415, ""),
    (10002013, 41100000, "2150-01-01 00:00:00"),
    (10002013, 41200000, "2150-01-02 00:00:00"),
]
VALUES = {
    40689238: "659,40,128,170,258,518,81,77,79",
    49036311: "600,29999,29999,162,244,474,29999,-72,29999",
    46642833: "0,,,200,302,32767,,-18,-67",
    44458630: "700,40,128,170,258,65535,81,400,-90",
    45227415: "700,40,128,170,258,500,81,40,-90",
    41100000: "700,40,128,170,258,500,81,40,-90",
}
REPORTS = {
    40689238: ["Sinus rhythm", "Possible right atrial abnormality", "", "Borderline ECG"],
    46642833: ['"Atrial fibrillation, with PVC(s)"', "None", "", "Abnormal ECG"],
}


def write_tables(folder, *, records=RECORDS, measured=None, path_of=None):
    lines = ["subject_id,study_id,file_name,ecg_time,path"]
    for subject, study, time in records:
        path = (path_of or {}).get(study, f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}")
        lines.append(f"{subject},{study},{study},{time},{path}")
    (folder / "record_list.csv").write_text("\n".join(lines) + "\n")
    columns = [f"report_{line}" for line in range(18)]
    header = f"subject_id,study_id,cart_id,ecg_time,{','.join(columns)},bandwidth,filtering,{','.join(MEASUREMENTS)}"
    lines = [header]
    subject_of = {study: subject for subject, study, _ in records}
    # Not in the order of the records.
    for study, values in reversed((measured or VALUES).items()):
        report = REPORTS.get(study, ["Sinus rhythm"])
        report = report + [""] * (18 - len(report))
        lines.append(
            f"{subject_of.get(study, 1)},{study},6848296,2180-07-23 08:44:00,{','.join(report)},"
            f"0.005-150 Hz,60 Hz notch Baseline filter,{values}"
        )
    (folder / "machine_measurements.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "mimic"
    folder.mkdir()
    write_tables(folder)
    for subject, study, _ in RECORDS:
        signal = twelve_lead_mv(seed=study)[:, [STANDARD_LEADS.index(lead) for lead in MIMIC_LEADS]]
        parent = folder / "files" / f"p{str(subject)[:4]}" / f"p{subject}" / f"s{study}"
        write_wfdb(parent, str(study), signal, leads=MIMIC_LEADS, gain=500.0, comments=(f"- {subject}",))
    return folder


def source(folder, *, rate=500):
    recipe = RECIPES["plain"].changed(sampling_rate_hz=rate)
    return MimicIvEcgSource(folder, recipe=recipe)


def test_patients_times_measurements_and_reports(published, tmp_path):
    card = build_dataset(lambda: source(published), tmp_path / "out", request={})
    dataset = open_dataset(tmp_path / "out")
    index = dataset.index
    assert index.record_id.tolist() == [str(study) for _, study, _ in RECORDS]
    assert index.patient_id.tolist() == [str(subject) for subject, _, _ in RECORDS]
    assert index.num_patients == 4
    assert index.fold.tolist() == [fold_of_patient(str(subject)) for subject, _, _ in RECORDS]
    assert np.isnan(index.age_years).all()
    assert (index.sex == SEX_UNKNOWN).all()
    nan = np.nan
    expected = {
        # From the patient's first ECG, which the list need not have first.
        "time_days": [0.5, 14 + 743 / 1440, 0, 0, nan, 0, 1],
        "rr_interval": [659, 600, nan, 700, 700, 700, nan],
        "p_onset": [40, nan, nan, 40, 40, 40, nan],
        "t_end": [518, 474, nan, nan, 500, 500, nan],
        "p_axis": [81, nan, nan, 81, 81, 81, nan],
        "qrs_axis": [77, -72, -18, nan, 40, 40, nan],
        "t_axis": [79, nan, -67, -90, -90, -90, nan],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(index.scalars[name], np.array(values, np.float32), rtol=1e-6)
    units = {name: scalar["unit"] for name, scalar in card["scalars"].items()}
    assert units["time_days"] == "d"
    assert {units[name] for name in MEASUREMENTS[:6]} == {"ms"}
    assert {units[name] for name in MEASUREMENTS[6:]} == {"degrees"}
    examples = list(stored_examples(dataset.directory))
    reports = [stored["report"].decode() for stored in examples]
    assert reports[0] == "Sinus rhythm\nPossible right atrial abnormality\nBorderline ECG"
    # 'None' is a line as any other.
    assert reports[2] == "Atrial fibrillation, with PVC(s)\nNone\nAbnormal ECG"
    assert reports[6] == ""
    notes = card["summary"]["notes"]
    assert any(
        note.endswith("missing: rr_interval 1, p_onset 1, p_end 1, t_end 2, p_axis 1, qrs_axis 1, t_axis 1")
        for note in notes
    )
    assert "1 record has no row in machine_measurements.csv: no measurements and no report" in notes
    assert "1 record has no ecg_time that can be read: time_days is missing" in notes
    for stored, (subject, study, _) in zip(examples, RECORDS, strict=True):
        # By name: aVF and aVL are not where others have them.
        path = published / "files" / f"p{str(subject)[:4]}" / f"p{subject}" / f"s{study}" / str(study)
        record = wfdb.rdrecord(str(path))
        independent = record.p_signal[:, [record.sig_name.index(lead) for lead in STORED_LEADS]]
        np.testing.assert_allclose(stored["signal"] / 1000, independent, atol=1e-3, rtol=0)
        np.testing.assert_array_equal(stored["signal"], np.rint(twelve_lead_mv(seed=study)[:, STORED_COLUMNS] * 1000))


def test_what_cannot_be_stored_says_why(published):
    study_dir = published / "files" / "p1000" / "p10000032" / "s40689238"
    (study_dir / "40689238.dat").unlink()
    shutil.rmtree(published / "files" / "p1000" / "p10000980")
    write_tables(published, path_of={45227415: "files/p1000/p10000032/s49036311/49036311"})
    table = published / "machine_measurements.csv"
    table.write_text(table.read_text().replace("10002013,41100000", "10009999,41100000"))
    results = {result.record_id: result for result in results_of(source(published))}
    assert {name: result.reason for name, result in results.items() if hasattr(result, "reason")} == {
        "40689238": "missing_file",
        "46642833": "missing_file",
        "45227415": "header_disagrees",
        "41100000": "missing_patient",
    }
    assert results["41100000"].message == (
        "study 41100000: of patient 10002013 in record_list.csv, of 10009999 in machine_measurements.csv; "
        "use the files of one release"
    )


def test_no_record_is_read_from_beside_the_folder_of_the_table(published):
    subject, study, _ = RECORDS[0]
    write_tables(published, path_of={study: f"../../p{subject}/s{study}/{study}"})
    (refused,) = [result for result in results_of(source(published)) if result.record_id == str(study)]
    assert refused.reason == "header_disagrees"


def test_rows_without_a_record_are_counted(published):
    write_tables(published, measured=VALUES | {49999999: VALUES[40689238]})
    notes = source(published).card.notes
    assert "1 row of machine_measurements.csv is of studies that record_list.csv does not list" in notes


@pytest.mark.slow
def test_processes_read_the_same(published):
    one, two = (results_of(source(published), num_workers=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert (a.record_id, a.report, a.patient_id) == (b.record_id, b.report, b.patient_id)
        np.testing.assert_array_equal(list(a.scalars.values()), list(b.scalars.values()))
        np.testing.assert_array_equal(a.signal, b.signal)


def test_tables_in_pieces_are_the_same(published, monkeypatch):
    whole = results_of(source(published))
    monkeypatch.setattr("data_pipelines.builders.mimic_iv_ecg._ROWS_PER_READ", 2)
    for a, b in zip(whole, results_of(source(published)), strict=True):
        assert (a.record_id, a.report) == (b.record_id, b.report)
        np.testing.assert_array_equal(list(a.scalars.values()), list(b.scalars.values()))


def test_tables_that_are_not_mimics(published, tmp_path):
    table = published / "machine_measurements.csv"
    text = table.read_text()
    table.write_text(text.replace("p_axis", "p_angle", 1))
    with pytest.raises(DataError, match=r"machine_measurements.csv: not MIMIC-IV-ECG's own table .*p_axis"):
        source(published)
    table.write_text(text.replace(",659,", ",long,", 1))
    with pytest.raises(DataError, match=r"machine_measurements.csv: not MIMIC-IV-ECG's own table .*long"):
        source(published)
    table.write_text(text + text.splitlines()[-1] + "\n")
    with pytest.raises(DataError, match=r"machine_measurements.csv: 1 row names a study that came before"):
        source(published)
    table.unlink()
    with pytest.raises(DataError, match=r"machine_measurements.csv: no such file; --source is the folder of MIMIC"):
        source(published)
    write_tables(published, records=[*RECORDS, RECORDS[0]])
    with pytest.raises(DataError, match=r"record_list.csv: 1 row names a study that came before, first 40689238"):
        source(published)
    write_tables(published, records=[])
    with pytest.raises(DataError, match=r"record_list.csv: lists no record"):
        source(published)
