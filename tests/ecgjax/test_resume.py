"""Killed anywhere and run again = uninterrupted, bit for bit, through the real command in real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.command import EXIT_USER_ERROR
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import ConfigError
from ecgjax.pretrain import pretrain
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.run_time.account import account_of
from ecgjax.training.run_time.events import read_events
from tests.support import tiny_config
from tests.support.finished_runs import final_state
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny

ROOT = Path(__file__).parents[2]
STEPS = 120
FEW_STEPS = 40
SHORT = f"--config.duration.value={FEW_STEPS}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


def start(dataset, workdir, *flags):
    workdir.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "ecgjax.pretrain", "--config=tests/support/tiny_config.py",
        f"--config.data.dir={dataset}", f"--workdir={workdir}", *flags,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),  # tests is no installed package
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # bits as the emitters that runs use make them
        "JAX_COMPILATION_CACHE_DIR": str(dataset.parent / "compiled"),  # the same programs for every start
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def finish(process, workdir, *, status=0):
    code = process.wait(timeout=300)
    log = workdir.parent / f"{workdir.name}.log"
    assert code == status, log.read_text()
    return log.read_text()


def wait_for(condition, process, *, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def last_step(workdir):
    lines = read_metrics(workdir)
    return lines[-1]["step"] if lines else 0


def saving(workdir):
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(path.name.endswith("orbax-checkpoint-tmp") for path in folder.iterdir())


def train_lines(workdir):
    """(step, name) → value of everything that training computes; speeds differ from run to run."""
    return {
        (line["step"], name): value
        for line in read_metrics(workdir)
        for name, value in line.items()
        if name.startswith(("train/", "eval/"))
    }


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    log = finish(start(dataset, workdir), workdir)
    return workdir, log


@pytest.fixture(scope="module")
def short(dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "short"
    finish(start(dataset, workdir, SHORT), workdir)
    return workdir


def kill(dataset, workdir, *flags, when):
    process = start(dataset, workdir, *flags)
    wait_for(when, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def assert_equal_runs(workdir, uninterrupted, *, steps=STEPS):
    step, killed = final_state(workdir)
    assert step == steps
    _, whole = final_state(uninterrupted)
    assert jax.tree.structure(killed) == jax.tree.structure(whole)
    for path, leaf in jax.tree_util.tree_flatten_with_path(whole)[0]:
        other = dict(jax.tree_util.tree_flatten_with_path(killed)[0])[path]
        np.testing.assert_array_equal(np.asarray(other), np.asarray(leaf), err_msg=jax.tree_util.keystr(path))
    assert train_lines(workdir) == train_lines(uninterrupted)
    first = create_split(defaults.settings_of(tiny_config.get_config()).encoder, seed=0).params
    leaves = zip(jax.tree.leaves(whole["params_encoder"]), jax.tree.leaves(first), strict=True)
    moved = [jnp.abs(a - b).max() for a, b in leaves]
    assert min(moved) > 0, "training changed every parameter"


# In one process, runs that are stopped and resumed are compared bit for bit in `test_joint_run.py` and
# `test_finetune.py`, and processes are killed in mid-save in `training/checkpoints/test_checkpoint.py`.
@pytest.mark.slow
def test_killed_at_a_random_step_equals_uninterrupted(dataset, short, tmp_path):
    workdir = tmp_path / "killed"
    step = int(np.random.default_rng(0).integers(15, FEW_STEPS - 10))
    kill(dataset, workdir, SHORT, when=lambda: last_step(workdir) >= step)
    assert "resuming from step" in finish(start(dataset, workdir, SHORT), workdir)
    assert_equal_runs(workdir, short, steps=FEW_STEPS)
    killed, finished = account_of(read_events(workdir)).starts
    assert (killed.first, killed.ended) == (0, "")
    assert (finished.last, finished.ended) == (FEW_STEPS, "finished")
    assert finished.first > 0
    assert all(each.spent[kind] > 0 for each in (killed, finished) for kind in ("init", "compile", "step", "save"))
    assert 0 < read_metrics(workdir)[-2]["perf/goodput"] < 1


@pytest.mark.slow
@pytest.mark.soak
def test_killed_again_and_again_equals_uninterrupted(dataset, uninterrupted, tmp_path):
    workdir = tmp_path / "killed"
    epoch = len(make_epoch(dataset)) // tiny_config.get_config().batch_size
    assert 5 < epoch < 30
    first = int(np.random.default_rng(0).integers(11, 19))
    kill(dataset, workdir, when=lambda: last_step(workdir) >= 3)  # before any checkpoint
    kill(dataset, workdir, when=lambda: last_step(workdir) >= first)  # at a random step
    kill(dataset, workdir, when=lambda: last_step(workdir) >= 3 * epoch)  # at an epoch's boundary
    kill(dataset, workdir, when=lambda: last_step(workdir) > 4 * epoch and saving(workdir))  # in mid-save
    process = start(dataset, workdir)
    wait_for(lambda: last_step(workdir) >= STEPS - 30, process)
    process.send_signal(signal.SIGTERM)
    finish(process, workdir, status=run_config.EXIT_STOPPED)
    stopped_at = last_step(workdir)
    assert stopped_at < STEPS
    log = finish(start(dataset, workdir), workdir)
    assert f"resuming from step {stopped_at}" in log
    assert_equal_runs(workdir, uninterrupted[0])


def make_epoch(dataset):
    config = tiny_config.get_config().data
    folds = {name: config[name] for name in ("train_folds", "val_folds", "test_folds")}
    return open_dataset(dataset).index.split(**folds).train


@pytest.mark.slow
def test_a_finished_run_does_nothing_more(dataset, uninterrupted):
    workdir, _ = uninterrupted
    before = (workdir / "metrics.jsonl").read_bytes()
    log = finish(start(dataset, workdir), workdir)
    assert f"resuming from step {STEPS}" in log
    assert (workdir / "metrics.jsonl").read_bytes() == before


# What differs is refused by name in `training/test_resumption.py`, and what commands refuse is told in one line in
# tests/project/wrong_lines_of_pretraining.py.
@pytest.mark.slow
def test_another_config_is_refused_in_one_plain_line(dataset, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    run_config.write_resolved(tiny(dataset, duration__value=float(FEW_STEPS)), mine)
    process = start(dataset, mine, SHORT, "--config.objective.temperature=.2")
    log = finish(process, mine, status=EXIT_USER_ERROR)
    assert "objective.temperature was 0.1 and is 0.2" in log
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if line.startswith("error: ")]


@pytest.mark.slow
def test_a_misspelt_leaf_is_named(dataset, tmp_path):
    process = start(dataset, tmp_path / "run", "--config.objective.temprature=.2")
    assert process.wait(timeout=120) != 0
    assert "temprature" in (tmp_path / "run.log").read_text()


@pytest.mark.parametrize(
    ("leaf", "value", "error", "message"),
    [
        ("data.dir", "nowhere", DataError, "nowhere"),
        ("mesh.model", 3, ConfigError, "config.mesh.model=3 does not divide"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(dataset, tmp_path, leaf, value, error, message):
    config = tiny_config.get_config()
    config.data.dir = str(dataset)
    config.update_from_flattened_dict({leaf: value})
    with pytest.raises(error, match=message):
        pretrain(config, tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").glob("*.json*"))


@pytest.mark.slow
def test_other_data_under_the_same_path_are_refused(uninterrupted, tmp_path):
    workdir, _ = uninterrupted
    other = make_simulated_dataset(tmp_path, num_patients=40, rate=50, seconds=4, seed=1).directory
    before = (workdir / run_config.CONFIG_FILE).read_bytes()
    log = finish(start(other, workdir), workdir, status=EXIT_USER_ERROR)
    assert "was trained on another data set, split or sampling" in log
    assert (workdir / run_config.CONFIG_FILE).read_bytes() == before, "the run's own config stays"
