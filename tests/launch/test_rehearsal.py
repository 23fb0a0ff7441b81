"""A batch script as Slurm would run it, with two real processes of a run, from the launcher to the end after a stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecgjax.training.run_log.metrics_file import read_metrics
from tests.launch.test_processes import dataset, environment, pretrain  # noqa: F401
from tests.support.fake_slurm import FakeSlurm

ROOT = Path(__file__).parents[2]
STEPS = 60


def _wait_for(what, process, seconds=300):
    start = time.monotonic()
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - start < seconds
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_that_slurm_stops_is_queued_again_and_goes_on_to_its_end(dataset, environment, tmp_path):  # noqa: F811
    workdir, logs = tmp_path / "run", tmp_path / "logs"
    command = [
        sys.executable, "-m", "launch.slurm", "--processes_per_node=2", "--time=1:00:00", f"--logs={logs}",
        "--env=JAX_PLATFORMS=cpu", "--", *pretrain(dataset, workdir, steps=STEPS), "--config.log_every=1",
    ]  # fmt: skip
    script = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    slurm = FakeSlurm(tmp_path / "slurm")

    process = slurm.start(script, ROOT, environment)
    _wait_for(lambda: len(slurm.notes("processes")) == 2, process)
    _wait_for(lambda: (workdir / "metrics.jsonl").is_file() and len(read_metrics(workdir)) > 3, process)
    # As `--signal=TERM@300` has it: the processes of the step get the signal, and the script does not.
    for number in slurm.notes("processes"):
        os.kill(int(number), signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    first = (logs / "rehearsal-77.restart0.txt").read_text()
    assert process.returncode == 75, output + first
    assert slurm.notes("scontrol_calls") == ["requeue 77"]
    assert "2 processes, by Slurm" in first

    status, output = slurm.run(script, ROOT, {**environment, "SLURM_RESTART_COUNT": "1"})
    second = (logs / "rehearsal-77.restart1.txt").read_text()
    assert status == 0, output + second
    assert slurm.notes("scontrol_calls") == ["requeue 77"]
    steps = [line["step"] for line in read_metrics(workdir) if "train/loss" in line]
    assert steps == sorted({*steps})
    assert steps[-1] == STEPS


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.slow
def test_an_ablation_as_an_array_with_one_arm_killed_gives_the_report_of_a_local_run(
    stored_dataset, environment, tmp_path  # noqa: F811
):  # fmt: skip
    leaves = {
        "data.dir": stored_dataset[0].directory, "data.train_folds": "(1,2,3,4,5,6)", "data.val_folds": "(7,8)",
        "data.test_folds": "(9,10)", "encoder.widths": "(4,)", "duration.value": "2", "duration.unit": "steps",
        "log_every": "1",
    }  # fmt: skip
    asked = [
        "--config=tests/support/tiny_config.py", "--sweep=objective.temperature=.1|.5", "--sweep=batch_size=8|4",
        "--task=age_years>55", "--label_fraction=.5", "--resamples=100", "--seeds=1", "--baselines=none",
        *(f"--config.{leaf}={value}" for leaf, value in leaves.items()),
    ]  # fmt: skip
    # The script starts `python`, which is to be this one.
    environment = {**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def ablate(out, *more, status=0):
        command = [sys.executable, "-m", "launch.ablate", *asked, f"--out={out}", *more]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    out, script, slurm = tmp_path / "array", tmp_path / "array.sh", FakeSlurm(tmp_path / "slurm")
    hand_out = ("--array=slurm", f"--jobs={script}", "--", f"--logs={tmp_path / 'logs'}")
    ablate(out, *hand_out)
    assert "#SBATCH --array=0-4\n" in script.read_text()

    def job(number):
        return slurm.start(
            script.read_text(), ROOT, {**environment, "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": str(number)}
        )

    for number in range(4):
        process = job(number)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output + (tmp_path / "logs" / f"rehearsal-70_{number}.restart0.txt").read_text()
    process, begun = job(4), len(list((out / "status").rglob("*.json")))
    _wait_for(lambda: len(list((out / "status").rglob("*.json"))) > begun, process)
    os.kill(int(slurm.notes("processes")[-1]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 137
    (left,) = (path for path in (out / "status").rglob("*.json") if '"running"' in path.read_text())
    os.utime(left, (0, 0))

    told = ablate(out, "--collect", *hand_out, status=1)
    assert "4 done, 1 killed" in told
    assert "#SBATCH --array=0-0\n" in script.read_text()
    process = job(0)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "5 runs: 5 done" in ablate(out, "--collect")

    local = tmp_path / "local"
    ablate(local)

    def results(folder):
        found = json.loads((folder / "results.json").read_text().replace(str(folder), "OUT"))
        for run in found["runs"]:
            run["facts"].pop("ECGs/s", None)  # It was measured.
        return found

    assert results(out) == results(local)
    titles, expected = (re.findall(r"(?m)^#.*", (folder / "report.md").read_text()) for folder in (out, local))
    assert titles == expected
