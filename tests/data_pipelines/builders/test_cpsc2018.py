"""CPSC 2018: its published layout in small, and the real records where they are there."""

import numpy as np
import pytest
import scipy.io

from data_pipelines.builders.cpsc2018 import CLASSES, Cpsc2018Source
from data_pipelines.errors import DataError
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import FEMALE, MALE, STANDARD_LEADS, STORED_LEADS
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from tests.support.fixtures import results_of, stored_examples, twelve_lead_mv

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
REFERENCE = """\
Recording,First_label,Second_label,Third_label
A0001,5,,
A0002,1,,
A0003,2,5,8
A0004,,,
A0005,10,,
A0007,3,,
A0009,3,,
"""


def write_struct(folder, name, *, seed, seconds=10.0, sex="Male", age=52.0):
    folder.mkdir(parents=True, exist_ok=True)
    data = twelve_lead_mv(seed=seed, seconds=seconds).T
    scipy.io.savemat(folder / f"{name}.mat", {"ECG": {"sex": sex, "age": age, "data": data}})


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "cpsc2018"
    write_struct(folder / "TrainingSet1", "A0001", seed=1)
    write_struct(folder / "TrainingSet1", "A0002", seed=2, seconds=6, sex="Female", age=np.nan)
    write_struct(folder / "TrainingSet1", "A0003", seed=3, seconds=21)
    write_struct(folder / "TrainingSet2", "A0004", seed=4)
    write_struct(folder / "TrainingSet2", "A0005", seed=5)
    write_struct(folder / "TrainingSet2", "A0006", seed=6)
    write_struct(folder / "TrainingSet2", "A0001", seed=1)
    write_struct(folder / "TrainingSet3", "A0007", seed=7)
    path = folder / "TrainingSet3" / "A0007.mat"
    path.write_bytes(path.read_bytes()[:2000])
    (folder / "TrainingSet3" / "REFERENCE.csv").write_text(REFERENCE)
    return folder


def source(folder, *, rate=500):
    recipe = RECIPES["plain"].changed(sampling_rate_hz=rate)
    return Cpsc2018Source(folder, recipe=recipe)


def test_labels_demographics_and_signals(published, tmp_path):
    card = build_dataset(lambda: source(published), tmp_path / "out", request={})
    dataset = open_dataset(tmp_path / "out")
    index = dataset.index
    names = ["A0001", "A0002", "A0003", "A0004", "A0005", "A0006"]
    assert index.record_id.tolist() == index.patient_id.tolist() == names
    assert index.fold.tolist() == [fold_of_patient(name) for name in names]
    assert index.sex.tolist() == [MALE, FEMALE, MALE, MALE, MALE, MALE]
    np.testing.assert_array_equal(index.age_years, np.array([52, np.nan, 52, 52, 52, 52], np.float32))
    assert index.tasks["rhythm_morphology"].classes == CLASSES
    found = [
        {name for name, value in zip(CLASSES, row, strict=True) if value == 1}
        for row in index.tasks["rhythm_morphology"].values
    ]
    assert found == [{"RBBB"}, {"Normal"}, {"AF", "RBBB", "STD"}, set(), set(), set()]
    # Neither an empty row nor none says that a record is of no class, nor does one with a label that is none.
    missing = (index.tasks["rhythm_morphology"].values == -1).all(axis=1)
    assert missing.tolist() == [False, False, False, True, True, True]
    assert index.valid_samples.tolist() == [5000, 3000, 5000, 5000, 5000, 5000]
    seconds = (10, 6, 21, 10, 10, 10)
    seeds = (1, 2, 3, 4, 5, 6)
    for stored, seed, length in zip(stored_examples(dataset.directory), seeds, seconds, strict=True):
        expected = np.rint(twelve_lead_mv(seed=seed, seconds=length)[:5000, STORED_COLUMNS] * 1000)
        np.testing.assert_array_equal(stored["signal"][: len(expected)], expected)
        assert not stored["signal"][len(expected) :].any()
    assert card["summary"]["remarks"]["unread_label"]["example"].endswith(
        "REFERENCE.csv is '10', 1 to 9 expected; it is stored as missing"
    )
    assert "1 record has no row in REFERENCE.csv and no labels" in card["summary"]["notes"]


def test_what_cannot_be_stored_says_why(published):
    results = {result.record_id: result for result in results_of(source(published))}
    assert {name: result.reason for name, result in results.items() if hasattr(result, "reason")} == {
        "TrainingSet2/A0001.mat": "duplicate_record",
        "A0007": "truncated_file",
        "A0009": "missing_file",
    }


def test_without_a_reference(published):
    reference = published / "TrainingSet3" / "REFERENCE.csv"
    text = reference.read_text()
    reference.unlink()
    made = source(published)
    assert made.card.notes[-1] == "there is no REFERENCE.csv: no record has labels"
    assert all((r.tasks["rhythm_morphology"] == -1).all() for r in results_of(made) if hasattr(r, "tasks"))
    reference.write_text(text.replace("Third_label", "third"))
    with pytest.raises(DataError, match=r"REFERENCE.csv: column Third_label is missing"):
        source(published)
    reference.write_text(text + "A0001,1,,\n")
    with pytest.raises(DataError, match=r"REFERENCE.csv: 1 record has more than one row, first 'A0001'"):
        source(published)
    (published / "REFERENCE.csv").write_text(text)
    with pytest.raises(DataError, match=r"a second REFERENCE.csv"):
        source(published)
    with pytest.raises(DataError, match=r"no MATLAB file"):
        source(published / "nothing")


@pytest.mark.parametrize("rate", [500, 250])
def test_real_records(real_data, tmp_path, rate):
    folder = real_data / "cpsc2018"
    summary = build_dataset(lambda: source(folder, rate=rate), tmp_path / "out", request={})["summary"]
    assert (summary["records_in"], summary["stored"]) == (10, 10)
    assert summary["quarantined"] == {}
    assert summary["duplicates"] == []
    dataset = open_dataset(tmp_path / "out")
    assert dataset.index.age_years.tolist() == [52, 48, 89, 49, 23, 26, 53, 59, 49, 34]
    assert dataset.index.sex.tolist() == [MALE, FEMALE, MALE, MALE, FEMALE, FEMALE, FEMALE, MALE, FEMALE, FEMALE]
    if rate != 500:
        return
    for stored in stored_examples(dataset.directory):
        # wfdb does not read these structs; SciPy does, and Einthoven's identities hold in them exactly.
        data = scipy.io.loadmat(folder / f"{stored['record_id'].decode()}.mat")["ECG"]["data"][0, 0][:, :5000].T
        millivolts = stored["signal"] / 1000
        np.testing.assert_allclose(millivolts, data[:, STORED_COLUMNS], atol=1e-3, rtol=0)
        one, two = millivolts[:, 0], millivolts[:, 1]
        derived = np.stack([two - one, -(one + two) / 2, one - two / 2, two - one / 2], axis=1)
        np.testing.assert_allclose(derived, data[:, 2:6], atol=2e-3, rtol=0)
