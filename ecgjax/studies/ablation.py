"""Arms of an ablation: encoders that were pretrained in several ways, and models to compare with, on the same tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.defaults import RunSettings
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.models.answers import Answers, load_archive, save_archive
from ecgjax.evaluation.models.kinds import NO_MODEL, kind_of
from ecgjax.evaluation.results import Key, over_seeds
from ecgjax.pages.json_values import plain
from ecgjax.studies.model_names import GRID, PLAIN, ModelName, short_title
from ecgjax.studies.models import StudyModels, with_float32
from ecgjax.studies.readouts import MODELS_OF_READOUT, TITLES


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmRun:
    """Predictions of one arm at one seed, or of a model without pretraining that the arms are compared with.

    Attributes:
        arm: Title of the arm.
        seed: Seed of the run and of the draw of labels.
        twin: Title of the arm with the same encoder at random initialisation; empty for a model that is no arm.
        config: Digest of the settings that the encoder was trained and probed with.
        tasks: Predictions for each task, by the task's name.
        facts: Numbers that describe the training, such as the loss at its beginning and end, by their names.
    """

    arm: str
    seed: int
    twin: str
    config: str
    tasks: Mapping[str, Answers]
    facts: Mapping[str, float]

    def save(self, path: Path) -> None:
        """Writes one NumPy archive; an interruption leaves no partial file."""
        words = {
            **{name: getattr(self, name) for name in ("arm", "seed", "twin", "config", "facts")},
            "tasks": {name: {**described(answers), "scores": None} for name, answers in self.tasks.items()},
        }
        outputs = {f"scores{number}": answers.outputs for number, answers in enumerate(self.tasks.values())}
        save_archive(path, plain(words), {name: each for name, each in outputs.items() if each is not None})

    @classmethod
    def load(cls, path: Path) -> ArmRun:
        """Reads an archive that `save` wrote, and returns its run.

        Raises:
            DataError: The file is damaged.
        """

        def make(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> ArmRun:
            tasks = {
                name: _answers(values, arrays.get(f"scores{number}"))
                for number, (name, values) in enumerate(words.pop("tasks").items())
            }
            # NaN was stored as null, since JSON does not have it.
            facts = {name: math.nan if value is None else value for name, value in words.pop("facts").items()}
            return cls(tasks=tasks, facts=facts, **words)

        return load_archive(path, make)


def _answers(values: dict[str, Any], outputs: np.ndarray | None) -> Answers:
    del values["scores"]
    if outputs is None and not values.get("reason"):
        raise KeyError("scores")
    if values["val_metric"] is None:
        values["val_metric"] = math.nan
    return Answers(outputs=outputs, **values)


def described(answers: Answers) -> dict[str, float | str | None]:
    """Returns how predictions were made (numbers of records, validation metric, setting), without the predictions."""
    told = {name: getattr(answers, name) for name in ("records", "positives", "val_metric", "selected")}
    return told | ({"reason": answers.reason} if answers.reason else {})


def study_models(
    models: Collection[ModelName],
    settings: RunSettings,
    recordings: Recordings,
    tasks: Mapping[str, ProbeData],
    *,
    seed: int,
    encoder: frozen_encoder.Encoder | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> StudyModels:
    """Returns what fits the models of a run.

    Args:
        models: Keys of the models, as in `model_names.py`.
        settings: Settings of the encoder, of its probe and of trainings with labels.
        recordings: Recordings that the tasks are about.
        tasks: Labelled records of each task, by the task's name.
        seed: Seed of the draw of records that batch norm is recalibrated on.
        encoder: Pretrained encoder; None for models without one.
        folder: Folder in which measurements of the ECG, and embeddings of a grid, are kept for other runs; None to keep
            them in memory alone.
        progress: Whether progress bars are drawn.
    """
    # Measurements and embeddings that serve all draws of labels are of all labelled records.
    shared = any(model in (*PLAIN, *MODELS_OF_READOUT["fusion"], "random_grid") for model in models)
    parts = []
    for data in tasks.values():
        parts += [data.train_available if shared else data.train, data.val, data.test]
    records = np.unique(np.concatenate([part.records for part in parts]))
    kept = folder if shared else None
    # Another draw for batch norm would make the embeddings of a grid anew for every seed.
    drawn = 0 if "random_grid" in models else seed
    features = LabelledFeatures(recordings, records, folder=kept, seed=drawn, progress=progress)
    return StudyModels(features, settings=settings, pretrained=encoder, validated=False, progress=progress)


def answer_tasks(
    model: ModelName, models: StudyModels, tasks: Mapping[str, ProbeData], *, seed: int
) -> dict[str, Answers]:
    """Fits a model for each task, selects it on the validation records, and predicts the test records.

    Args:
        model: Key of the model.
        models: What fits models on the records of the tasks.
        tasks: Labelled records of each task, by the task's name.
        seed: Seed of the model.

    Returns:
        The predictions for each task, by the task's name, or the reason why a task has none.

    Raises:
        DataError: A file of features is damaged, or features are not finite.
    """
    found = {}
    for name, data in tasks.items():
        try:
            found[name] = with_float32(models.answers(model, data, seed=seed))
        except DataError as error:
            # A question without a model takes nothing from the others.
            if error.reason != NO_MODEL:
                raise
            found[name] = Answers(outputs=None, reason=str(error), records=len(data.train.records))
    return found


def first_arm(runs: Sequence[ArmRun]) -> str:
    """Returns the title of the first arm that was pretrained; empty if there is none."""
    return next((run.arm for run in runs if run.twin), "")


def grids_of(runs: Sequence[ArmRun]) -> list[str]:
    """Returns the titles of the best encoders of a grid, one for each encoder of the arms."""
    return list(dict.fromkeys(run.arm for run in runs if not run.twin and run.arm.startswith(GRID)))


def measure_arms(
    runs: Sequence[ArmRun],
    tasks: Mapping[str, ProbeData],
    *,
    labels_only: Mapping[str, str],
    resamples: int,
    questions: Mapping[str, Collection[str]] | None = None,
) -> dict[Key, Interval]:
    """Computes the metric of all arms on every task, over seeds and seed by seed, with bootstrap intervals.

    Args:
        runs: Runs in the order of the table, each with predictions for all tasks.
        tasks: Labelled records of each task, by the task's name; the test records are the same for all seeds.
        labels_only: Title of the same encoder trained with labels alone, by the title of each arm.
        resamples: Number of bootstrap resamples of the test patients, the same for all arms.
        questions: Names of the tasks that ask one question on the same test records, by the question: they differ in
            their training labels, and those of one fraction are averaged. By default every task is a question.

    Returns:
        The primary metric of every arm, and the paired differences of pretrained arms from the same encoder at random
        initialisation, from the same encoder trained with labels alone, from models without an encoder, and from the
        first arm.
    """
    others = [*(short_title(name, "") for name in PLAIN), TITLES["measured"], *grids_of(runs)]
    pairs = [
        (arm, other)
        for arm, twin in dict.fromkeys((run.arm, run.twin) for run in runs if run.twin)
        for other in (twin, labels_only.get(arm, ""), *others, *({first_arm(runs)} - {arm}))
    ]
    rows: dict[Key, Interval] = {}
    for question, names in (questions or {name: [name] for name in tasks}).items():
        metrics, missing = {}, {}
        draws = _draws(question, names, tasks)
        for name, draw in draws.items():
            data, kind = tasks[name], kind_of(tasks[name].task)
            for run in runs:
                key, answers = Key(run.arm, kind.primary, draw, data.label_fraction, run.seed), run.tasks[name]
                if answers.outputs is None:
                    missing[key] = answers.reason
                else:
                    metrics[key] = kind.metrics(data.test.labels, answers.outputs, classes=data.classes)[kind.primary]
        rows |= over_seeds(
            metrics,
            missing,
            pairs=pairs,
            patients=data.test.patients,
            resamples=resamples,
            seed=0,
            needs=kind.needs,
            questions={question: list(dict.fromkeys(draws.values()))},
        )
    return rows


def _draws(question: str, names: Collection[str], tasks: Mapping[str, ProbeData]) -> dict[str, str]:
    """Returns a name for every draw of labels, by the task's name; draws of different fractions share their names."""
    found: dict[str, str] = {}
    for fraction in dict.fromkeys(tasks[name].label_fraction for name in names):
        drawn = [name for name in names if tasks[name].label_fraction == fraction]
        found |= {name: f"{question}, draw {number}" for number, name in enumerate(drawn, 1)}
    return found
