"""The models that studies compare: an encoder's probes and trainings, and the baselines on the same records.

| key | model |
|---|---|
| `pretrained` | a linear probe on the embeddings of the frozen encoder |
| `nearest` | nearest neighbours in these embeddings, without any training |
| `finetuned` | the pretrained encoder, trained on with labels |
| `random` | the same probe on the same encoder at its initialisation, with batch norm recalibrated |
| `supervised` | the same encoder, trained end to end with the labels alone |
| `intervals`, `boosted` | a linear model, and boosted trees, on intervals and amplitudes of the ECG |
| `median_beat` | a linear model on the heart rate and principal components of the median beat |
| `demographics` | a linear model on age and sex |
| `mean` | the mean of the training labels, for a quantity |
| `exported_head` | the head of an exported model, which was trained elsewhere and stays as it is |

Random convolutions are good features: pretraining has to do better than `random`, not merely better than chance.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from ecgjax import encoders
from ecgjax.data.labels import ProbeData
from ecgjax.data.tasks import Task
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.features.measurements import demographic_columns, interval_preprocessor, median_beat_preprocessor
from ecgjax.evaluation.models.answers import Answers, answers_of, examples_of
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.fitted import Examples, FittedModel
from ecgjax.evaluation.models.kinds import QuestionKind, kind_of
from ecgjax.evaluation.models.linear import fit_linear, fit_nearest
from ecgjax.evaluation.models.nested_cross_validation import MakePreprocessor
from ecgjax.finetuning import trainer
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.settings.sections import tree_of

ModelName = Literal[
    "pretrained", "nearest", "finetuned", "random", "supervised", "intervals", "boosted", "median_beat",
    "demographics", "mean", "exported_head",
]  # fmt: skip

#: Model whose difference from every other is reported.
REFERENCE: ModelName = "pretrained"

#: Models that need no encoder, in the order of tables.
PLAIN: tuple[ModelName, ...] = ("intervals", "boosted", "median_beat", "demographics")

#: Models that need no pretraining, in the order of tables; `mean` is for quantities alone.
BESIDE: tuple[ModelName, ...] = ("random", "supervised", *PLAIN, "mean")

#: Models that a study of several encoders has beside them if it is asked to; the random encoder is always there.
BASELINES: tuple[ModelName, ...] = ("supervised", *PLAIN)

#: Titles of models where a study has several encoders, or questions of several kinds.
_SHORT: Mapping[ModelName, str] = {
    "random": "random",
    "supervised": "labels only",
    "intervals": "intervals and amplitudes",
    "boosted": "boosted trees",
    "median_beat": "median beat",
    "demographics": "age and sex",
}

#: What makes the transformer that precedes a linear model, from the number of training records; embeddings are scaled.
PREPROCESSORS: Mapping[ModelName, MakePreprocessor] = {
    "intervals": lambda _: interval_preprocessor(),
    "demographics": lambda _: interval_preprocessor(),
    "median_beat": lambda number: median_beat_preprocessor(train_records=number),
}

_Initialisation = Literal["pretrained", "random"]


def answerable(names: tuple[ModelName, ...], task: Task) -> tuple[ModelName, ...]:
    """Returns the models that apply to a task: all of them for a quantity, and all but `mean` for classes.

    Args:
        names: Keys of models.
        task: Task.
    """
    return tuple(name for name in names if name != "mean" or not kind_of(task).log_odds)


def short_title(name: ModelName, encoder: str) -> str:
    """Returns the title of a model that is no pretrained encoder, in a study of several encoders.

    Args:
        name: Key of the model.
        encoder: Title of the encoder at random initialisation or trained with labels alone.
    """
    return _SHORT[name] if name in PLAIN else f"{_SHORT[name]} {encoder}"


def labels_only_titles(settings: Sequence[RunSettings], encoders: Sequence[str]) -> list[str]:
    """Returns the titles of the networks that are trained with labels alone, one for each encoder of a study.

    Encoders of one title may be trained with labels in several ways. These are told apart by a digest of the settings
    and not by a number, so that their titles do not depend on the order of the encoders.

    Args:
        settings: Settings of each encoder and of its training with labels.
        encoders: Title of each encoder at random initialisation, without its first word.
    """
    told = [
        (title, json.dumps([tree_of(each.probe.supervised), trainer.shared_settings(each.optimizer)], sort_keys=True))
        for title, each in zip(encoders, settings, strict=True)
    ]
    several = {title for title, _ in told if len({words for other, words in told if other == title}) > 1}
    return [
        short_title("supervised", title)
        + (f" ({hashlib.blake2b(words.encode(), digest_size=3).hexdigest()})" if title in several else "")
        for title, words in told
    ]


def check_trainings(settings: RunSettings, kinds: Iterable[QuestionKind], *, names: Sequence[str]) -> None:
    """Refuses settings of trainings with labels that are unknown or do not suit a question.

    Args:
        settings: Settings of the run.
        kinds: Kinds of the questions.
        names: Sections of `config.probe`, `"supervised"` or `"finetune"`.

    Raises:
        ConfigError: A setting is unknown or contradicts another one or a question.
    """
    for kind in kinds:
        for name in names:
            trainer.check_settings(getattr(settings.probe, name), kind, section=f"config.probe.{name}")


def checked_baselines(asked: Sequence[str]) -> tuple[ModelName, ...]:
    """Returns the models of `--baselines`, in the order of tables.

    Args:
        asked: Keys of models, of `BASELINES`; none at all, or the word `none`, for none of them.

    Raises:
        ConfigError: A model is unknown.
    """
    # A shell's empty variable is refused before this, and so there is a word for it.
    if list(asked) == ["none"]:
        return ()
    if unknown := sorted({*asked} - {*BASELINES}):
        raise ConfigError(
            f"--baselines={','.join(asked)}: {unknown[0]!r} is unknown; there are: {', '.join(BASELINES)}"
        )
    return tuple(name for name in BASELINES if name in asked)


def title_of(name: str, task: Task) -> str:
    """Returns the title of a model in tables.

    Args:
        name: Key of the model.
        task: Task, which decides whether linear models are called logistic or ridge.
    """
    linear = "logistic" if kind_of(task).log_odds else "ridge"
    demographics = " and ".join(words for _, words in demographic_columns(task))
    titles: Mapping[str, str] = {
        "pretrained": "pretrained, linear probe",
        "nearest": "pretrained, nearest neighbours",
        "finetuned": "pretrained, fine-tuned",
        "random": "random initialisation, linear probe",
        "supervised": "labels only, end to end",
        "intervals": f"intervals and amplitudes, {linear}",
        "boosted": "intervals and amplitudes, boosted trees",
        "median_beat": f"median beat and heart rate, {linear}",
        "demographics": f"{demographics}, {linear}",
        "mean": "mean of the training labels",
        "exported_head": "exported head, as it is",
    }
    return titles[name]


class StudyModels:
    """Fits models on the labelled records of tasks; features and compiled trainings are kept and shared between them.

    Args:
        features: Features of all labelled records of the study.
        settings: Settings of the encoder, of its probe and of trainings with labels.
        pretrained: Pretrained encoder; None in a study without one.
        validated: Whether networks predict the validation records too, as calibration needs. With many of them, that
            takes longer than a small training.
        progress: Whether progress bars are drawn.
    """

    def __init__(
        self,
        features: LabelledFeatures,
        *,
        settings: RunSettings,
        pretrained: frozen_encoder.Encoder | None = None,
        validated: bool = True,
        progress: bool = True,
    ):
        self.features, self._settings, self._pretrained = features, settings, pretrained
        self._validated, self._progress = validated, progress
        self._trainings: dict[tuple[_Initialisation, str, int], FineTuning] = {}
        self._embeddings: dict[tuple[str, str], np.ndarray] = {}
        self._recalibrated: dict[tuple[_Initialisation, int], encoders.Split[encoders.Encoder]] = {}
        self._makers: Mapping[ModelName, Callable[[ProbeData, int], Answers]] = {
            "nearest": lambda data, seed: self._fitted(self.embeddings("pretrained", seed), data, fit_nearest),
            "finetuned": lambda data, seed: self._trained("pretrained", data, seed),
            "supervised": lambda data, seed: self._trained("random", data, seed),
            "boosted": lambda data, seed: self._fitted(features.intervals, data, lambda of: fit_boosted(of, seed=seed)),
            "mean": lambda data, seed: self._mean(data),
        }

    def answers(self, name: ModelName, data: ProbeData, *, seed: int) -> Answers:
        """Fits a model on the training records, selects it on validation, and predicts the test records.

        Args:
            name: Key of the model.
            data: Labelled records of a task.
            seed: Seed of a random initialisation, of trees and of a training.

        Returns:
            The predictions.

        Raises:
            DataError: No model can be fitted to the labels, features are not finite, or a file of features is damaged.
        """
        if name in self._makers:
            return self._makers[name](data, seed)
        preprocessor = PREPROCESSORS[name](len(data.train.records)) if name in PREPROCESSORS else None
        fit = functools.partial(fit_linear, preprocessor=preprocessor)
        return self._fitted(self.values(name, data.task, seed), data, fit)

    def values(self, name: ModelName, task: Task, seed: int) -> np.ndarray:
        """Returns the features on which a linear model is fitted, of all labelled records: `[n, d]`.

        Args:
            name: Key of a linear model.
            task: Task of the model.
            seed: Seed of a random initialisation.
        """
        values: Mapping[str, Callable[[], np.ndarray]] = {
            "intervals": lambda: self.features.intervals,
            "median_beat": lambda: self.features.median_beats,
            "demographics": lambda: self.features.demographics(task),
            "random": lambda: self.embeddings("random", seed),
            "pretrained": lambda: self.embeddings("pretrained", seed),
        }
        return values[name]()

    def embeddings(self, initialisation: _Initialisation, seed: int, *, layer: str = "") -> np.ndarray:
        """Returns the embeddings of all labelled records, `f32[n, dim]`.

        Args:
            initialisation: Weights of the encoder, `"pretrained"` or `"random"`.
            seed: Seed of the random initialisation.
            layer: Layer that embeds, `"features"` or `"embedding"`; that of the settings by default.
        """
        name = "pretrained" if initialisation == "pretrained" else f"random-seed{seed}"
        layer = layer or self._settings.probe.layer
        if (name, layer) not in self._embeddings:
            encoder = self._encoder(initialisation, seed)
            if encoder.layer != layer:
                encoder = dataclasses.replace(encoder, layer=layer)
            settings = tree_of(self._settings.encoder)
            self._embeddings[name, layer] = self.features.embeddings(encoder, name=name, settings=settings)
        return self._embeddings[name, layer]

    def release(self) -> None:
        """Frees the memory of embeddings, which are computed again where they are asked for again."""
        self._embeddings.clear()

    def _fitted(self, values: np.ndarray, data: ProbeData, fit: Callable[[Examples], FittedModel]) -> Answers:
        features = self.features.of(values, data)
        return answers_of(fit(examples_of(features, data)), features, data)

    def _mean(self, data: ProbeData) -> Answers:
        mean = float(data.train.labels.mean())
        val, outputs = (np.full(len(part.records), mean) for part in (data.val, data.test))
        value = kind_of(data.task).value(data.val.labels, val)
        return Answers(outputs=outputs, val_outputs=val, val_metric=value, records=len(data.train.records))

    def _trained(self, initialisation: _Initialisation, data: ProbeData, seed: int) -> Answers:
        read = self.features.recordings.store.read
        training, probe = self.training(initialisation, data), None
        if training.begins_at_probe:
            # A head stands on the features, whatever layer is probed.
            seen = self.embeddings(initialisation, seed, layer="features")
            probe = fit_linear(examples_of(self.features.of(seen, data), data))
        recalibrated = training.encoder_is_frozen or training.begins_at_probe
        title = f"{'labels only' if initialisation == 'random' else 'fine-tuning'}, seed {seed}"
        start = self._start(initialisation, seed, recalibrated=recalibrated)
        network = training.train(start, data, read=read, seed=seed, probe=probe, progress=self._progress, title=title)

        def answer(records: np.ndarray, side: str) -> np.ndarray:
            scores = map_records(network.scores, records, read=read, title=f"{title}, {side}", progress=self._progress)
            return np.asarray(scores, np.float64)

        return Answers(
            outputs=answer(data.test.records, "test"),
            val_outputs=answer(data.val.records, "validation") if self._validated else None,
            val_metric=network.val_metric,
            selected=network.selected,
            records=len(data.train.records),
            positives=kind_of(data.task).positives(data.train.labels),
        )

    def _encoder(self, initialisation: _Initialisation, seed: int) -> frozen_encoder.Encoder:
        if initialisation == "random":
            layer = self._settings.probe.layer
            return frozen_encoder.random_encoder(self._settings.encoder, layer=layer, seed=seed)
        if self._pretrained is None:
            raise ValueError("this study has no pretrained encoder")
        return self._pretrained

    def _start(
        self, initialisation: _Initialisation, seed: int, *, recalibrated: bool
    ) -> encoders.Split[encoders.Encoder]:
        """Returns the encoder at which a training begins.

        An encoder that stays frozen, or whose head begins at a linear probe, needs the same batch-norm statistics as
        the encoder of the linear probes. Encoders with these statistics are kept, since computing them takes half as
        long as a small training.

        Args:
            initialisation: Weights of the encoder, `"pretrained"` or `"random"`.
            seed: Seed of the random initialisation.
            recalibrated: Whether batch-norm statistics are computed anew, as for the linear probes.
        """
        encoder = self._encoder(initialisation, seed)
        if not recalibrated:
            return encoder.split
        # A pretrained encoder is the same for every seed.
        key = (initialisation, seed if initialisation == "random" else 0)
        if key not in self._recalibrated:
            self._recalibrated[key] = self.features.recalibrated(encoder).split
        return self._recalibrated[key]

    def training(self, initialisation: _Initialisation, data: ProbeData) -> FineTuning:
        """Returns the training for a task, made once and kept: a compilation takes longer than a small training.

        Args:
            initialisation: Encoder at which the training begins, `"pretrained"` or `"random"`.
            data: Labelled records of a task.
        """
        # The kind decides the loss, and the number of classes the shape of the head.
        key = (initialisation, data.task.kind, len(data.classes))
        if key not in self._trainings:
            probe = self._settings.probe
            self._trainings[key] = FineTuning(
                probe.finetune if initialisation == "pretrained" else probe.supervised,
                optimizer=self._settings.optimizer,
                encoder=self._start(initialisation, 0, recalibrated=False),
                num_leads=self._settings.encoder.num_leads,
                kind=kind_of(data.task),
                classes=data.classes,
            )
        return self._trainings[key]


def with_float32(answers: Answers) -> Answers:
    """Returns predictions as files of a study hold them: outputs in float32, without those of validation records."""
    outputs = None if answers.outputs is None else np.asarray(answers.outputs, np.float32)
    return dataclasses.replace(answers, outputs=outputs, val_outputs=None)
