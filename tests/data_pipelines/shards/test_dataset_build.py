"""Data sets built for real: what is stored, what is refused, and that a killed build leaves nothing half done."""

import csv
import dataclasses
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.builders.base import Quarantined, SourceCard
from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset, staging_directory
from data_pipelines.prepared.index import INDEX_DIR
from data_pipelines.records import EcgRecord, LabelSchema, content_hash
from data_pipelines.shards import plan
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.shards.making import LocalProcesses
from data_pipelines.signals.recipe import RECIPES, SignalRecipe
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.system.atomic_directory import exclusive_staging
from tests.support.fixtures import (
    as_given,
    make_simulated_dataset,
    results_of,
    stored_examples,
    twelve_lead_mv,
    write_wfdb,
)

REPOSITORY = Path(__file__).parents[3]
RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=100, seconds=2.0, min_seconds=1.0)
FORMAT = RECIPE.signal_format
SCHEMA = LabelSchema(scalars=("lvef",), tasks={"rhythm": ("AF", "SR", "SB")})


class ListSource:
    """A source of ready-made results."""

    card = SourceCard(name="listed", description="Made up for a test.", simulated=True)
    recipe = RECIPE
    signal_format = FORMAT
    label_schema = SCHEMA

    def __init__(self, results, *, reader=as_given):
        self.items = results
        self._reader = reader

    def reader(self):
        return self._reader


def made_up(number, *, patient=None, content=None, **changes):
    generator = np.random.default_rng(number if content is None else content)
    fields = {
        "record_id": f"r{number}",
        "patient_id": f"p{number if patient is None else patient}",
        "signal": generator.integers(-900, 900, FORMAT.shape).astype(np.int16),
        "valid_start": 3,
        "valid_samples": 190,
        "age_years": 40.5 + number,
        "sex": number % 2,
        "fold": number % 3 + 1,
        "report": f"Sinusrhythmus, {number}. Ausschluß",
        "scalars": {"lvef": float("nan") if number == 1 else 50.0 + number},
        "tasks": {"rhythm": np.array([-1, -1, -1] if number == 2 else [0, 1, number % 2], np.int8)},
    }
    return EcgRecord(**(fields | changes))


def bad(number):
    return Quarantined(record_id=f"bad{number}", reason="nan", message=f"bad{number}: lead V1 has NaN, with, commas")


def build(results, out, **kwargs):
    return build_dataset(lambda: ListSource(results), out, request=kwargs.pop("request", {}), **kwargs)


def test_everything_comes_back_as_it_was_given(tmp_path):
    records = [made_up(i) for i in range(5)]
    build([records[0], bad(0), *records[1:]], tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    index = dataset.index
    assert dataset.format == FORMAT
    assert index.record_id.tolist() == [r.record_id for r in records]
    assert index.patient_id.tolist() == [r.patient_id for r in records]
    assert index.patient.tolist() == [0, 1, 2, 3, 4]
    assert index.fold.tolist() == [r.fold for r in records]
    assert index.sex.tolist() == [r.sex for r in records]
    assert index.valid_start.tolist() == [3] * 5
    assert index.valid_samples.tolist() == [190] * 5
    np.testing.assert_array_equal(index.age_years, np.array([r.age_years for r in records], np.float32))
    np.testing.assert_array_equal(index.label("lvef"), np.array([50, np.nan, 52, 53, 54], np.float32))
    np.testing.assert_array_equal(index.label("rhythm:SB"), np.array([0, 1, np.nan, 1, 0], np.float32))
    assert [h.tobytes() for h in index.content_hash] == [content_hash(r.signal) for r in records]
    for stored, record in zip(stored_examples(dataset.directory), records, strict=True):
        np.testing.assert_array_equal(stored["signal"], record.signal)
        assert stored["signal"].dtype == np.int16
        assert stored["report"].decode() == record.report
    with (dataset.directory / "quarantine.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["record_id", "reason", "message"],
            ["bad0", "nan", "bad0: lead V1 has NaN, with, commas"],
        ]
    assert dataset.card["summary"]["quarantined"] == {"nan": 1}
    assert dataset.card["summary"]["records_in"] == 6
    assert dataset.card["layout_version"] == 2
    assert dataset.simulated is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert not list(dataset.directory.rglob("*download*"))


def test_equal_content_is_reported_and_marked(tmp_path):
    card = build(
        [made_up(0), made_up(1), made_up(2, content=0), made_up(3, patient=1), made_up(4, content=0)], tmp_path / "out"
    )
    assert card["summary"]["duplicates"] == [["r2", "r0"], ["r4", "r0"]]
    index = open_dataset(tmp_path / "out").index
    assert index.duplicate_of.tolist() == [-1, -1, 0, -1, 0]
    assert index.group.tolist() == [0, 1, 0, 1, 0]


def test_many_shards_even_one_left_empty_by_the_quarantine(tmp_path, monkeypatch):
    record_bytes = 2 * 200 * 8 + plan._OTHER_BYTES_PER_RECORD
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 3 * record_bytes)
    results = [made_up(i) for i in range(3)] + [bad(i) for i in range(3)] + [made_up(i) for i in range(3, 8)]
    build(results, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.card["shard_lengths"] == [3, 0, 2, 3]
    assert len(dataset.shards) == 4
    assert dataset.index.record_id.tolist() == [f"r{i}" for i in range(8)]


def one_too_few(items):
    yield from items[1:]


def one_too_many(items):
    yield from items
    yield made_up(100)


@pytest.mark.parametrize(("reader", "num_results"), [(one_too_few, 1), (one_too_many, 3)])
def test_a_reader_that_miscounts_builds_nothing(tmp_path, monkeypatch, reader, num_results):
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 10_000)
    source = ListSource([made_up(i) for i in range(6)], reader=reader)
    message = rf"'listed' has 2 recordings in shard 0, of which its reader gave {num_results}"
    with pytest.raises(DataError, match=message):
        build_dataset(lambda: source, tmp_path / "out", request={})
    assert not (tmp_path / "out").exists()


