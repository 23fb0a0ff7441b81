"""Pretraining runs: 20 steps of every config, and one run of which half is kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.golden.commands import GoldenError, run, start
from tests.golden.data import LINKS
from tests.golden.leaves import small_configs
from tests.golden.normalise import metrics

STEPS, HALF = 20, 10

#: The run that is kept whole and half, and what it is called among the answers.
KEPT, WHOLE_DIR, HALF_DIR = "kept run", "runs/whole", "runs/half"

_SHORT = (f"--config.duration.value={STEPS}", "--config.duration.unit=steps", "--config.log_every=1",
          "--config.batch_size=8")  # fmt: skip
_SMALLEST = ("--config.encoder.widths=(4,8)", "--config.encoder.kernel=3", "--config.encoder.embedding_dim=8")

#: Of `data/kept`, whose few patients leave fold 9 empty: enough on each side for all that is asked of them.
FOLDS = ("--config.data.train_folds=(1,2,4)", "--config.data.val_folds=(3,5)", "--config.data.test_folds=(6,7,8,10)")

# Looking at validation after every step makes steps slow enough to stop a run between two of them.
_KEPT_RUN = ("--config=configs/simclr.py:small", "--config.data.dir=data/kept", f"--config.data.links={LINKS}", *FOLDS,
             *_SHORT, *_SMALLEST, "--config.eval_every=1", "--config.eval_batches=20",
             f"--config.checkpoint.every={HALF}")  # fmt: skip

_WAITS_S, _LOOKS_EVERY_S = 900, 0.002


def step_jobs(folder: Path) -> dict[str, Callable[[], dict]]:
    """Returns what trains each config and returns its metrics."""
    return {config: lambda config=config: _metrics_of_config(folder, config) for config in small_configs()}


def whole_run(folder: Path) -> dict[str, dict[str, str]]:
    """Trains the run that is kept to its end and returns its metrics."""
    return train(folder, WHOLE_DIR, *_KEPT_RUN)


def half_run(folder: Path) -> None:
    """Trains the same run and kills it when it has saved the step in the middle.

    Raises:
        GoldenError: It ends before, or has gone on to its end.
    """
    saved, errors = folder / HALF_DIR / "checkpoints" / str(HALF), folder / "half.errors"
    with errors.open("w") as file:
        process = start("ecgjax.pretrain", *_KEPT_RUN, f"--workdir={HALF_DIR}", folder=folder, stdout=file, stderr=file)
        deadline = time.monotonic() + _WAITS_S
        while not saved.is_dir() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOKS_EVERY_S)
        process.kill()
        process.wait()
    if not saved.is_dir() or saved.with_name(str(STEPS)).exists():
        raise GoldenError(f"the run was not stopped in the middle:\n{errors.read_text()}")


def resume(folder: Path) -> dict[str, dict[str, str]]:
    """Goes on with the run that was killed and returns the metrics of all its steps.

    Raises:
        GoldenError: It begins anew.
    """
    arguments = (*_KEPT_RUN, f"--workdir={HALF_DIR}")
    output = run("ecgjax.pretrain", *arguments, folder=folder)
    if f"resuming from step {HALF}" not in output:
        raise GoldenError(f"the half-finished run was not resumed from step {HALF}:\n{output}")
    return _metrics_of(folder / HALF_DIR)


def train(folder: Path, workdir: str, *arguments: str) -> dict[str, dict[str, str]]:
    """Runs `ecgjax.pretrain` and returns the metrics of all steps.

    Args:
        folder: Working folder.
        workdir: Folder of the run, below it.
        *arguments: Other arguments of the command.
    """
    run("ecgjax.pretrain", *arguments, f"--workdir={workdir}", folder=folder)
    return _metrics_of(folder / workdir)


def _metrics_of_config(folder: Path, config: str) -> dict[str, dict[str, str]]:
    several = config.startswith("real_recordings")  # Its weights are of several data sets.
    data = ("--config.data.dir=data/cohort,data/other", "--config.data.weights=(.6,.4)") if several else (
        "--config.data.dir=data/cohort",)  # fmt: skip
    clocs = ("--config.encoder.input_samples=500",) if config.startswith("clocs") else ()  # Of half the published rate.
    seldom = (f"--config.eval_every={HALF}", "--config.eval_batches=1", "--config.checkpoint.every=100")
    workdir = f"runs/{config.replace(':', '-')}"
    found = train(folder, workdir, f"--config=configs/{config}", *data, *clocs, *_SHORT, *seldom)
    shutil.rmtree(folder / workdir)
    return found


def _metrics_of(workdir: Path) -> dict[str, dict[str, str]]:
    return metrics((workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
