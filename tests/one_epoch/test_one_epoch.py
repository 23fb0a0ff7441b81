"""An epoch over distinct recordings reads each exactly once, though it is killed and resumed twice."""

import numpy as np
import pytest

from data_pipelines.benchmarks.packed_cohort import make_packed_cohort
from data_pipelines.records import SignalFormat
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from data_pipelines.storage.store import open_store
from tests.one_epoch.__main__ import COUNTS, one_epoch, read_once

FORMAT = SignalFormat(sampling_rate_hz=50, num_samples=100)


def test_a_packed_cohort_holds_the_simulators_records_with_their_labels(tmp_path):
    dataset = make_packed_cohort(tmp_path / "cohort", num_records=50, seed=3, signal_format=FORMAT, num_workers=1)
    num_records, num_patients = dataset.index.num_records, dataset.index.num_patients
    assert 50 <= num_records <= 54
    cohort = Cohort(CohortConfig(seed=3, num_patients=num_patients, sampling_rate_hz=50, seconds=2.0))
    expected = cohort.simulate(0, num_records)
    store = open_store(dataset.directory, verify=True)
    assert store.kind == "packed"
    assert np.array_equal(store.read(np.arange(num_records)), expected.signal)
    assert np.array_equal(dataset.index.patient, expected.patient)
    assert np.array_equal(dataset.index.label("lvef"), expected.scalars["lvef"])
    assert len(set(dataset.index.record_id.tolist())) == num_records
    split = dataset.index.split(train_folds=range(1, 11), val_folds=(), test_folds=())
    assert np.array_equal(split.train, np.arange(num_records))


def written(path, batches):
    with path.open("wb") as file:
        for step, records, process in batches:
            file.write(np.array([step, process, 2**20, len(records), *records], np.int64).tobytes())
    return path


def test_what_was_taken_again_counts_once_and_what_was_missed_or_read_twice_is_seen(tmp_path):
    whole = [(0, [3, 1], 7), (1, [0, 2], 7)]
    assert read_once(written(tmp_path / COUNTS, whole), num_records=4)["records_read_once"] == 4
    again = read_once(written(tmp_path / COUNTS, [*whole, (1, [0, 2], 5)]), num_records=4)
    assert (again["records_read_once"], again["steps_taken_again"]) == (4, 1)
    assert [(own["batches"], own["highest"]) for own in again["own_memory_mib"]] == [(2, 1), (1, 1)]
    twice = read_once(written(tmp_path / COUNTS, [(0, [3, 1], 7), (1, [0, 1], 7)]), num_records=4)
    assert (twice["records_read_once"], twice["fewest_and_most_times"]) == (2, [0, 2])


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", ["blocks", pytest.param("full", marks=pytest.mark.soak)])
def test_an_epoch_killed_twice_reads_every_record_exactly_once(tmp_path, shuffle):
    flags = (
        f"--config.sampling.shuffle={shuffle}", "--config.sampling.block=16", "--config.sampling.window=4",
        "--config.checkpoint.every=10", "--config.log_every=1", "--config.encoder.widths=(4,)",
    )  # fmt: skip
    found = one_epoch(tmp_path, num_records=1000, num_workers=1, flags=flags, batch_size=8)
    assert found["records"] >= 1000
    assert found["records_read_once"] == found["records_read"] == found["records"]
    assert found["fewest_and_most_times"] == [1, 1]
    assert found["steps"] == -(-found["records"] // 8)
