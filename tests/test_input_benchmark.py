"""The input benchmark runs and reports; nothing here depends on how fast this machine is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines import input_benchmark
from data_pipelines.errors import DataError
from data_pipelines.packing import pack
from tests.fixtures import make_simulated_dataset

REPOSITORY = Path(__file__).parents[1]
FIELDS = {
    "ecgs_per_sec",
    "repetitions",
    "memory_map_ecgs_per_sec",
    "memory_map_repetitions",
    "ratio_to_memory_map",
    "threads",
    "checksum",
}


@pytest.fixture
def dataset(tmp_path):
    return make_simulated_dataset(tmp_path, num_patients=30)


def measure(dataset, tmp_path, **changes):
    options = {"scratch": tmp_path, "num_records": 40, "batch_size": 8, "repeats": 3}
    return input_benchmark.measure(dataset, **(options | changes))


@pytest.mark.parametrize("num_threads", [None, 1, 2])
def test_every_reader_is_timed_and_gives_the_same_samples(dataset, tmp_path, num_threads):
    pack(dataset)
    report = json.loads(json.dumps(measure(dataset, tmp_path, num_threads=num_threads)))
    assert report["dataset"]["simulated"] is True
    assert (report["records_read"], report["batch_size"]) == (40, 8)
    for name, threads in (("packed", num_threads or 2), ("array_record", num_threads or 1)):
        of_store = report[name]
        assert set(of_store) == FIELDS
        assert of_store["threads"] == threads
        assert len(of_store["repetitions"]) == len(of_store["memory_map_repetitions"]) == 3
        assert sorted(of_store["repetitions"])[1] == of_store["ecgs_per_sec"] > 0
        assert sorted(of_store["memory_map_repetitions"])[1] == of_store["memory_map_ecgs_per_sec"] > 0
        ratio = of_store["ecgs_per_sec"] / of_store["memory_map_ecgs_per_sec"]
        assert of_store["ratio_to_memory_map"] == pytest.approx(ratio, abs=2e-3)
    assert report["packed"]["checksum"] == report["array_record"]["checksum"]
    assert report["machine"]["cores"] >= 1
    assert report["peak_rss_mib"] > 0


def test_a_data_set_without_a_packed_copy_is_measured_without(dataset, tmp_path):
    report = measure(dataset, tmp_path)
    assert report["packed"] is None
    assert report["array_record"]["ecgs_per_sec"] > 0
    assert not (dataset.directory / "packed").exists()


def test_a_store_that_gives_other_samples_is_found_out(dataset, tmp_path, monkeypatch):
    class Wrong:
        kind = "array_record"
        num_records = dataset.index.num_records
        shape = dataset.format.shape
        num_threads = 1

        def read(self, record_numbers, out):
            out[...] = 0
            return out

    monkeypatch.setattr(input_benchmark, "open_store", lambda directory, kind: Wrong())
    with pytest.raises(DataError, match="array_record gave other samples than TFDS reads"):
        measure(dataset, tmp_path)


def test_too_few_records_for_a_batch_are_refused(dataset, tmp_path):
    with pytest.raises(DataError, match="less than a batch of 4096; give a smaller --batch_size"):
        measure(dataset, tmp_path, batch_size=4096)


def test_the_command_prints_one_json_object_on_a_cohort_of_its_own():
    command = [sys.executable, "-m", "ecgjax.benchmark", "--what=input", "--records=24", "--batch_size=8"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["what"] == "input"
    assert report["record_shape"] == [2500, 8]
    assert report["packed"]["checksum"] == report["array_record"]["checksum"]


def test_the_command_says_what_is_wrong():
    for option, message in (("--what=input --dataset=nowhere", "nowhere: no such"), ("--what=step", "needs --config")):
        command = [sys.executable, "-m", "ecgjax.benchmark", *option.split()]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode != 0
        assert message in done.stderr
        assert "Traceback" not in done.stderr