def test_same_source_same_data_set(tmp_path):
    one, two = (make_simulated_dataset(tmp_path, num_patients=6, name=name) for name in ("one", "two"))
    other = make_simulated_dataset(tmp_path, num_patients=6, seed=1, name="other")
    assert one.fingerprint == two.fingerprint != other.fingerprint
    np.testing.assert_array_equal(one.index.record_id, two.index.record_id)
    np.testing.assert_array_equal(one.index.content_hash, two.index.content_hash)


def test_simulated_data_set_is_the_cohort_and_says_so(tmp_path):
    dataset = make_simulated_dataset(tmp_path, num_patients=12, rate=100)
    cohort = Cohort(CohortConfig(seed=0, num_patients=12, sampling_rate_hz=100))
    records = cohort.simulate(0, cohort.num_records)
    signals = np.stack([stored["signal"] for stored in stored_examples(dataset.directory)])
    np.testing.assert_array_equal(signals, records.signal)
    for name, values in records.scalars.items():
        np.testing.assert_array_equal(dataset.index.label(name), values)
    np.testing.assert_array_equal(dataset.index.patient, records.patient)
    assert dataset.simulated
    assert dataset.card["simulated"] is True
    assert "SIMULATED" in dataset.card["description"]
    assert dataset.card["scalars"]["lvef"] == {"unit": "%"}
    assert all(patient.startswith("simulated") for patient in dataset.index.patient_id)


