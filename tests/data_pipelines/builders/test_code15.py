"""CODE-15 %: both its published layouts in small, and the real records where they are there."""

import h5py
import numpy as np
import pytest
import wfdb

from data_pipelines.builders.code15 import DIAGNOSES, Code15Source
from data_pipelines.builders.code15_wfdb import Code15WfdbSource, code15_source
from data_pipelines.builders.lazy_items import LazyItems
from data_pipelines.errors import DataError
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import FEMALE, MALE, STANDARD_LEADS, STORED_LEADS
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from tests.support.fixtures import results_of, stored_examples, twelve_lead_mv, write_wfdb

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
HEADER = (
    *("exam_id", "age", "is_male", "nn_predicted_age", *DIAGNOSES),
    *("patient_id", "death", "timey", "normal_ecg", "trace_file"),
)
NOTHING = dict.fromkeys(DIAGNOSES, "False")

ROWS = [
    {"exam_id": 11, "age": 38, "is_male": "True", "patient_id": 7, "death": "False", "timey": "2.5", "RBBB": "True"},
    {"exam_id": 12, "age": 73, "is_male": "False", "patient_id": 7, "death": "", "timey": "", "normal_ecg": "True"},
    {"exam_id": 13, "age": 20, "is_male": "True", "patient_id": 8, "AF": ""},
    {"exam_id": 21, "age": 50, "is_male": "False", "patient_id": 9, "trace_file": "exams_part10.hdf5", "death": "True"},
    {"exam_id": 22, "age": 50, "is_male": "1", "patient_id": 9, "trace_file": "exams_part10.hdf5"},
    {"exam_id": 23, "age": 50, "is_male": "True", "patient_id": "", "trace_file": "exams_part10.hdf5"},
    {"exam_id": 24, "age": 51, "is_male": "True", "patient_id": 9, "trace_file": "exams_part10.hdf5"},
    {"exam_id": 24, "age": 52, "is_male": "True", "patient_id": 10, "trace_file": "exams_part10.hdf5"},
    {"exam_id": 26, "age": 50, "is_male": "True", "patient_id": 9, "trace_file": "exams_part10.hdf5", "SB": "maybe"},
    {"exam_id": 31, "age": 50, "is_male": "True", "patient_id": 11, "trace_file": "exams_part3.hdf5"},
    {"exam_id": 41, "age": 50, "is_male": "True", "patient_id": 12},
    # The same row twice says nothing new.
    {"exam_id": 11, "age": 38, "is_male": "True", "patient_id": 7, "death": "False", "timey": "2.5", "RBBB": "True"},
]
FILLED = NOTHING | {
    "trace_file": "exams_part2.hdf5",
    "normal_ecg": "False",
    "nn_predicted_age": "41.5",
    "death": "False",
    "timey": "1.25",
}


def tracing(*, seed, samples=2800):
    """An exam as a part holds it: `f32[4096, 12]` mV, zeros on both sides of what was recorded."""
    signal = twelve_lead_mv(seed=seed, rate=400, seconds=samples / 400)
    # Zero crossings of all leads at once must not pass for padding.
    signal[0] = signal[-1] = signal[5]
    start = (4096 - samples) // 2
    return np.pad(signal, ((start, 4096 - samples - start), (0, 0))).astype(np.float32)


def write_part(folder, number, exams):
    with h5py.File(folder / f"exams_part{number}.hdf5", "w") as file:
        file["exam_id"] = np.array([exam_id for exam_id, _ in exams], np.int64)
        file["tracings"] = np.stack([signal for _, signal in exams])


