"""Fits the models that studies compare (`model_names`): probes, baselines, trainings with labels, readouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypedDict, cast

import numpy as np

from ecgjax import encoders
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import Task, file_name
from ecgjax.defaults import RunSettings
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.features.labelled_features import LabelledFeatures, Tokens
from ecgjax.evaluation.features.measurements import (
    interval_preprocessor,
    measured_preprocessor,
    median_beat_preprocessor,
)
from ecgjax.evaluation.features.pooled_tokens import pooled
from ecgjax.evaluation.models.answers import Answers, answers_of, examples_of
from ecgjax.evaluation.models.boosted import fit_boosted
from ecgjax.evaluation.models.choices import strength_of, to_choose_by
from ecgjax.evaluation.models.fitted import Examples, FittedModel
from ecgjax.evaluation.models.kinds import QuestionKind, kind_of
from ecgjax.evaluation.models.linear import Strength, fit_linear, fit_nearest
from ecgjax.evaluation.models.nested_cross_validation import MakePreprocessor
from ecgjax.finetuning import trainer
from ecgjax.finetuning.attention_pool import TokenRecords, fit_attention
from ecgjax.finetuning.network import Network
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.settings.probe import FineTuneSettings
from ecgjax.settings.sections import Tree, tree_of
from ecgjax.studies.model_names import ModelName
from ecgjax.studies.random_grid import grid_of
from ecgjax.studies.readouts import readout_of

#: What makes the transformer that precedes a linear model, from the number of training records; embeddings are scaled.
PREPROCESSORS: Mapping[ModelName, MakePreprocessor] = {
    "intervals": lambda _: interval_preprocessor(),
    "demographics": lambda _: interval_preprocessor(),
    "median_beat": lambda number: median_beat_preprocessor(train_records=number),
    "measured": lambda number: measured_preprocessor(train_records=number, embedding=False),
    "pretrained_fusion": lambda number: measured_preprocessor(train_records=number, embedding=True),
    "random_fusion": lambda number: measured_preprocessor(train_records=number, embedding=True),
}

_Initialisation = Literal["pretrained", "random"]


class _About(TypedDict):
    """Name and settings by which the features of an encoder are kept."""

    name: str
    settings: Tree


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
        self._trainings: dict[tuple[_Initialisation, str, int, float], FineTuning] = {}
        self._embeddings: dict[tuple[str, str], np.ndarray] = {}
        self._tokens: dict[str, Tokens] = {}
        self._random: dict[int, frozen_encoder.Encoder] = {}
        self._recalibrated: dict[tuple[_Initialisation, int], encoders.Split[encoders.Encoder]] = {}
        self._makers: Mapping[ModelName, Callable[[ProbeData, int], Answers]] = {
            "nearest": lambda data, seed: self._fitted(self.embeddings("pretrained", seed), data, fit_nearest),
            "finetuned": lambda data, seed: self._trained("pretrained", data, seed),
            "supervised": lambda data, seed: self._trained("random", data, seed),
            "boosted": lambda data, seed: self._fitted(features.intervals, data, lambda of: fit_boosted(of, seed=seed)),
            "mean": lambda data, seed: self._mean(data),
            "random_grid": self._best_of_grid,
            "pretrained_attention": lambda data, seed: self._attention("pretrained", data, seed),
            "random_attention": lambda data, seed: self._attention("random", data, seed),
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
        return self._linear(name, self.values(name, data.task, seed), data)[0]

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
            "measured": lambda: self._measured,
        }
        if name in values:
            return values[name]()
        initialisation, readout = cast(_Initialisation, name.partition("_")[0]), readout_of(name)
        if readout == "fusion":
            return np.c_[self._measured, self.embeddings(initialisation, seed)]
        encoder, about = self._named(initialisation, seed)
        key = about["name"], "moments"
        if key not in self._embeddings:
            self._embeddings[key] = self.features.moments(encoder, **about)
        return pooled(self._embeddings[key], readout)

    @property
    def _measured(self) -> np.ndarray:
        """Intervals and amplitudes, then median beat and RR interval, `f32[n, …]`, NaN where missing."""
        return np.c_[self.features.intervals, self.features.median_beats]

    def embeddings(self, initialisation: _Initialisation, seed: int, *, layer: str = "") -> np.ndarray:
        """Returns the embeddings of all labelled records, `f32[n, dim]`.

        Args:
            initialisation: Weights of the encoder, `"pretrained"` or `"random"`.
            seed: Seed of the random initialisation.
            layer: Layer that embeds, `"features"` or `"embedding"`; that of the settings by default.
        """
        layer = layer or self._settings.probe.layer
        encoder, about = self._named(initialisation, seed)
        key = about["name"], layer
        if key not in self._embeddings:
            if encoder.layer != layer:
                encoder = dataclasses.replace(encoder, layer=layer)
            self._embeddings[key] = self.features.embeddings(encoder, **about)
        return self._embeddings[key]

    def _named(self, initialisation: _Initialisation, seed: int) -> tuple[frozen_encoder.Encoder, _About]:
        """Returns an encoder, and the name and settings by which its features are kept.

        Args:
            initialisation: Weights of the encoder, `"pretrained"` or `"random"`.
            seed: Seed of the random initialisation.
        """
        name = "pretrained" if initialisation == "pretrained" else f"random-seed{seed}"
        return self._encoder(initialisation, seed), {"name": name, "settings": tree_of(self._settings.encoder)}

    def release(self) -> None:
        """Frees the memory of embeddings, which are computed again where they are asked for again."""
        self._embeddings.clear()
        self._tokens.clear()

    def _fitted(self, values: np.ndarray, data: ProbeData, fit: Callable[[Examples], FittedModel]) -> Answers:
        features, chosen = self.features.of(values, data), self._to_choose_by(data)
        answers = answers_of(fit(examples_of(self.features.of(values, chosen), chosen)), features, data)
        selected = f"{answers.selected}{self._chosen_elsewhere}"
        return dataclasses.replace(answers, records=len(chosen.train.records), selected=selected)

    def _linear(self, name: ModelName, values: np.ndarray, data: ProbeData) -> tuple[Answers, float]:
        """Returns the predictions of a linear model, and the value by which such models can be chosen among.

        Args:
            name: Key of the model, which decides its preprocessor.
            values: Features of all labelled records, `[n, d]`.
            data: Labelled records of a task.
        """
        probe, features = self._settings.probe, self.features.of(values, data)
        # On folds of the training records all of them are trained with once the strength is chosen.
        chosen = data if probe.select == "labelled" else self._to_choose_by(data)
        strength = strength_of(data, select=probe.select, fixed=probe.strength)
        preprocessor = PREPROCESSORS[name](strength.fewest(len(data.train.records))) if name in PREPROCESSORS else None
        examples = examples_of(self.features.of(values, chosen), chosen)
        fitted = fit_linear(examples, preprocessor=preprocessor, strength=strength)
        answers = answers_of(fitted, features, data)
        if probe.strength is None and probe.select == "validation_part":
            answers = dataclasses.replace(answers, selected=f"{answers.selected}{self._chosen_elsewhere}")
        return answers, fitted.criterion

    @property
    def _chosen_elsewhere(self) -> str:
        """What stood for validation where it was not all of it, as words behind a choice."""
        return _INSTEAD.get(self._settings.probe.select, "")

    def _to_choose_by(self, data: ProbeData) -> ProbeData:
        """Returns the records that a model is trained with and chosen on, as training and validation records."""
        select = self._settings.probe.select
        if select == "validation":
            return data
        return to_choose_by(data, select=select, patient_ids=self.features.recordings.index.patient_id)

    def _best_of_grid(self, data: ProbeData, seed: int) -> Answers:
        """Returns the predictions of the random encoder that is best on the records to choose by.

        The study's own random encoder is among them. Of equal values the first is kept.
        """
        found = {title: self._linear("random", values, data) for title, values in self.grid(seed).items()}
        best = max(found, key=lambda title: np.nan_to_num(found[title][1], nan=-np.inf))
        answers = found[best][0]
        return dataclasses.replace(answers, selected=f"{best}, best of {len(found)}; {answers.selected}")

    def grid(self, seed: int) -> dict[str, np.ndarray]:
        """Returns the embeddings of all labelled records, `f32[n, dim]`, by every random encoder of the grid, by title.

        Args:
            seed: Seed of the study's own random encoder, which is the first.
        """
        found = {f"{self._settings.encoder.name} at its own seed {seed}": self.embeddings("random", seed)}
        for entry in grid_of(self._settings.probe.grid, self._settings.encoder):
            key = f"random-{file_name(entry.title)}", self._settings.probe.layer
            if key not in self._embeddings:
                encoder = frozen_encoder.random_encoder(entry.settings, layer=key[1], seed=entry.seed)
                self._embeddings[key] = self.features.embeddings(encoder, name=key[0], settings=tree_of(entry.settings))
            found[entry.title] = self._embeddings[key]
        return found

    def _attention(self, initialisation: _Initialisation, data: ProbeData, seed: int) -> Answers:
        probe, (encoder, about) = self._settings.probe, self._named(initialisation, seed)
        if about["name"] not in self._tokens:
            # Tokens are large: those of one encoder at a time are kept.
            self._tokens = {about["name"]: self.features.tokens(encoder, cache_gb=probe.attention.cache_gb, **about)}
        tokens = self._tokens[about["name"]]

        def of(part: LabelledRecords) -> TokenRecords:
            rows = self.features.rows(part.records)
            return TokenRecords(lambda numbers: tokens.read(rows[numbers]), tokens.mask[rows], part.labels)

        chosen = self._to_choose_by(data)
        pool = fit_attention(
            of(chosen.train),
            of(chosen.val),
            probe.attention,
            kind=kind_of(data.task),
            classes=data.classes,
            seed=seed,
            strength=Strength(fixed=probe.strength),
        )
        return Answers(
            outputs=pool.outputs(*of(data.test)[:2]),
            val_outputs=pool.outputs(*of(data.val)[:2]) if self._validated else None,
            val_metric=pool.val_metric,
            selected=f"{pool.selected}{self._chosen_elsewhere}",
            records=len(chosen.train.records),
            positives=kind_of(data.task).positives(data.train.labels),
        )

    def _mean(self, data: ProbeData) -> Answers:
        mean = float(data.train.labels.mean())
        val, outputs = (np.full(len(part.records), mean) for part in (data.val, data.test))
        value = kind_of(data.task).value(data.val.labels, val)
        return Answers(outputs=outputs, val_outputs=val, val_metric=value, records=len(data.train.records))

    def _trained(self, initialisation: _Initialisation, data: ProbeData, seed: int) -> Answers:
        factors, chosen = self._settings.probe.rate_factors, self._to_choose_by(data)
        networks = {factor: self._network(initialisation, chosen, seed, factor=factor) for factor in factors}
        # Of equal values the first is kept.
        best = max(factors, key=lambda factor: networks[factor].value) if len(factors) > 1 else factors[0]
        network, read = networks[best], self.features.recordings.store.read

        def answer(records: np.ndarray, side: str) -> np.ndarray:
            title = f"{_training_title(initialisation, seed)}, {side}"
            scores = map_records(network.scores, records, read=read, title=title, progress=self._progress)
            return np.asarray(scores, np.float64)

        rate = f", learning rate × {best:g} of {len(factors)}" if len(factors) > 1 else ""
        return Answers(
            outputs=answer(data.test.records, "test"),
            val_outputs=answer(data.val.records, "validation") if self._validated else None,
            val_metric=network.val_metric,
            selected=f"{network.selected}{rate}{self._chosen_elsewhere}",
            records=len(chosen.train.records),
            positives=kind_of(data.task).positives(data.train.labels),
        )

    def _network(self, initialisation: _Initialisation, data: ProbeData, seed: int, *, factor: float) -> Network:
        """Trains an encoder with labels.

        Args:
            initialisation: Encoder at which the training begins.
            data: Records to train with and to choose the step by.
            seed: Seed of a random initialisation and of the training.
            factor: Factor of the learning rates.
        """
        training, probe = self.training(initialisation, data, factor=factor), None
        if training.begins_at_probe:
            # A head stands on the features, whatever layer is probed.
            seen = self.embeddings(initialisation, seed, layer="features")
            strength = Strength(fixed=self._settings.probe.strength)
            probe = fit_linear(examples_of(self.features.of(seen, data), data), strength=strength)
        recalibrated = training.encoder_is_frozen or training.begins_at_probe
        start = self._start(initialisation, seed, recalibrated=recalibrated)
        title, read = _training_title(initialisation, seed), self.features.recordings.store.read
        return training.train(start, data, read=read, seed=seed, probe=probe, progress=self._progress, title=title)

    def _encoder(self, initialisation: _Initialisation, seed: int) -> frozen_encoder.Encoder:
        if initialisation == "random":
            if seed not in self._random:
                layer = self._settings.probe.layer
                # Features know an encoder again by its identity. One seed follows another, and one is kept.
                self._random = {seed: frozen_encoder.random_encoder(self._settings.encoder, layer=layer, seed=seed)}
            return self._random[seed]
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

    def training(self, initialisation: _Initialisation, data: ProbeData, *, factor: float = 1.0) -> FineTuning:
        """Returns the training for a task, made once and kept: a compilation takes longer than a small training.

        Args:
            initialisation: Encoder at which the training begins, `"pretrained"` or `"random"`.
            data: Labelled records of a task.
            factor: Factor of the learning rates.
        """
        # The kind decides the loss, and the number of classes the shape of the head.
        key = (initialisation, data.task.kind, len(data.classes), factor)
        if key not in self._trainings:
            probe = self._settings.probe
            self._trainings[key] = FineTuning(
                _faster(probe.finetune if initialisation == "pretrained" else probe.supervised, factor),
                optimizer=self._settings.optimizer,
                encoder=self._start(initialisation, 0, recalibrated=False),
                num_leads=self._settings.encoder.num_leads,
                kind=kind_of(data.task),
                classes=data.classes,
            )
        return self._trainings[key]


#: Words on the records that stand for validation, by the value of `config.probe.select`.
_INSTEAD: Mapping[str, str] = {
    "validation_part": "; a part of the validation patients",
    "labelled": "; a fold of the labelled training patients in place of validation",
}


def _training_title(initialisation: _Initialisation, seed: int) -> str:
    return f"{'labels only' if initialisation == 'random' else 'fine-tuning'}, seed {seed}"


def _faster(settings: FineTuneSettings, factor: float) -> FineTuneSettings:
    """Returns settings of a training whose learning rates are multiplied by a factor."""
    of_head = settings.head_learning_rate
    return dataclasses.replace(
        settings,
        learning_rate=factor * settings.learning_rate,
        head_learning_rate=None if of_head is None else factor * of_head,
    )


def with_float32(answers: Answers) -> Answers:
    """Returns predictions as files of a study hold them: outputs in float32, without those of validation records."""
    outputs = None if answers.outputs is None else np.asarray(answers.outputs, np.float32)
    return dataclasses.replace(answers, outputs=outputs, val_outputs=None)
