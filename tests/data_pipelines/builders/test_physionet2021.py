"""The PhysioNet/CinC 2021 sets: their layout and traps in small, and the real records where they are there."""

import contextlib
import re

import numpy as np
import pytest
import wfdb

from data_pipelines.builders.cinc_headers import read_cinc, scan_header
from data_pipelines.builders.physionet2021 import SETS, Physionet2021Source
from data_pipelines.errors import DataError, RecordError
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.metadata.snomed import SCORED_CLASS_OF_CODE, SCORED_CLASSES
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import FEMALE, MALE, SEX_UNKNOWN, STANDARD_LEADS, STORED_LEADS
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from tests.support.cinc_files import ecg_uv, georgia_uv, write_cinc
from tests.support.fixtures import results_of, stored_examples, twelve_lead_mv, write_wfdb

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
AF, AFL, LBBB, CLBBB, LVH = "164889003", "164890007", "164909002", "733534002", "164873001"


def source(folder, *sets, rate=500, **changes):
    recipe = RECIPES["plain"].changed(sampling_rate_hz=rate, **changes)
    return Physionet2021Source(folder, sets=sets, recipe=recipe, num_workers=1)


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "training"
    write_cinc(folder / "cpsc_2018" / "g1", "A0001", ecg_uv(seed=1), comments=("Age: 74", "Sex: Male", f"Dx: {LBBB}"))
    write_cinc(
        folder / "cpsc_2018_extra" / "g1",
        "Q0001",
        ecg_uv(seed=2),
        comments=("Age: NaN", "Sex: NaN", f"Dx: {AF},{CLBBB},{LVH}"),
    )
    write_cinc(
        folder / "georgia" / "g1",
        "E00001",
        georgia_uv(seed=3),
        record_name="E00001.mat",
        comments=("Age: -1", "Sex: Unknown", f"Dx: {LVH}"),
    )
    write_cinc(
        folder / "georgia" / "g1",
        "E00002",
        georgia_uv(seed=4),
        gain="4880/mV",
        record_name="E00002.mat",
        comments=("Age: 61", "Sex: Female", f"Dx: {AFL}"),
    )
    write_cinc(folder / "ningbo" / "g1", "JS10647", ecg_uv(seed=5), comments=("Age: 52", "Sex: Female", "Dx: Unknown"))
    write_cinc(folder / "chapman_shaoxing" / "g1", "JS10646", ecg_uv(seed=6), comments=("Age: 5", "Sex: Female", "Dx:"))
    write_cinc(
        folder / "ptb" / "g1", "S0001", ecg_uv(seed=7, rate=1000, seconds=12), rate=1000, comments=(f"Dx: {AF}, {AF}",)
    )
    write_cinc(folder / "ptb-xl" / "g1", "HR00001", ecg_uv(seed=8), comments=("Age: 300", f"Dx: {AF}x"))
    write_cinc(folder / "st_petersburg_incart" / "g1", "I0001", ecg_uv(seed=9, seconds=31), comments=(f"Dx: {AF}",))
    return folder