@pytest.mark.slow
def test_fold_of_a_simulated_patient_does_not_depend_on_the_size_of_the_cohort(tmp_path):
    small = make_simulated_dataset(tmp_path, num_patients=10, seconds=2.0, name="small").index
    large = make_simulated_dataset(tmp_path, num_patients=300, seconds=2.0, name="large").index
    np.testing.assert_array_equal(small.fold, large.fold[: small.num_records])
    np.testing.assert_array_equal(small.content_hash, large.content_hash[: small.num_records])
    counts = np.bincount(large.fold, minlength=11)
    assert counts[0] == 0
    assert counts[1:].min() > 0.4 * counts[1:].mean()
    assert len(np.unique(np.stack([large.patient, large.fold]), axis=1).T) == large.num_patients


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_folder_with_labels(tmp_path, monkeypatch, num_workers):
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 3 * 41_024)
    source = tmp_path / "in"
    for number, place in enumerate(["a/x", "a/y", "b/z", "b/v", "b/w"]):
        write_wfdb(source / place[0], place[2:], twelve_lead_mv(seed=number), comments=("Age: 33", "Sex: Female"))
    (source / "b" / "v.dat").unlink()
    table = tmp_path / "labels.csv"
    table.write_text(
        "record,patient_id,age,sex,fold,report,lvef,sick,site\n"
        "a/x,p1,300,m,4,fine,55.5,True,north\n"
        "y,p1,,,,,,False,south\n"
        "b/v,p2,20,m,1,,40,,north\n"
        "b/w,,20,m,1,,40,,north\n"
        "b/gone,p3,20,m,1,,40,,north\n"
    )

    def make_source():
        return FolderSource(
            source, labels=table, patient_field=None, name="ours", recipe=RECIPES["plain"],
        )  # fmt: skip

    card = build_dataset(
        make_source, tmp_path / "out", request={}, max_quarantined=0.7, make_shards=LocalProcesses(num_workers)
    )
    assert card["shard_lengths"] == [2, 0]
    index = open_dataset(tmp_path / "out").index
    assert index.record_id.tolist() == ["a/x", "a/y"]
    assert index.patient.tolist() == [0, 0]
    assert index.age_years.tolist() == [90, 33]
    assert index.sex.tolist() == [0, 1]
    assert index.fold.tolist() == [4, -1]
    np.testing.assert_array_equal(index.label("lvef"), np.array([55.5, np.nan], np.float32))
    np.testing.assert_array_equal(index.label("sick"), np.array([1, 0], np.float32))
    assert card["summary"]["quarantined"] == {"missing_file": 2, "missing_patient": 2}
    assert card["summary"]["notes"] == ["columns that are not numeric are not stored: site ('north' 4, 'south')"]


def folder_source(source, **changes):
    arguments = {"labels": None, "patient_field": None, "name": "ours", "recipe": RECIPE}
    return FolderSource(source, **(arguments | changes))


def test_folder_without_labels(tmp_path):
    write_wfdb(tmp_path / "in" / "deep", "x", twelve_lead_mv(), comments=("Patient: p7", "Sex: Unknown"))
    write_wfdb(tmp_path / "in" / "deep", "y", twelve_lead_mv(seed=1))
    alone, named = folder_source(tmp_path / "in"), folder_source(tmp_path / "in", patient_field="patient")
    assert [record.patient_id for record in results_of(alone)] == ["deep/x", "deep/y"]
    assert "each record is taken for a patient of its own" in alone.card.notes[0]
    first, second = results_of(named)
    assert (first.patient_id, first.sex, np.isnan(first.age_years)) == ("p7", -1, True)
    assert second.reason == "missing_patient"
    assert "no field 'patient' in the file, so its patient is not known" in second.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,patient_id\nx,p\n", "column record is missing; it has name, patient_id"),
        ("record,patient_id\nx,p\nx,q\n", "1 record has more than one row, first 'x'"),
        ("record,patient_id\nother,p\n", "not one of its 1 record is in the folder; .* such as 'a/x'"),
        ("record,patient_id\nx,p\n", "'x' could be any of 2 records of that name"),
    ],
)
def test_label_tables_that_do_not_fit(tmp_path, text, message):
    for place in "ab":
        write_wfdb(tmp_path / "in" / place, "x", twelve_lead_mv(seconds=2))
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        folder_source(tmp_path / "in", labels=table)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("40,m,1.5", "fold is '1.5', a whole number from 0 to 1000 expected"),
        ("40,m,first", "fold is 'first'"),
        ("40,m,-1", "fold is '-1'"),
    ],
)
def test_a_bad_fold_is_quarantined(tmp_path, row, message):
    write_wfdb(tmp_path / "in", "x", twelve_lead_mv(seconds=2))
    (tmp_path / "labels.csv").write_text(f"record,patient_id,age,sex,fold\nx,p,{row}\n")
    (result,) = results_of(folder_source(tmp_path / "in", labels=tmp_path / "labels.csv"))
    assert result.reason == "bad_label"
    assert message in result.message


def test_folder_without_records(tmp_path):
    with pytest.raises(DataError, match=r"no recording \(\.hea .*\.xml\) in it or below"):
        folder_source(tmp_path)