def write_exams(folder, rows):
    lines = [",".join(HEADER)]
    lines += [",".join(str((FILLED | row)[name]) for name in HEADER) for row in rows]
    (folder / "exams.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "code15"
    folder.mkdir()
    write_exams(folder, ROWS)
    empty = np.zeros((4096, 12), np.float32)
    # Part 10 comes after part 2, whatever the alphabet says.
    write_part(
        folder,
        2,
        [
            (11, tracing(seed=11)),
            (13, tracing(seed=13, samples=4096)),
            (12, tracing(seed=12, samples=4000)),
            (0, empty),
        ],
    )
    write_part(
        folder,
        10,
        [
            (21, tracing(seed=21)),
            (22, tracing(seed=22)),
            (23, tracing(seed=23)),
            (24, tracing(seed=24)),
            (11, tracing(seed=25)),
            (99, tracing(seed=26)),
            (26, tracing(seed=27)),
            (0, tracing(seed=28)),
        ],
    )
    return folder


def source(folder, *, rate=400, **changes):
    recipe = RECIPES["plain"].changed(sampling_rate_hz=rate, **changes)
    return code15_source(folder, recipe=recipe)


@pytest.mark.parametrize(("pad", "starts"), [("end", [0] * 6), ("both", [600, 0, 0, 600, 600, 600])])
def test_labels_patients_and_signals(published, tmp_path, pad, starts):
    card = build_dataset(lambda: source(published, pad=pad), tmp_path / "out", request={}, max_quarantined=0.9)
    dataset = open_dataset(tmp_path / "out")
    index = dataset.index
    assert index.record_id.tolist() == ["11", "13", "12", "21", "22", "26"]
    assert index.patient_id.tolist()[:4] == ["7", "8", "7", "9"]
    assert index.fold.tolist() == [fold_of_patient(patient) for patient in index.patient_id]
    assert index.age_years.tolist()[:4] == [38, 20, 73, 50]
    # The last but one says 1, which is clear in a column of this name.
    assert index.sex.tolist() == [MALE, MALE, FEMALE, FEMALE, MALE, MALE]
    assert index.tasks["diagnoses"].classes == ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
    assert index.tasks["diagnoses"].values.tolist() == [
        [0, 1, 0, 0, 0, 0], [-1] * 6, [0] * 6, [0] * 6, [0] * 6, [-1] * 6
    ]  # fmt: skip
    nan = np.nan
    for name, expected in {
        "normal_ecg": [0, 0, 1, 0],
        "death": [0, 0, nan, 1],
        "timey": [2.5, 1.25, nan, 1.25],
        "nn_predicted_age": [41.5] * 4,
    }.items():
        np.testing.assert_array_equal(index.scalars[name][:4], np.array(expected, np.float32))
    (told,) = card["summary"]["remarks"].values()
    assert (told["values"], told["records"]) == ({"SB=maybe": 1}, 1)
    assert told["example"].endswith("SB is 'maybe', a number or truth value expected; it is stored as missing")
    assert card["scalars"]["timey"] == card["scalars"]["nn_predicted_age"] == {"unit": "years"}
    # What was recorded, and nothing of the zeros around it; 4096 samples are cut to 10 s.
    assert index.valid_samples.tolist()[:4] == [2800, 4000, 4000, 2800]
    assert index.valid_start.tolist() == starts
    for stored, start, seed in zip(stored_examples(dataset.directory), starts, (11, 13, 12, 21), strict=False):
        original = tracing(seed=seed, samples={11: 2800, 13: 4096, 12: 4000, 21: 2800}[seed])[:, STORED_COLUMNS]
        recorded = original[original.any(axis=1)][:4000]
        signal = stored["signal"][start : start + len(recorded)]
        np.testing.assert_array_equal(signal, np.rint(recorded.astype(np.float64) * 1000))
        assert np.count_nonzero(stored["signal"]) == np.count_nonzero(signal)
    notes = card["summary"]["notes"]
    assert "1 exams are in parts that are not in the folder: exams_part3.hdf5" in notes
    assert "1 parts end with an empty row of exam id 0, which is no exam and is not counted" in notes


def test_what_cannot_be_stored_says_why(published):
    results = results_of(source(published))
    assert len(results) == len(source(published).items) == 13
    assert [(result.record_id, result.reason) for result in results if hasattr(result, "reason")] == [
        ("23", "missing_patient"),
        ("24", "duplicate_record"),
        ("exams_part10.hdf5:4", "duplicate_record"),
        ("exams_part10.hdf5:5", "missing_patient"),
        # Exam id 0 with a signal is no padding, but nobody knows whose it is.
        ("exams_part10.hdf5:7", "missing_patient"),
        ("31", "missing_file"),
        ("41", "missing_file"),
    ]
    messages = {result.record_id: result.message for result in results if hasattr(result, "reason")}
    assert messages["24"].endswith("contradict each other; keep the right one")
    assert messages["41"] == "exam 41: exams_part2.hdf5 does not have it; use the files of one release"
    assert messages["31"].startswith("exam 31: exams_part3.hdf5 is not in the folder")


def test_empty_and_damaged_parts(published):
    write_part(published, 3, [(31, np.zeros((4096, 12), np.float32))])
    (published / "exams_part2.hdf5").write_bytes((published / "exams_part2.hdf5").read_bytes()[:5000])
    reasons = {result.record_id: result.reason for result in results_of(source(published)) if hasattr(result, "reason")}
    # An exam of its own id without a sample is no padding row.
    assert reasons["31"] == "too_short"
    assert {name: reasons[name] for name in ("12", "13", "41")} == dict.fromkeys(
        ("12", "13", "41"), "unreadable_header"
    )
    # The copy in part 10 is now the only one.
    assert "11" not in reasons
    with h5py.File(published / "exams_part2.hdf5", "w") as file:
        file["exam_id"] = np.array([11, 12], np.int64)
        file["tracings"] = np.zeros((2, 4000, 12), np.float32)
    reasons = {result.record_id: result.reason for result in results_of(source(published)) if hasattr(result, "reason")}
    assert reasons["12"] == "header_disagrees"


@pytest.mark.parametrize("how", ["link", "external", "virtual"])
def test_a_part_whose_tracings_lie_in_other_files_is_not_read(published, how):
    part, other = published / "exams_part2.hdf5", published / "other.h5"
    part.rename(other)
    with h5py.File(other) as file:
        ids, shape = file["exam_id"][:], file["tracings"].shape
    with h5py.File(part, "w") as file:
        file["exam_id"] = ids
        if how == "link":
            file["tracings"] = h5py.ExternalLink(str(other), "tracings")
        elif how == "external":
            file.create_dataset("tracings", shape, "f4", external=[(str(other), 0, 4 * int(np.prod(shape)))])
        else:
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(other), "tracings", shape)
            file.create_virtual_dataset("tracings", layout)
    results = {result.record_id: result for result in results_of(source(published))}
    assert results["12"].reason == "unreadable_header"
    assert "only files that hold their own" in results["12"].message


