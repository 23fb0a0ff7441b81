"""What a run says of itself: in every checkpoint, and as one readable file in its folder.

Signals and their recipe, the embedding, the data sets and the commands that built them, the records seen, and the
revision of the code. Neither ids nor dates nor paths are part of it, so that it may leave with a model.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.card.build_command import build_command
from data_pipelines.prepared.dataset import Dataset
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.system.visible_text import visible
from ecgjax import encoders
from ecgjax.data.recordings import Recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.optim import Extension
from ecgjax.system.files import write_atomically
from ecgjax.system.machine_faults import cause_of
from ecgjax.system.revision import code_revision
from ecgjax.system.terminal import warn
from ecgjax.training.settings import PretrainingSettings

#: Name of the file in the folder of a run.
ABOUT_FILE = "about.json"

#: What stands for a fact that was not recorded.
NOT_RECORDED = "not recorded"

_VERSION = 1
_PACKAGES = ("ecgjax", "jax", "flax", "numpy")

#: What a run says of itself, as values of JSON.
About = Mapping[str, Any]


def about_run(
    settings: PretrainingSettings,
    recordings: Recordings,
    side: SampledSide,
    split: encoders.Split[encoders.Encoder],
    *,
    examples_per_epoch: int,
    this_code: bool = True,
    begun_from: Mapping[str, Any] | None = None,
    extensions: Sequence[Extension] = (),
) -> dict[str, Any]:
    """Returns what a run says of itself, but for how far it has come.

    Args:
        settings: Settings of the run.
        recordings: Recordings of the run.
        side: Training side of the run.
        split: Encoder of the run.
        examples_per_epoch: Number of recordings of an epoch of the run's sampler.
        this_code: Whether the run is trained by the code at hand, rather than told of later.
        begun_from: Statements about the encoder whose weights the run began with; None for random ones.
        extensions: Steps beyond the length in the run's config.
    """
    about = about_training(
        recordings,
        side.records,
        split,
        num_leads=settings.encoder.num_leads,
        batch_size=settings.batch_size,
        examples_per_epoch=examples_per_epoch,
        this_code=this_code,
    )
    if begun_from is not None:
        about["begun_from"] = begun_from
    if extensions:
        about["extensions"] = [dataclasses.asdict(each) for each in extensions]
    return about


def about_training(
    recordings: Recordings,
    records: np.ndarray,
    split: encoders.Split[encoders.Encoder],
    *,
    num_leads: int,
    batch_size: int,
    examples_per_epoch: int,
    this_code: bool = True,
) -> dict[str, Any]:
    """Returns what a training of any kind says of itself, but for how far it has come.

    Args:
        recordings: Recordings of the training.
        records: Numbers of the records that it draws from, `int64[n]`, ascending.
        split: Encoder of the training.
        num_leads: Number of input leads of the encoder.
        batch_size: Number of recordings of the global batch.
        examples_per_epoch: Number of recordings of an epoch of its sampler.
        this_code: Whether it is trained by the code at hand, rather than told of later.
    """
    encoder, form = encoders.merge(split), recordings.format
    return {
        "version": _VERSION,
        "signals": {
            "sampling_rate_hz": form.sampling_rate_hz,
            "seconds": form.seconds,
            "num_samples": form.num_samples,
            "stored_leads": list(STORED_LEADS),
            "stored_unit": "uV",
            "encoder_leads": list(leads_of(num_leads)),
            "encoder_unit": "mV",
        },
        "embedding": {"dimension": encoder.embedding_dim, "features": encoder.feature_dim},
        "batch_size": batch_size,
        "examples_per_epoch": examples_per_epoch,
        "data": [_about_dataset(dataset, own) for dataset, own in recordings.numbers_by_dataset(records)],
        "code": code() if this_code else unknown_code(),
    }


def leads_of(num_leads: int) -> tuple[str, ...]:
    """Returns the names of the leads that an encoder sees, in their order."""
    return STORED_LEADS if num_leads == len(STORED_LEADS) else STANDARD_LEADS


def _about_dataset(dataset: Dataset, numbers: np.ndarray) -> dict[str, Any]:
    card = dataset.card
    return {
        "name": card["name"],
        "fingerprint": dataset.fingerprint,
        "simulated": dataset.simulated,
        "records": len(numbers),
        "patients": len(np.unique(np.asarray(dataset.index.patient[numbers]))),
        "licence": card.get("license") or "not stated",
        "citation": card.get("citation") or "not stated",
        "recipe": dict(card["recipe"]),
        "build_command": build_command(card, dataset.directory) or NOT_RECORDED,
    }


def code() -> dict[str, Any]:
    """Returns revision and versions of the code at hand."""
    commit, dirty = code_revision()
    return {"git_revision": commit, "git_dirty": dirty, "versions": versions()}


def unknown_code() -> dict[str, Any]:
    """Returns what stands for the code of a run that did not record it."""
    return {"git_revision": NOT_RECORDED, "git_dirty": None, "versions": {}}


def versions() -> dict[str, str]:
    """Returns the versions of the packages that an encoder is computed with."""
    return {**{name: version(name) for name in _PACKAGES}, "python": platform.python_version()}


#: Leaves of the batch size: of a pretraining, and of a fine-tuning.
_BATCH_SIZES = ("batch_size", "training.batch_size")


def exposures(about: About, step: int) -> dict[str, Any]:
    """Returns how many records were seen after a number of steps, also in epochs of the present data."""
    seen = sum(size * (end - begin) for begin, end, size in _batch_sizes(about, step))
    return {
        "steps": step,
        "batch_size": about["batch_size"],
        "exposures": seen,
        "epochs": seen / about["examples_per_epoch"],
    }


def _batch_sizes(about: About, step: int) -> Iterator[tuple[int, int, int]]:
    """Yields first step, end and batch size of the parts of a run up to a step."""
    begin = 0
    for change in about.get("changes", ()):
        if change["name"] in _BATCH_SIZES:
            end = min(step, change["step"])
            yield begin, end, int(change["was"])
            begin = end
    yield begin, step, int(about["batch_size"])


def write_about(about: About, workdir: str | Path, *, step: int, num_steps: int) -> None:
    """Writes what a run says of itself, and keeps which code earlier steps were trained with.

    A file that is damaged is written anew. One that cannot be written costs no run: a warning says so, and every
    checkpoint holds the same.

    Args:
        about: What the run says of itself.
        workdir: Folder of the run.
        step: Number of finished steps.
        num_steps: Number of steps of the whole run.
    """
    path = Path(workdir) / ABOUT_FILE
    told = {
        **{name: value for name, value in about.items() if name != "code"},
        "exposures_when_written": exposures(about, step),
        "exposures_of_the_whole_run": exposures(about, num_steps),
        "code_from_step": _code_from_step(workdir, about["code"], step),
    }
    try:
        write_atomically(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        warn(f"{visible(str(path))} cannot be written ({cause_of(error)}); the checkpoints hold the same")


def read_about(workdir: str | Path) -> dict[str, Any]:
    """Returns what the folder of a run says of it; nothing where the file is missing or damaged."""
    try:
        told = json.loads((Path(workdir) / ABOUT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _code_from_step(workdir: str | Path, now: Mapping[str, Any], step: int) -> list[dict[str, Any]]:
    """Returns the code of every part of a run, with the step that it begins at."""
    before = read_about(workdir).get("code_from_step", [])
    if not isinstance(before, list) or not all(isinstance(part, dict) and "step" in part for part in before):
        before = []
    if step and not before:  # The run is older than this file.
        before = [{"step": 0, **unknown_code()}]
    last = {name: value for name, value in before[-1].items() if name != "step"} if before else None
    return before if last == now else [*before, {"step": step, **now}]
