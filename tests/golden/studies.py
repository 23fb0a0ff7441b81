"""Evaluations of the run that is kept: three questions, a label-efficiency study, an ablation, a cross-validation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.golden.commands import run
from tests.golden.normalise import plain
from tests.golden.runs import FOLDS, WHOLE_DIR

FEATURES = "features"

#: A yes or no of which both answers are on every side of `data/kept`.
TASK = "age_years>60"

#: Question → leaves of `config.probe`, and others.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "binary": ("probe.task=age_years>60", "probe.prevalence=.1"),
    "classes": ("probe.task=all:*", "data.dir=data/coded", "data.links="),
    "quantity": ("probe.task=age_years",),
}

_FEW = ("probe.bootstrap=100", "probe.shuffles=2")
_FEW_STEPS = tuple(f"probe.{training}.{leaf}" for training in ("supervised", "finetune")
                   for leaf in ("steps=6", "batch_size=8", "eval_every=3"))  # fmt: skip


def study_jobs(folder: Path) -> dict[str, Callable[[], Any]]:
    """Returns what makes each study and returns its results."""
    questions = {question: partial(evaluate, folder, question) for question in QUESTIONS}
    others = {"label_efficiency": label_efficiency, "ablation": ablation, "cross_validation": cross_validation}
    return questions | {name: partial(make, folder) for name, make in others.items()}


def evaluate(folder: Path, question: str) -> Any:
    """Evaluates a copy of the run."""
    workdir = f"runs/{question}"
    shutil.copytree(folder / WHOLE_DIR, folder / workdir)
    leaves = _leaves(*QUESTIONS[question], *_FEW, *_FEW_STEPS)
    run("ecgjax.evaluate", f"--workdir={workdir}", *leaves, folder=folder)
    (of_question,) = (folder / workdir / "evaluation").iterdir()
    return _results(of_question)


def label_efficiency(folder: Path) -> Any:
    """Makes a study of all modes; embeddings and measurements are kept in, or taken from, `folder/features`."""
    asked = (f"--task={TASK}", "--fractions=.5,1", "--seeds=1", f"--features={FEATURES}")
    leaves = _leaves(*_FEW, *_FEW_STEPS)
    study = f"--workdir={WHOLE_DIR}", "--out=studies/labels"
    run("ecgjax.label_efficiency", *study, *asked, *leaves, folder=folder)
    return _results(folder / "studies/labels")


def ablation(folder: Path) -> Any:
    """Makes an ablation of two arms beside a random encoder, asked a yes or no and a quantity."""
    leaves = _leaves("data.dir=data/kept", "encoder.widths=(4,)", "batch_size=8", "duration.value=4",
                     "duration.unit=steps", "log_every=1", "eval_every=2", "eval_batches=1", *_FEW_STEPS)  # fmt: skip
    asked = ("--sweep=augment.vcg.enabled=True|False", f"--task={TASK}", "--task=age", "--seeds=1")
    study = ("--config=configs/simclr.py:small", "--label_fraction=1", "--resamples=100", "--out=studies/ablation")
    run("launch.ablate", *study, *asked, *leaves, *FOLDS, folder=folder)
    return _results(folder / "studies/ablation")


def cross_validation(folder: Path) -> Any:
    """Cross-validates the run on a data set that it was not pretrained on."""
    leaves = _leaves("outer_folds=3", "inner_folds=2", "strengths=(.001,.1)", "min_positives=4", "resamples=100")
    asked = (f"--task={TASK}", "--task=female", "--fractions=.5,1", "--seeds=2", "--dataset=data/other")
    study = (f"--workdir={WHOLE_DIR}", "--baselines=intervals,boosted,median_beat,demographics", "--out=studies/cv")
    run("ecgjax.cross_validate", *study, *asked, *leaves, folder=folder)
    return _results(folder / "studies/cv")


def _leaves(*settings: str) -> list[str]:
    return [f"--config.{setting}" for setting in settings]


def _results(folder: Path) -> Any:
    return plain(json.loads((folder / "results.json").read_text(encoding="utf-8")))
