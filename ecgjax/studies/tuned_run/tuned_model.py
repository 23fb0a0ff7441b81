"""The exported model of a fine-tuning run: its encoder, its head, and what is known of both trainings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from ecgjax.defaults import RunSettings
from ecgjax.evaluation.features.frozen_encoder import Encoder
from ecgjax.export.evaluations import Evaluation
from ecgjax.export.file_names import CONFIG_FILE
from ecgjax.export.model_folder import write_answering_model
from ecgjax.export.trained_run import TrainedRun
from ecgjax.finetuning.answering_head import AnsweringHead, Head
from ecgjax.model.json_file import read_json
from ecgjax.pretrained.source import EncoderSource
from ecgjax.training.about import About

#: Form of the model's function → package that it is written with, which is installed by an extra.
_WRITTEN_WITH = {"onnx": "onnx", "stablehlo": "flatbuffers"}


def model_folder(workdir: str | Path) -> Path:
    """Returns the folder of the model in the folder of a fine-tuning run."""
    return Path(workdir) / "model"


def write_tuned_model(
    out: Path,
    *,
    source: EncoderSource,
    encoder: Encoder,
    head: Head,
    answering: AnsweringHead,
    about: About,
    evaluation: Evaluation,
    signatures: Path | None = None,
) -> tuple[str, ...]:
    """Writes encoder and head as a folder that `ecgjax.load` opens.

    Args:
        out: Folder to write.
        source: Pretrained encoder that training began at.
        encoder: Encoder after the training, with the statistics that its outputs are computed with.
        head: Head after the training.
        answering: Question of the head, and how its outputs become answers.
        about: What the training with labels says of itself.
        evaluation: Measurements on the test records, for the card.
        signatures: File of the signatures of all records that were seen, which leaves with the model; None for none.

    Returns:
        Forms of the model's function that were left out, because a package is not installed.
    """
    formats = tuple(name for name, package in _WRITTEN_WITH.items() if find_spec(package) is not None)
    statistics = "running" if jax.tree.leaves(encoder.split.stats) else "none"
    write_answering_model(
        out,
        run=_trained_run(source, encoder, about, statistics=statistics),
        head=head,
        about=answering,
        evaluations=[evaluation],
        signatures=signatures,
        formats=formats,
    )
    return tuple(name for name in _WRITTEN_WITH if name not in formats)


def _trained_run(source: EncoderSource, encoder: Encoder, about: About, *, statistics: str) -> TrainedRun:
    """Returns encoder and pretraining in the form in which they are exported.

    Where a source does not say how recordings were prepared or what it was trained on, as runs of before did not, the
    training with labels does.
    """
    if source.run is not None:
        return TrainedRun(settings=source.run, encoder=encoder, statistics=statistics, about=source.about or about)
    training: Mapping[str, Any] = read_json(source.place / CONFIG_FILE)["training"]
    recipes = {each["name"]: each["recipe"] for each in about["data"]}
    recipe = next(iter(recipes.values()))
    data = [{"recipe": recipe, **each} for each in source.data]
    return TrainedRun(
        settings=dataclasses.replace(RunSettings(), encoder=source.settings),
        encoder=encoder,
        statistics=statistics,
        about={**about, "data": data or about["data"]},
        training=training,
    )
