"""A pretraining on simulated recordings and a probe, by the commands that a user gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.benchmarks import harness
from ecgjax.benchmarks.device.part_report import PartReport

#: Steps and recordings of a step, 262,144 exposures; patients of the simulated cohort, and the rate it is stored at.
STEPS, BATCH, PATIENTS, RATE_HZ = 1024, 256, 2000, 250
_REHEARSED = (12, 32, 200, 100)

#: Lines of a failed command's errors that are reported.
_LAST_LINES = 8


def measure(report: PartReport, *, rehearse: bool, folder: Path) -> None:
    """Takes the measurements; arguments are those of `parts.Measure`.

    Raises:
        RuntimeError: A command fails, without which the next ones make no sense.
    """
    scratch = folder / "run"
    shutil.rmtree(scratch, ignore_errors=True)
    for name, words in commands(scratch, rehearse=rehearse).items():
        done, seconds = harness.timed(_run, words)
        report.add(name, {"command": " ".join(words), "seconds": seconds, **_results(name, scratch)})
        if done.returncode:
            last = "\n".join(done.stderr.splitlines()[-_LAST_LINES:])
            raise RuntimeError(f"python -m {' '.join(words)} ended with status {done.returncode}: {last}")
    shutil.rmtree(scratch / "data")


def commands(scratch: Path, *, rehearse: bool) -> dict[str, list[str]]:
    """Returns the commands by name, each as the arguments of `python -m`.

    Args:
        scratch: Folder of the cohort and the run.
        rehearse: Whether they are of a rehearsal's size.
    """
    data, workdir = scratch / "data", f"--workdir={scratch / 'pretrained'}"
    steps, batch, patients, rate_hz = _REHEARSED if rehearse else (STEPS, BATCH, PATIENTS, RATE_HZ)
    cohort = ["--builder=simulated", f"--num_patients={patients}", f"--target_rate_hz={rate_hz}"]
    return {
        "build": ["data_pipelines.build", *cohort, f"--out={data}"],
        "stage": ["data_pipelines.stage", f"--dataset={data}"],
        "pretrain": [
            "ecgjax.pretrain",
            f"--config={'simclr:small' if rehearse else 'simclr'}",
            f"--config.data.dir={data}",
            # Processors have no arithmetic of bf16.
            f"--config.encoder.precision={'float32' if rehearse else 'bfloat16'}",
            f"--config.batch_size={batch}",
            f"--config.duration.value={steps}",
            "--config.duration.unit=steps",
            f"--config.checkpoint.every={steps}",
            "--config.eval_every=0",
            f"--config.log_every={max(steps // 16, 1)}",
            workdir,
        ],
        "probe": [
            "ecgjax.evaluate",
            workdir,
            "--task=lvef<40",
            # The network that is trained with labels alone is not what is timed here.
            "--config.probe.supervised.steps=1",
            "--config.probe.shuffles=2",
            "--config.probe.bootstrap=100",
        ],
    }


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)


def _results(name: str, scratch: Path) -> dict[str, Any]:
    """Returns what a command has left: the metrics of a run, or the results of the probe."""
    metrics = scratch / "pretrained" / "metrics.jsonl"
    if name == "pretrain" and metrics.exists():
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        return {"metrics": lines[-1] if lines else {}, "first_metrics": lines[0] if lines else {}}
    if name == "probe":
        found = sorted((scratch / "pretrained" / "evaluation").glob("*/results.json"))
        return {"results": json.loads(found[0].read_text(encoding="utf-8"))["models"] if found else {}}
    return {}