def test_labels_patients_and_demographics(published, tmp_path):
    build_dataset(lambda: source(published), tmp_path / "out", request={})
    dataset = open_dataset(tmp_path / "out")
    index = dataset.index
    order = ["JS10646", "A0001", "Q0001", "E00001", "E00002", "JS10647", "HR00001", "S0001", "I0001"]
    assert index.record_id.tolist() == order
    assert index.patient_id.tolist() == order
    assert index.fold.tolist() == [fold_of_patient(name) for name in order]
    nan = np.nan
    np.testing.assert_array_equal(index.age_years, np.array([5, 74, nan, nan, 61, 52, 90, nan, nan], np.float32))
    assert index.sex.tolist() == [FEMALE, MALE, *[SEX_UNKNOWN] * 2, FEMALE, FEMALE, *[SEX_UNKNOWN] * 3]
    # Ascending by number; what HR00001 has is no code, and it has no labels.
    assert index.tasks["all"].classes == (LVH, AF, AFL, LBBB, CLBBB)
    assert index.tasks["all"].values.tolist() == [
        [-1] * 5,
        [0, 0, 0, 1, 0],
        [1, 1, 0, 0, 1],
        [1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [-1] * 5,
        [-1] * 5,
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
    ]
    scored = index.tasks["scored"]
    assert scored.classes == SCORED_CLASSES
    found = [{name for name, value in zip(SCORED_CLASSES, row, strict=True) if value == 1} for row in scored.values]
    # The two codes of left bundle branch block are one class.
    assert found == [set(), {"CLBBB|LBBB"}, {"AF", "CLBBB|LBBB"}, set(), {"AFL"}, set(), set(), {"AF"}, {"AF"}]
    missing = [bool((row == -1).all()) for row in scored.values]
    assert missing == [True, False, False, False, False, True, True, False, False]
    assert dataset.card["summary"]["quarantined"] == {}
    assert {reason: told["values"] for reason, told in dataset.card["summary"]["remarks"].items()} == {
        "unknown_age": {"-1": 1},
        "age_at_limit": {"300": 1},
        "unread_label": {f"Dx={AF}x": 1},
    }
    notes = dataset.card["summary"]["notes"]
    assert notes[0] == (
        "records found of those published: CPSC 2018 1 of 6877, CPSC-Extra 1 of 3453, INCART (St Petersburg) 1 of 74, "
        "PTB 1 of 516, PTB-XL 1 of 21837, Georgia 2 of 10344, Chapman-Shaoxing 1 of 10247, Ningbo 1 of 34905"
    )
    assert "2 headers name their record with an extension: read without it" in notes
    assert any(note.startswith("1 header of Georgia states 4880 units/mV: read as 1000") for note in notes)
    seconds = dataset.card["summary"]["seconds"]
    assert (seconds["cut"], seconds["longest"]) == (2, 31)
    signals = {name: stored["signal"] for name, stored in zip(order, stored_examples(dataset.directory), strict=True)}
    np.testing.assert_array_equal(signals["A0001"], ecg_uv(seed=1)[:, STORED_COLUMNS])
    np.testing.assert_array_equal(signals["E00001"], georgia_uv(seed=3)[:, STORED_COLUMNS])
    # The doubtful gain was proven wrong: as large as the samples in µV.
    np.testing.assert_array_equal(signals["E00002"], georgia_uv(seed=4)[:, STORED_COLUMNS])
    np.testing.assert_array_equal(signals["I0001"], ecg_uv(seed=9, seconds=31)[:5000, STORED_COLUMNS])


def test_sets_are_chosen_by_name(published):
    assert [item.record_id for item in results_of(source(published, "ningbo", "ptb"))] == ["JS10647", "S0001"]
    assert [item.record_id for item in results_of(source(published, "chapman_shaoxing"))] == ["JS10646"]
    write_cinc(published, "patient001", ecg_uv(seed=1))
    chosen = source(published, "georgia")
    assert len(chosen.items) == 2
    assert chosen.card.notes[-1] == "1 record with names of none of the challenge's sets is left out"
    assert chosen.label_schema.tasks["all"] == (LVH, AFL)
    with pytest.raises(DataError, match="--sets=ohio: not known; choose from cpsc, cpsc_extra"):
        source(published, "ohio")
    (published / "ptb" / "g1" / "S0001.hea").unlink()
    with pytest.raises(DataError, match="no record of ptb in it or below; records are named like S0001"):
        source(published, "georgia", "ptb")


def test_a_true_gain_is_kept_and_a_doubtful_one_refused(tmp_path):
    # Whole µV written with this very gain: multiples of 4.88, but rounded.
    write_cinc(tmp_path, "E00001", np.rint(ecg_uv(seed=1) * 4.88), gain="4880/mV")
    # Outside Georgia nobody doubts it.
    signal = read_cinc(tmp_path / "E00001", correct_gain=False).signal
    np.testing.assert_allclose(signal, ecg_uv(seed=1) / 1000, atol=2e-4)
    with pytest.raises(RecordError, match=r"only [45].\.[0-9]% of these samples are multiples of 4.88 µV") as rounded:
        read_cinc(tmp_path / "E00001", correct_gain=True)
    # Counts of a fine converter.
    write_cinc(tmp_path, "E00002", ecg_uv(seed=2), gain="4880/mV")
    with pytest.raises(RecordError, match=r"only 2.\.[0-9]% of these samples are multiples of 4.88 µV") as counts:
        read_cinc(tmp_path / "E00002", correct_gain=True)
    assert rounded.value.reason == counts.value.reason == "broken_gain"
    # One lead with another gain is not that fault.
    header = tmp_path / "E00002.hea"
    header.write_text(header.read_text().replace("4880/mV", "1000/mV", 1))
    assert not scan_header(tmp_path / "E00002").has_doubtful_gain


def test_damage_is_quarantined(published):
    georgia = published / "georgia" / "g1"
    (georgia / "E00001.mat").unlink()
    body = (georgia / "E00002.mat").read_bytes()
    (georgia / "E00002.mat").write_bytes(body[:-100])
    (published / "cpsc_2018" / "g1" / "A0001.hea").write_bytes(b"\xff\xfe nonsense\n")
    write_cinc(published / "zz_copy", "JS10647", ecg_uv(seed=5))
    results = {result.record_id: result for result in results_of(source(published))}
    assert {name: result.reason for name, result in results.items() if hasattr(result, "reason")} == {
        "A0001": "unreadable_header",
        "E00001": "missing_file",
        "E00002": "truncated_file",
        "zz_copy/JS10647": "duplicate_record",
    }
    # Messages name the files of the user, not the corrected copy.
    assert results["E00001"].message.startswith(f"{georgia / 'E00001.mat'}: no such file, but E00001.hea names it")
    assert results["E00002"].message.startswith(f"{georgia / 'E00002.mat'}: truncated")


def test_names_of_the_sets():
    def set_of(name):
        return [key for key, cinc_set in SETS.items() if cinc_set.holds(name)]

    assert [set_of(name) for name in ("JS00001", "JS10646", "JS10647", "JS45551", "JS00000")] == [
        ["chapman_shaoxing"],
        ["chapman_shaoxing"],
        ["ningbo"],
        ["ningbo"],
        [],
    ]
    assert [set_of(name) for name in ("A0001", "Q0001", "I0001", "S0001", "HR00001", "E00001")] == [
        ["cpsc"],
        ["cpsc_extra"],
        ["incart"],
        ["ptb"],
        ["ptbxl"],
        ["georgia"],
    ]
    assert [set_of(name) for name in ("A00001", "00001_hr", "JS1", "xE00001")] == [[], [], [], []]


def test_scored_classes():
    assert len(SCORED_CLASSES) == 26
    assert len(SCORED_CLASS_OF_CODE) == 30
    pairs = [("733534002", "164909002"), ("713427006", "59118001"), ("284470004", "63593006")]
    for one, other in [*pairs, ("427172004", "17338001")]:
        assert SCORED_CLASS_OF_CODE[one] == SCORED_CLASS_OF_CODE[other]
        assert SCORED_CLASS_OF_CODE[one].count("|") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "num_records", "quarantined", "duplicates"),
    [
        ("physionet2021", 77, {"JS11438": "flat_lead"}, []),
        ("physionet2021_georgia", 50, {"JS20004": "flat_lead", "JS20008": "flat_lead"}, [["E07510", "E07509"]]),
    ],
)
@pytest.mark.parametrize("rate", [500, 250])
def test_real_records(real_data, tmp_path, folder, num_records, quarantined, duplicates, rate):
    card = build_dataset(lambda: source(real_data / folder, rate=rate), tmp_path / "out", request={})
    summary = card["summary"]
    assert summary["records_in"] == num_records
    assert summary["stored"] == num_records - len(quarantined)
    lines = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()[1:]
    assert dict(line.split(",")[:2] for line in lines) == quarantined
    assert summary["duplicates"] == duplicates
    if rate != 500:
        return
    generator = np.random.default_rng(0)
    dataset = open_dataset(tmp_path / "out")
    chosen = set(generator.choice(dataset.index.num_records, 20, replace=False).tolist())
    for number, stored in enumerate(stored_examples(dataset.directory)):
        if number in chosen:
            assert_equals_wfdb(stored, real_data / folder, tmp_path)


