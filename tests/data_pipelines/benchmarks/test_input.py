"""The input benchmark runs and reports; nothing here depends on how fast this machine is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.benchmarks import input, scale
from data_pipelines.errors import DataError
from data_pipelines.packing.packed_copy import pack
from tests.support.fixtures import make_simulated_dataset

REPOSITORY = Path(__file__).parents[3]
COMMON = {"ecgs_per_sec", "repetitions", "threads"}
WARM = COMMON | {"memory_map_ecgs_per_sec", "memory_map_repetitions", "ratio_to_memory_map", "checksum"}
COLD = COMMON | {
    "disk_ecgs_per_sec",
    "disk_repetitions",
    "ratio_to_disk",
    "bytes_from_disk_a_record",
    "bytes_of_a_record",
    "is_cold",
}


@pytest.fixture
def datasets(tmp_path):
    return [make_simulated_dataset(tmp_path, num_patients=15, seed=seed, name=f"simulated_{seed}") for seed in range(2)]


def measure(datasets, tmp_path, **changes):
    options = {"scratch": tmp_path, "num_records": 40, "batch_size": 8, "repeats": 3}
    return input.measure(datasets, **(options | changes))


@pytest.mark.parametrize("num_threads", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_every_reader_is_timed_and_gives_the_same_samples(datasets, tmp_path, num_threads):
    for dataset in datasets:
        pack(dataset)
    report = json.loads(json.dumps(measure(datasets, tmp_path, num_threads=num_threads)))
    assert [dataset["simulated"] for dataset in report["datasets"]] == [True, True]
    assert report["batch_size"] == 8
    assert report["records_read"]["2"] == 40
    assert set(report["warm"]) == {"records", "pairs_of_a_patient", "mixture"}
    threads = {"packed": num_threads or 2, "array_record": num_threads or 1}
    for drawn in report["warm"].values():
        for name, of_store in drawn.items():
            assert set(of_store) == WARM
            assert of_store["threads"] == threads[name]
            check_speeds(of_store, "memory_map")
        assert drawn["packed"]["checksum"] == drawn["array_record"]["checksum"]
    assert len({drawn["packed"]["checksum"] for drawn in report["warm"].values()}) == 3
    assert set(report["cold"]) == {"packed", "packed_by_blocks", "array_record"}
    for name, of_store in report["cold"].items():
        assert set(of_store) == COLD
        assert of_store["threads"] == threads[name.removesuffix("_by_blocks")]
        check_speeds(of_store, "disk")
        assert of_store["bytes_of_a_record"] == 16_000
        assert of_store["is_cold"] is (of_store["bytes_from_disk_a_record"] >= 8_000)
    assert report["machine"]["cores"] >= 1
    assert report["peak_rss_mib"] > 0


def check_speeds(found, ceiling):
    assert len(found["repetitions"]) == len(found[f"{ceiling}_repetitions"]) == 3
    assert sorted(found["repetitions"])[1] == found["ecgs_per_sec"] > 0
    assert sorted(found[f"{ceiling}_repetitions"])[1] == found[f"{ceiling}_ecgs_per_sec"] > 0
    ratio = found["ecgs_per_sec"] / found[f"{ceiling}_ecgs_per_sec"]
    # Both speeds are rounded to whole ECGs/s, by a thousandth where they are as low as 500.
    assert found[f"ratio_to_{ceiling}"] == pytest.approx(ratio, abs=2e-3, rel=2e-3)


def test_one_data_set_without_a_packed_copy_is_measured_without_copy_and_mixture(datasets, tmp_path):
    report = measure(datasets[:1], tmp_path, num_records=24)
    assert set(report["warm"]) == {"records", "pairs_of_a_patient"}
    assert report["warm"]["records"]["packed"] is None
    assert report["warm"]["records"]["array_record"]["ecgs_per_sec"] > 0
    assert set(report["cold"]) == {"array_record"}
    assert not (datasets[0].directory / "packed").exists()


def test_a_copy_without_the_shards_is_refused(datasets, tmp_path):
    (Path(datasets[0].directory) / "dataset_info.json").rename(tmp_path / "kept")
    try:
        with pytest.raises(DataError, match="holds a packed copy alone, and not the ArrayRecord shards"):
            input.measure(datasets[:1], scratch=tmp_path, num_records=64, batch_size=8)
    finally:
        (tmp_path / "kept").rename(Path(datasets[0].directory) / "dataset_info.json")


def test_a_store_that_gives_other_samples_is_found_out(datasets, tmp_path, monkeypatch):
    class Wrong:
        kind = "array_record"
        num_records = datasets[0].index.num_records
        shape = datasets[0].format.shape
        num_threads = 1

        def read(self, record_numbers, out):
            out[...] = 0
            return out

    monkeypatch.setattr(input, "open_store", lambda directory, kind: Wrong())
    with pytest.raises(DataError, match="array_record gave other samples than TFDS reads"):
        measure(datasets[:1], tmp_path, num_records=24)


def test_too_few_records_for_a_batch_are_refused(datasets, tmp_path):
    with pytest.raises(DataError, match="less than a batch of 4096; give a smaller --batch_size"):
        measure(datasets, tmp_path, batch_size=4096)


@pytest.mark.slow
def test_the_command_prints_one_json_object_on_cohorts_of_its_own():
    command = [sys.executable, "-m", "ecgjax.benchmark", "--what=input", "--records=24", "--batch_size=8"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["what"] == "input"
    assert report["record_shape"] == [2500, 8]
    assert report["cold"]["packed"]["bytes_of_a_record"] == 40_000


def test_a_large_index_is_made_up_and_timed(tmp_path):
    report = json.loads(json.dumps(scale.measure(tmp_path, num_records=5000, batch_size=32, minutes=0)))
    assert report["made_up"] is True
    assert report["num_records"] == 5000
    assert 0 < report["num_training_records"] < 5000
    assert 0 < report["open_dataset_s"] < report["first_batch_s"]
    assert set(report["record_numbers"]) == {"records", "pairs_of_a_patient", "mixture", "balanced"}
    for found in report["record_numbers"].values():
        assert all(milliseconds > 0 for milliseconds in found["ms"].values())
    assert report["streaming"]["batches"] == 1
    assert report["streaming"]["own_memory_mib"]["first"] > 0
