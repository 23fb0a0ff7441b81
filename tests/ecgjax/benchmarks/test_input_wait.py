"""The benchmark of waiting for input runs and reports; its control, a slowed loader, makes the step wait."""

import json

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.storage.store import open_store
from data_pipelines.streaming.orders import RecordOrder
from data_pipelines.streaming.sampler import Sampler
from ecgjax.benchmarks import input_wait
from tests.support.fixtures import make_simulated_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=15, rate=50, seconds=4)


def test_figures_are_of_each_number_of_readers(dataset, monkeypatch):
    monkeypatch.setattr(input_wait, "_SECONDS_A_REPETITION", 0.0)
    report = json.loads(json.dumps(input_wait.measure(dataset, num_records=24, batch_size=8, repeats=1)))
    assert {"1", "2"} <= set(report["by_readers"])
    assert all(of["ecgs_per_sec"] > 0 and of["ecgs_per_core_sec"] > 0 for of in report["by_readers"].values())
    step = report["step"]
    assert step["step_ms"] == pytest.approx(
        8e3 / (0.8 * report["by_readers"][str(report["readers"])]["ecgs_per_sec"]), abs=1e-3
    )
    for name in ("input_wait_frac", "input_wait_frac_of_slowed_loader"):
        assert 0 < step[name]["median"] < 1
    extrapolated = report["extrapolation"]
    assert extrapolated["note"].startswith("not measured")
    assert extrapolated["ecgs_per_sec"] == 100 * report["by_readers"][str(report["readers"])]["ecgs_per_core_sec"]


def test_a_step_waits_for_a_slowed_loader(dataset, monkeypatch):
    monkeypatch.setattr(input_wait, "_SECONDS_A_REPETITION", 0.0)
    sampler = Sampler(RecordOrder(np.arange(24), seed=0), batch_size=8)
    slowed = input_wait._Slowed(open_store(dataset.directory), 0.1)
    # At five times the step's length the loader takes up four fifths of the time, less what sleeping takes too long.
    assert input_wait._waits(slowed, sampler, 1, 0.02, 1)["median"] > 0.5


def test_too_few_records_for_a_batch_are_refused(dataset):
    with pytest.raises(DataError, match="less than a batch of 4096; give a smaller --batch_size"):
        input_wait.measure(dataset, num_records=24, batch_size=4096)