def assert_equals_wfdb(stored, folder, tmp_path):
    """Compares with what wfdb reads, of headers with an extension through a copy made here."""
    name = stored["record_id"].decode()
    header = (folder / f"{name}.hea").read_text()
    (tmp_path / f"{name}.hea").write_text(re.sub(r"\A(\w+)\.mat", r"\1", header))
    (tmp_path / f"{name}.mat").write_bytes((folder / f"{name}.mat").read_bytes())
    record = wfdb.rdrecord(str(tmp_path / name))
    dx = next(line.split(":")[1].strip() for line in header.splitlines() if "Dx" in line)
    assert list(record.sig_name) == list(STANDARD_LEADS)
    signal = record.p_signal[: len(stored["signal"])]
    millivolts = stored["signal"][: len(signal)] / 1000
    np.testing.assert_allclose(millivolts, signal[:, STORED_COLUMNS], atol=1e-3, rtol=0)
    one, two = millivolts[:, 0], millivolts[:, 1]
    derived = np.stack([two - one, -(one + two) / 2, one - two / 2, two - one / 2], axis=1)
    # 2 µV beyond what the file's own leads, each rounded for itself, disagree by.
    i, ii = signal[:, 0], signal[:, 1]
    own = np.stack([ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2], axis=1) - signal[:, 2:6]
    np.testing.assert_allclose(derived - own, signal[:, 2:6], atol=2e-3, rtol=0)
    labelled = {code for code, value in zip(stored_codes(folder), stored["tasks"]["all"], strict=True) if value == 1}
    assert labelled == set(dx.split(","))


