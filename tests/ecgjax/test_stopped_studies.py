"""Studies that are stopped in the middle: they leave with 75, and the same command goes on with what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines.system.exit_status import ExitStatus
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

ROOT = Path(__file__).parents[2]
FOLDS = {"data__train_folds": (1, 2, 3, 4, 5), "data__val_folds": (6, 7), "data__test_folds": (8, 9, 10)}

pytestmark = [pytest.mark.slow, pytest.mark.soak]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=80, rate=50, seconds=4).directory


@pytest.fixture(scope="module")
def commands(dataset, tmp_path_factory):
    """Command lines of studies that train networks, and patterns of the files that their cells leave."""
    source = write_run(tmp_path_factory.mktemp("runs") / "source", tiny(dataset, **FOLDS))
    short = [
        f"--config.probe.{training}.{leaf}={value}"
        for training in ("finetune", "supervised")
        for leaf, value in (("steps", 8), ("batch_size", 8), ("eval_every", 4))
    ]
    return {
        "label_efficiency": (
            [
                f"--workdir={source}", "--task=age_years>55", "--fractions=.5,1", "--seeds=1", "--modes=finetuned",
                *short,
            ],
            "cells/*.json",
        ),
        "cross_validate": (
            [
                f"--dataset={dataset}", "--task=age_years>55", "--fractions=1", "--seeds=1", "--baselines=supervised",
                "--encoder=tests/support/tiny_config.py", "--config.outer_folds=2", "--config.inner_folds=2",
                "--config.min_positives=4", "--config.resamples=100",
            ],
            "**/scores/*.npz",
        ),
    }  # fmt: skip


def start(command, *flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", f"ecgjax.{command}", *flags], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["label_efficiency", "cross_validate"])
def test_a_stopped_study_goes_on_with_what_is_left(command, commands, tmp_path):
    flags, cells = commands[command]
    out = tmp_path / "stopped"
    process = start(command, *flags, f"--out={out}")
    deadline = time.monotonic() + 900
    while not list(out.glob(cells)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.STOPPED, output
    assert "SIGTERM: stopping" in output
    assert "Traceback" not in output
    kept = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob(cells)}
    assert kept
    assert not (out / "results.json").exists()

    again = start(command, *flags, f"--out={out}")
    output, _ = again.communicate(timeout=1200)
    assert again.returncode == 0, output
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept} == kept, "no cell is trained again"
    assert len(list(out.glob(cells))) > len(kept)
    whole = start(command, *flags, f"--out={tmp_path / 'whole'}")
    output, _ = whole.communicate(timeout=1200)
    assert whole.returncode == 0, output
    found, expected = (
        json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"]
        for folder in (out, tmp_path / "whole")
    )
    assert found == expected
