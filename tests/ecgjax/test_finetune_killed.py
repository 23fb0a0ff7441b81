"""Fine-tuning in real processes: killed ten times, and as two processes, it ends as an uninterrupted run of one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ecgjax.config import run_config
from ecgjax.training.run_log.metrics_file import read_metrics
from tests.support.finished_runs import computed, last_of_fine_tuning, predictions
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

ROOT = Path(__file__).parents[2]
FOLDS = {"data__train_folds": (1, 2, 3, 4, 5), "data__val_folds": (6, 7), "data__test_folds": (8, 9, 10)}
KILLS = 10

pytestmark = [pytest.mark.slow, pytest.mark.soak]


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    dataset = make_simulated_dataset(folder, num_patients=80, rate=50, seconds=4).directory
    source = write_run(folder / "source", tiny(dataset, **FOLDS))
    return [
        f"--config.init.source={source}", f"--config.data.dir={dataset}", "--task=age_years>62",
        *(f"--config.{name.replace('__', '.')}={value}" for name, value in FOLDS.items()),
        "--config.training.steps=40", "--config.training.batch_size=8", "--config.training.eval_every=4",
        "--config.training.head_start=probe", "--config.optimizer.ema_decay=.8", "--config.checkpoint.every=3",
        "--config.log_every=1", "--config.bootstrap=100", "--config.training.metric.weight=.5",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),  # tests is no installed package
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),  # the same programs for every start
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(flags, environment, workdir, *before):
    command = [*before, sys.executable, "-m", "ecgjax.finetune", *flags, f"--workdir={workdir}"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def whole(flags, environment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    process = start(flags, environment, workdir)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return workdir


def test_killed_ten_times_equals_uninterrupted(flags, environment, whole, tmp_path):
    workdir, rng, killed = tmp_path / "killed", np.random.default_rng(0), 0
    while killed < KILLS:
        process = start(flags, environment, workdir)
        lines = read_metrics(workdir)
        # Some die at a step, some within a save, a look, the results or the model.
        wanted = (lines[-1]["step"] if lines else 0) + int(rng.integers(1, 6))
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            lines = read_metrics(workdir)
            if lines and lines[-1]["step"] >= min(wanted, 40):
                time.sleep(float(rng.uniform(0, 0.3)))
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    process = start(flags, environment, workdir)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert last_of_fine_tuning(workdir) == last_of_fine_tuning(whole)
    assert computed(workdir) == computed(whole)
    for name, values in predictions(whole).items():
        np.testing.assert_array_equal(predictions(workdir)[name], values, err_msg=name)
    for name in ("model.safetensors", "model.onnx", "sample.npz"):
        assert (workdir / "model" / name).read_bytes() == (whole / "model" / name).read_bytes(), name


def test_terminated_it_saves_and_says_so(flags, environment, tmp_path):
    workdir = tmp_path / "terminated"
    process = start(flags, environment, workdir)
    while process.poll() is None and not any(line["step"] >= 5 for line in read_metrics(workdir)):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == run_config.EXIT_STOPPED, output
    assert last_of_fine_tuning(workdir)[0] >= 5
    assert not (workdir / "model").exists()


def test_two_processes_train_the_run_of_one(flags, environment, whole, tmp_path):
    workdir = tmp_path / "two"
    process = start(flags, environment, workdir, sys.executable, "-m", "launch.local", "--processes=2", "--")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    step, looks, _ = last_of_fine_tuning(workdir)
    assert step == last_of_fine_tuning(whole)[0]
    for ours, theirs in zip(computed(workdir), computed(whole), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose([*ours.values()], [*theirs.values()], rtol=2e-3, atol=1e-4)
    told, alone = predictions(workdir), predictions(whole)
    np.testing.assert_array_equal(told["test_records"], alone["test_records"])
    results = [json.loads((each / "results.json").read_text()) for each in (workdir, whole)]
    assert results[0]["splits"] == results[1]["splits"]
    if looks["best"] == last_of_fine_tuning(whole)[1]["best"]:
        np.testing.assert_allclose(told["test_outputs"], alone["test_outputs"], rtol=1e-2, atol=1e-3)