def stored_codes(folder):
    lines = (line for path in folder.glob("*.hea") for line in path.read_text().splitlines() if "Dx:" in line)
    return sorted({code.strip() for line in lines for code in line.split(":")[1].split(",")}, key=int)


@pytest.mark.slow
def test_the_gain_of_real_georgia_headers_is_proven_wrong(real_data, tmp_path):
    """Georgia's records with the headers of the first release: each read as it is with today's; no other set's is."""
    folders = [real_data / "physionet2021", real_data / "physionet2021_georgia"]
    paths = sorted(path for folder in folders for path in folder.glob("*.mat"))
    accepted = set()
    for path in paths:
        header = path.with_suffix(".hea").read_text()
        name = path.stem
        (tmp_path / f"{name}.hea").write_text(re.sub(r"1000(\.0\(0\))?/m", "4880/m", header))
        (tmp_path / f"{name}.mat").write_bytes(path.read_bytes())
        with contextlib.suppress(RecordError):
            found = read_cinc(tmp_path / name, correct_gain=True).signal
            truth = read_cinc(path.with_suffix(""), correct_gain=False).signal
            np.testing.assert_allclose(found, truth, atol=1e-9)
            accepted.add(name)
    assert accepted == {path.stem for path in paths if path.stem[0] == "E"}
    assert len(accepted) == 31
    assert len(paths) == 127


def test_other_fixture_files_are_left_out(published):
    """A plain WFDB record beside the set does not come in under a false name."""
    write_wfdb(published, "00001_hr", twelve_lead_mv(seed=1))
    assert "00001_hr" not in {result.record_id for result in results_of(source(published))}