def test_a_part_that_is_replaced_is_opened_anew(published):
    before = results_of(source(published))[0].signal
    (published / "exams_part2.hdf5").unlink()
    write_part(published, 2, [(11, tracing(seed=99))])
    after = results_of(source(published))[0].signal
    np.testing.assert_array_equal(
        after[:2800], np.rint(tracing(seed=99)[648:3448, STORED_COLUMNS].astype(np.float64) * 1000)
    )
    assert not np.array_equal(before, after)


@pytest.mark.slow
def test_processes_read_the_same(published):
    one, two = (results_of(source(published), num_workers=n) for n in (1, 2))
    assert [result.record_id for result in one] == [result.record_id for result in two]
    for a, b in zip(one, two, strict=True):
        if hasattr(a, "signal"):
            np.testing.assert_array_equal(a.signal, b.signal)


def test_files_that_are_not_code15(published, tmp_path):
    with pytest.raises(DataError, match=r"neither exams.csv nor a WFDB header"):
        source(tmp_path / "nothing")
    exams = published / "exams.csv"
    exams.write_text(exams.read_text().replace("\n11,", "\neleven,", 1))
    with pytest.raises(DataError, match=r"exams.csv: exam_id is 'eleven' in line 2, a whole number expected"):
        source(published)
    exams.write_text(exams.read_text().replace("is_male", "sex", 1))
    with pytest.raises(DataError, match=r"exams.csv: column is_male is missing"):
        source(published)
    write_exams(published, ROWS)
    for part in published.glob("*.hdf5"):
        part.unlink()
    with pytest.raises(DataError, match=r"no exams_partN.hdf5 beside exams.csv"):
        source(published)


def test_lazy_items():
    made = []
    items = LazyItems(5, lambda position: made.append(position) or position * 10)
    assert len(items) == 5
    assert made == []
    assert items[1:3] == [10, 20]
    assert items[-1] == 40
    assert list(items) == [0, 10, 20, 30, 40]
    with pytest.raises(IndexError):
        items[5]