def test_too_much_quarantined_builds_nothing(tmp_path):
    results = [made_up(0), bad(1), bad(2)]
    message = r"2 of 3 recordings could not be stored \(nan 2\), more than --max_quarantined=0.5.*; the first: bad1"
    with pytest.raises(DataError, match=message):
        build(results, tmp_path / "out")
    with pytest.raises(DataError, match=r"out: is not finished .*run the same command again"):
        open_dataset(tmp_path / "out")
    assert build(results, tmp_path / "out", max_quarantined=0.7)["num_records"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_what_ends_a_build_is_shown_by_the_first_recording_of_the_most_frequent_reason(tmp_path):
    flat = [dataclasses.replace(bad(number), reason="flat_lead") for number in (3, 4)]
    message = (
        r"\(flat_lead 2, nan 1\), more than .* nothing was built; the first of flat_lead: bad3: .*\. All are listed"
    )
    with pytest.raises(DataError, match=message):
        build([bad(1), made_up(0), *flat], tmp_path / "out")


def test_nothing_stored_is_an_error_at_any_share(tmp_path):
    with pytest.raises(DataError, match="1 of 1 recording could not be stored"):
        build([bad(0)], tmp_path / "out", max_quarantined=1.0)


def test_two_records_of_one_id(tmp_path):
    with pytest.raises(DataError, match="1 record ids come more than once, first 'r0'"):
        build([made_up(0), made_up(1, record_id="r0")], tmp_path / "out")


def test_a_reader_that_breaks_the_record_format_is_named(tmp_path):
    with pytest.raises(DataError, match=r"record 'r0': signal is float64\(200, 8\), not int16\(200, 8\)"):
        build([made_up(0, signal=np.zeros(FORMAT.shape))], tmp_path / "out")
    with pytest.raises(DataError, match="labels differ from the label schema"):
        build([made_up(0, scalars={})], tmp_path / "out")


def test_finished_data_set_is_left_unless_overwritten(tmp_path):
    out = tmp_path / "out"
    build([made_up(0)], out, request={"target_rate_hz": 100})
    before = (out / CARD_FILE).stat().st_mtime_ns

    def never():
        raise AssertionError("nothing to build")

    card = build_dataset(never, out, request={"target_rate_hz": 100})
    assert card["num_records"] == 1
    assert (out / CARD_FILE).stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"built otherwise, with target_rate_hz=100 \(asked for: 250\)"):
        build_dataset(never, out, request={"target_rate_hz": 250})
    with pytest.raises(DataError, match="record 'r0'"):
        build([made_up(0, scalars={})], out, request={}, overwrite=True)
    assert open_dataset(out).index.num_records == 1
    build([made_up(0), made_up(1)], out, request={}, overwrite=True)
    assert open_dataset(out).index.num_records == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_directory_that_is_no_data_set_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="exists and is not a prepared data set"):
        build([made_up(0)], tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()
    assert not staging_directory(tmp_path).exists()
    (tmp_path / "empty").mkdir()
    build([made_up(0)], tmp_path / "empty")
    assert open_dataset(tmp_path / "empty").index.num_records == 1


def test_the_current_directory_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is the current directory, which a build would replace"):
        build([made_up(0)], ".")


def test_two_builds_at_once(tmp_path):
    with (
        exclusive_staging(staging_directory(tmp_path / "out")),
        pytest.raises(DataError, match=r"out.building: another build is writing here; wait for it to finish"),
    ):
        build([made_up(0)], tmp_path / "out")
    assert build([made_up(0)], tmp_path / "out")["num_records"] == 1


def test_workers_of_a_killed_process_leave_too(tmp_path):
    code = textwrap.dedent("""
        import multiprocessing, os, signal, sys, time
        from data_pipelines.system.workers import map_ordered

        if __name__ == "__main__":
            results = map_ordered(abs, range(1000), num_workers=2, chunk_size=1)
            next(results)
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    script = tmp_path / "killed.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in killed.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_any_number_of_processes_builds_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "MAX_SHARD_BYTES", 40_000)
    results = [made_up(number) for number in range(60)]
    one, two = (
        open_dataset(build(results, tmp_path / str(count), make_shards=LocalProcesses(count)) and tmp_path / str(count))
        for count in (1, 2)
    )
    assert len(one.shards) > 2
    assert [path.read_bytes() for path in one.shards] == [path.read_bytes() for path in two.shards]
    for path in (one.directory / INDEX_DIR).iterdir():
        assert path.read_bytes() == (two.directory / INDEX_DIR / path.name).read_bytes(), path.name
