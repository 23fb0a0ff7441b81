"""Makes the runs of an ablation, one after the other: pretraining in a process of its own, then the probes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from tqdm import tqdm

from data_pipelines.command import ERROR_FILE_VARIABLE
from data_pipelines.errors import DataError
from data_pipelines.system.exit_status import RESTARTABLE, ExitStatus
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.studies.ablation import ArmRun, answer_tasks, study_models
from ecgjax.studies.model_names import ModelName
from ecgjax.studies.report.ablation_page import training_facts
from ecgjax.training.run_log.metrics_file import read_metrics

from . import arm_status
from .arm_status import State
from .child_process import run_child
from .planned_runs import Planned, result_path, status_path

# Options of JAX: the folder of its compiled programs, and the least seconds of compiling for a program to be kept.
_COMPILATION = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


def make_all(
    runs: Sequence[Planned],
    recordings: Recordings,
    drawn: Mapping[int, Mapping[str, ProbeData]],
    *,
    only: Sequence[str],
    out: Path,
) -> tuple[dict[str, str], int | None]:
    """Makes runs, one after the other.

    Args:
        runs: Runs of the ablation.
        recordings: Recordings that all arms are evaluated on.
        drawn: Labelled records of every task, by seed.
        only: Names of the runs to make; none for all.
        out: Folder of the ablation.

    Returns:
        Reasons of the runs that failed, by their names; and the exit status where one was stopped, otherwise None.
    """
    failed: dict[str, str] = {}
    with tqdm(
        [run for run in runs if not only or run.name in only], desc="runs", unit="run", dynamic_ncols=True, disable=None
    ) as bar:
        for run in bar:
            bar.set_postfix_str(run.name)
            with arm_status.telling(status_path(out, run)) as end:
                try:
                    status, reason = make(run, recordings, drawn[run.seed], out=out)
                except (DataError, CheckpointError) as error:
                    failed[run.name] = str(error)
                    end(State.FAILED, str(error))
                    continue
                if status:
                    end(arm_status.state_after(status), reason)
            if status in RESTARTABLE or status == ExitStatus.INTERRUPTED or status < 0:
                print(f"{run.name} was stopped; the same command goes on", file=sys.stderr)
                return failed, status if status > 0 else ExitStatus.STOPPED
            if status:
                failed[run.name] = reason
    return failed, None


class Ended(NamedTuple):
    """How the pretraining of a run ended: its exit status, and in words why, unless it came to its end."""

    status: int
    reason: str = ""


def make(run: Planned, recordings: Recordings, tasks: Mapping[str, ProbeData], *, out: Path) -> Ended:
    """Pretrains and probes a run, and writes its result, unless there is one; returns how the pretraining ended.

    Args:
        run: Arm and seed to run; a model beside the arms needs no pretraining.
        recordings: Recordings that all arms are evaluated on.
        tasks: Labelled records of every task.
        out: Directory of the ablation.

    Raises:
        ConfigError: There is a result already, of another config.
        DataError: There is a result already and it is damaged, or the labels allow no probe.
    """
    lacking: list[ModelName] = []
    for model, title in run.titles.items():
        path = result_path(out, run, model)
        if not path.is_file():
            lacking.append(model)
        elif ArmRun.load(path).config != run.digest_of(model):
            raise ConfigError(
                f"{path} is the result of another config of {title}; remove {path.parent}, or give another --out"
            )
    if not lacking:
        return Ended(ExitStatus.DONE)
    workdir, facts, encoder = out / "runs" / run.folder / f"seed{run.seed}", {}, None
    if run.model == "pretrained":
        error = status_path(out, run).with_suffix(".error")
        error.unlink(missing_ok=True)
        command = [sys.executable, "-m", "ecgjax.pretrain", *run.flags, f"--workdir={workdir}"]
        if status := run_child(command, environment=_environment() | {ERROR_FILE_VARIABLE: str(error)}):
            return Ended(status, _reason(status, error))
        encoder = frozen_encoder.load_encoder(workdir, layer=run.settings.probe.layer)
        facts = training_facts(read_metrics(workdir))
    models = study_models(
        run.titles, run.settings, recordings, tasks, seed=run.seed, encoder=encoder, folder=out / "features"
    )
    for model in lacking:
        answers = answer_tasks(model, models, tasks, seed=run.seed)
        ArmRun(
            arm=run.titles[model],
            seed=run.seed,
            twin=run.twin_of(model),
            config=run.digest_of(model),
            tasks=answers,
            facts=facts if model == run.model else {},
        ).save(result_path(out, run, model))
    return Ended(ExitStatus.DONE)


def _reason(status: int, error: Path) -> str:
    """Returns why a pretraining ended with a status, with the error that it left in a file, if it did."""
    said = error.read_text(encoding="utf-8") if error.is_file() else ""
    return f"pretraining ended with status {status}" + (f": {said}" if said else "")


def keep_compiled(out: Path) -> None:
    """Sets JAX's cache of compiled programs to a folder in `out`, unless the user has set another.

    Seeds of an arm then share the programs.
    """
    if _compilation()[0] is None:
        jax.config.update(_COMPILATION[0], str((out / "compiled").absolute()))
        jax.config.update(_COMPILATION[1], 0.0)


def _compilation() -> tuple[str | None, float]:
    """Returns the values of `_COMPILATION`."""
    # The options are read by name, because JAX makes these attributes when it starts and a type checker does not know
    # them.
    folder, seconds = (getattr(jax.config, name) for name in _COMPILATION)
    return folder, seconds


def _environment() -> dict[str, str]:
    folder, seconds = _compilation()
    if not folder:
        return dict(os.environ)
    kept = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(seconds)}
    return {**os.environ, **kept}