def test_the_wfdb_layout(tmp_path):
    def write(name, *comments, rate=400, seed=1):
        leads = tuple(lead.upper() for lead in STANDARD_LEADS)
        folder, _, stem = name.rpartition("/")
        write_wfdb(
            tmp_path / "in" / folder,
            stem,
            twelve_lead_mv(seed=seed, rate=400),
            leads=leads,
            rate=rate,
            comments=comments,
        )

    write("a/1", "Exam ID: 1", "Patient ID: 5", "Age: 28", "Sex: Female", "Chagas label: True", seed=1)
    write("a/2", "Patient ID: 5", "Age: Unknown", "Sex: Male", "Chagas label: False", seed=2)
    write("b/1", "Patient ID: 6", seed=3)
    write("b/3", "Age: 28", "Chagas label: False", seed=4)
    write("b/4", "Patient ID: 6", rate=300, seed=5)
    write("b/5", "Patient ID: 6", "Chagas label: perhaps", seed=6)
    made = source(tmp_path / "in")
    assert isinstance(made, Code15WfdbSource)
    card = build_dataset(lambda: made, tmp_path / "out", request={})
    index = open_dataset(tmp_path / "out").index
    assert index.record_id.tolist() == ["a/1", "a/2", "b/1", "b/5"]
    assert index.patient_id.tolist() == ["5", "5", "6", "6"]
    np.testing.assert_array_equal(index.scalars["chagas"], np.array([1, 0, np.nan, np.nan], np.float32))
    np.testing.assert_array_equal(index.age_years, np.array([28, np.nan, np.nan, np.nan], np.float32))
    assert card["summary"]["remarks"]["unread_label"]["values"] == {"Chagas label=perhaps": 1}
    assert [(r.record_id, r.reason) for r in results_of(made) if hasattr(r, "reason")] == [
        ("b/3", "missing_patient"),
        ("b/4", "wrong_rate"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [400, 250])
def test_real_records(real_data, tmp_path, rate):
    folder = real_data / "code15_wfdb"
    card = build_dataset(lambda: source(folder, rate=rate), tmp_path / "out", request={})
    summary = card["summary"]
    assert (summary["records_in"], summary["stored"]) == (310, 305)
    lines = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()[1:]
    assert dict(line.split(",")[:2] for line in lines) == {
        "holdout_data/919083": "too_short",
        "holdout_data/919842": "too_short",
        "training_data/1111834": "too_short",
        # Planted headers that say 300 and 800 Hz.
        "holdout_data/9190_low_sample_rate": "wrong_rate",
        "holdout_data/9190_all_data_is_zero": "wrong_rate",
    }
    assert summary["duplicates"] == [["training_data/1111628", "training_data/1111611"]]
    dataset = open_dataset(tmp_path / "out")
    assert np.nansum(dataset.index.scalars["chagas"]) == 13
    assert dataset.index.valid_samples.max() == 10 * rate
    if rate != 400:
        return
    chosen = set(np.random.default_rng(0).choice(305, 40, replace=False).tolist())
    for number, stored in enumerate(stored_examples(dataset.directory)):
        if number not in chosen:
            continue
        record = wfdb.rdrecord(str(folder / stored["record_id"].decode()))
        columns = [record.sig_name.index(lead.upper() if lead in STANDARD_LEADS else lead) for lead in STANDARD_LEADS]
        signal = record.p_signal[:4000, columns]
        millivolts = stored["signal"][: len(signal)] / 1000
        np.testing.assert_allclose(millivolts, signal[:, STORED_COLUMNS], atol=1e-3, rtol=0)
        one, two = millivolts[:, 0], millivolts[:, 1]
        i, ii = signal[:, 0], signal[:, 1]
        derived = np.stack([two - one, -(one + two) / 2, one - two / 2, two - one / 2], axis=1)
        own = np.stack([ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2], axis=1)
        np.testing.assert_allclose(derived, own, atol=2e-3, rtol=0)
        assert f"Patient ID: {stored['patient_id'].decode()}" in record.comments
        assert int(stored["valid_samples"]) == len(signal)


@pytest.mark.slow
def test_real_records_survive_the_hdf5_layout(real_data, tmp_path):
    """Real records written as a part, zeros on both sides, come back as from their WFDB form."""
    folder, parts = real_data / "code15_wfdb" / "training_data", tmp_path / "parts"
    parts.mkdir()
    names = sorted(path.stem for path in folder.glob("*.hea"))[:12]
    exams, rows = [], []
    for name in names:
        record = wfdb.rdrecord(str(folder / name))
        start = (4096 - record.sig_len) // 2
        padded = np.pad(record.p_signal, ((start, 4096 - record.sig_len - start), (0, 0)))
        fields = dict(comment.split(": ") for comment in record.comments)
        exams.append((int(name), padded.astype(np.float32)))
        is_male = str(fields["Sex"] == "Male")
        rows.append({"exam_id": name, "age": fields["Age"], "is_male": is_male, "patient_id": fields["Patient ID"]})
    write_part(parts, 2, exams)
    write_exams(parts, rows)
    made = source(parts)
    assert isinstance(made, Code15Source)
    expected = {record.record_id: record for record in results_of(source(folder))[: len(names)]}
    for record in results_of(made):
        twin = expected[record.record_id]
        np.testing.assert_array_equal(record.signal, twin.signal)
        for name in ("valid_start", "valid_samples", "patient_id", "age_years", "sex", "fold"):
            assert getattr(record, name) == getattr(twin, name)
