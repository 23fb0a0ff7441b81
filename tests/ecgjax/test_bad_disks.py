"""The real command on disks that are full, gone or read-only, and what other commands say of damaged checkpoints."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.command import EXIT_USER_ERROR
from ecgjax.config import run_config
from ecgjax.errors import CheckpointError
from ecgjax.evaluation.features.frozen_encoder import load_encoder
from ecgjax.export.trained_run import open_trained_run
from ecgjax.training.run_log.metrics_file import read_metrics
from tests.support.fixtures import make_simulated_dataset
from tests.support.storage_faults import damage, largest_file, small_disk
from tests.support.written_runs import tiny, write_run

ROOT = Path(__file__).parents[2]
STEPS = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


@pytest.fixture(scope="module")
def written(dataset, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("written") / "run", tiny(dataset))


def damaged(written, tmp_path, step):
    workdir = Path(shutil.copytree(written, tmp_path / "run"))
    damage(largest_file(run_config.checkpoint_dir(workdir) / str(step) / "params_encoder" / "d"))
    return workdir


def test_an_encoder_is_taken_from_the_checkpoint_before_a_damaged_one(written, tmp_path, capsys):
    workdir = damaged(written, tmp_path, 12)
    assert load_encoder(workdir).step == 6
    assert capsys.readouterr().err.rstrip().endswith("; step 6 is taken")
    with pytest.raises(CheckpointError, match=r"/12 is damaged: .*there are also those of step 6"):
        load_encoder(workdir, step=12)
    assert sorted(os.listdir(run_config.checkpoint_dir(workdir))) == ["12", "6"], "a reader renames nothing"


@pytest.mark.slow  # It takes the checkpoint that the encoder above is taken from.
def test_an_export_is_of_the_checkpoint_before_a_damaged_one(written, tmp_path, capsys):
    workdir = damaged(written, tmp_path, 12)
    assert open_trained_run(workdir, statistics="running").encoder.step == 6
    assert "/12 is damaged" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="/12 is damaged"):
        open_trained_run(workdir, step=12, statistics="running")


def test_damage_in_what_is_not_read_is_none(written, tmp_path, capsys):
    workdir = Path(shutil.copytree(written, tmp_path / "run"))
    shutil.rmtree(run_config.checkpoint_dir(workdir) / "12" / "ema_params_encoder")
    assert load_encoder(workdir).step == 12
    assert capsys.readouterr().err == ""


def command(dataset, workdir, *flags):
    return [
        sys.executable, "-m", "ecgjax.pretrain", "--config=tests/support/tiny_config.py",
        f"--config.data.dir={dataset}", f"--workdir={workdir}", f"--config.duration.value={STEPS}", *flags,
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def told(log):
    return [line for line in log.splitlines() if line.startswith(("warning: ", "error: "))]


@pytest.mark.slow
def test_a_run_on_a_full_disk_comes_to_its_end_and_says_what_it_lost(dataset, tmp_path):
    with small_disk(tmp_path / "disk", size="100k") as (_, free):
        workdir = tmp_path / "run"
        workdir.mkdir()
        (workdir / "checkpoints").symlink_to(tmp_path / "disk")
        done = subprocess.run(
            command(dataset, workdir), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert done.returncode == EXIT_USER_ERROR
        assert "Traceback" not in done.stderr
        lines = told(done.stderr)
        assert [line.split(" failed")[0] for line in lines] == [
            *(f"warning: saving {workdir}/checkpoints/{step}" for step in (10, 20, 30)),
            f"error: saving {workdir}/checkpoints/40",
        ]
        assert lines[-1].endswith("again: the run begins anew, as there is no checkpoint")
        assert len(done.stderr.splitlines()) <= 6
        assert [line["step"] for line in read_metrics(workdir) if "train/loss" in line] == list(range(1, STEPS + 1))
        free()


@pytest.mark.slow
@pytest.mark.parametrize("stdout", ["file", "/dev/full"])
def test_a_run_whose_metrics_and_output_cannot_be_written_saves_and_hears_sigterm(dataset, tmp_path, stdout):
    workdir = tmp_path / "run"
    workdir.mkdir()
    for name in ("metrics.jsonl", "tensorboard"):
        (workdir / name).symlink_to("/dev/full")
    output = Path(stdout) if stdout != "file" else tmp_path / "out"
    with output.open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [*command(dataset, workdir, "--config.duration.value=100000"), "--config.checkpoint.every=50"],
            cwd=ROOT, env=ENVIRONMENT, stdout=out, stderr=err,
        )  # fmt: skip
        while not (workdir / "checkpoints" / "50").is_dir():
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == run_config.EXIT_STOPPED, (tmp_path / "err").read_text()
    lines = told((tmp_path / "err").read_text())
    assert len([line for line in lines if "cannot be written" in line]) == 2, lines
    assert len([line for line in lines if "were not written" in line]) == 2, lines
