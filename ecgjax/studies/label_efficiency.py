"""Models of a label-efficiency study of one task and one checkpoint, trained cell by cell."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError
from ecgjax import defaults, encoders
from ecgjax.config import earlier
from ecgjax.data.labels import ProbeData, of_common_classes, probe_data
from ecgjax.data.recordings import open_recordings
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.features.cache import kept_embeddings
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.metrics.ranking import undefined_reason
from ecgjax.evaluation.models import selection
from ecgjax.evaluation.models.linear import FrozenProbe, fit_linear
from ecgjax.evaluation.models.plain_models import PlainModels
from ecgjax.finetuning import trainer
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.pages.page import SIMULATED
from ecgjax.settings.leaf import Value
from ecgjax.settings.probe import ProbeSettings
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.finished_run import check_encoder, guarded
from ecgjax.studies.label_efficiency_statistics import Summary, summarise
from ecgjax.studies.questions import asked, check_answerable
from ecgjax.studies.store import Cell, CellResult, Initialisation, Mode, begin_study

#: Number of records that are scored at a time.
_BATCH = 256

#: Leaves of the run that a study's cells depend on, besides those that decided the pretraining.
_LEAVES = ("data.train_folds", "data.val_folds", "data.test_folds", "data.links", "probe.layer", "probe.seed",
           "probe.supervised.", "probe.finetune.", *(f"optimizer.{name}" for name in trainer.SHARED))  # fmt: skip

# Leaves of a training with labels that older studies lack, with the values that describe what those studies did.
_AS_BEFORE = {"eval_records": 0, "head_start": "zeros"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answered:
    """Result of a fitted model.

    Attributes:
        val_metric: Primary metric of the selected model on validation; NaN if nothing was trained.
        selected: Description of what was selected on validation.
        scores: Scores of the test records, `f32[test records]` or `f32[test records, classes]`; None if nothing was
            trained.
    """

    val_metric: float
    selected: str
    scores: np.ndarray | None


class Study:
    """A label-efficiency study: models of one task and one checkpoint.

    Args:
        settings: Settings of the run as `defaults.settings_of_run` reads them; its `probe` section may be changed.
        workdir: Folder of the run.
        question: Question in one line.
        folder: Folder of the study.
        step: Step of the checkpoint; the latest by default.
        features: Folder of kept embeddings and measurements, which studies may share; inside `folder` by default.
        progress: Whether progress bars are drawn.

    Raises:
        DataError: The data set, the folds or the labels do not allow the task.
        ConfigError: The workdir holds no run or a run with another encoder, or the folder holds another study.
        CheckpointError: There is no finished checkpoint, or the checkpoint is damaged.
    """

    def __init__(
        self,
        settings: RunSettings,
        workdir: Path,
        *,
        question: str,
        folder: Path,
        step: int | None = None,
        features: Path | None = None,
        progress: bool = True,
    ):
        own, probe = defaults.settings_of_run(workdir), settings.probe
        if features is not None and features.exists() and not features.is_dir():
            raise ConfigError(f"--features={features} is no folder; name another, or leave the flag out")
        check_encoder(own.encoder, settings.encoder, workdir=str(workdir))
        self.recordings = open_recordings(settings.data)
        task = asked(question, self.recordings.index)
        # Settings are checked before anything is trained and before the folder is claimed for this study.
        for name, training in (("supervised", probe.supervised), ("finetune", probe.finetune)):
            trainer.check_settings(training, task.kind, section=f"config.probe.{name}")
            if training.head_start == "probe" and probe.layer != "features":
                raise ConfigError(
                    f"config.probe.{name}.head_start='probe' needs probes of what the head sees: set "
                    "config.probe.layer=features"
                )
        self.settings, self.task, self.folder, self._progress = settings, task, folder, progress
        self._kept = features or folder / "features"
        self._trainings: dict[Initialisation, FineTuning] = {}
        self._recalibrated: dict[tuple[Initialisation, int | None], encoders.Split[encoders.Encoder]] = {}
        self._makers: dict[Mode, Callable[[Cell, ProbeData], _Answered]] = {
            "frozen": self._frozen,
            "finetuned": self._finetuned,
            "plain": self._plain,
        }
        self.pretrained = frozen_encoder.load_encoder(workdir, step=step, layer=probe.layer)
        judged, _ = self._data(1.0, 0)
        self.recordings, self._cautions = guarded(
            own,
            settings.data,
            self.recordings,
            overlaps=probe.overlaps,
            encoder=self.pretrained,
            records=np.concatenate([judged.val.records, judged.test.records]),
        )
        # The data are made again because the guard may have dropped records.
        self.data, rare = self._data(1.0, 0)
        self._cautions += (*rare, *check_answerable(self.data, self.recordings.index))
        parts = (self.data.train_available, self.data.val, self.data.test)
        begin_study(
            folder,
            {
                "task": dataclasses.asdict(task),
                "checkpoint_step": self.pretrained.step,
                "weights": digests.of_weights(self.pretrained.split),
                "pretraining": _pretraining(own),
                "pretrained_on": list(self.pretrained.pretrained_on),
                "data": list(self.recordings.fingerprints),
                # The records that are trained, selected and tested on identify the study.
                "records": [digests.of_arrays(*part.arrays) for part in parts],
                "config": _deciding(flat(tree_of(settings))),
            },
            upgrade=_upgraded,
        )  # fmt: skip

    def cautions(self, modes: Collection[Mode]) -> tuple[str, ...]:
        """Returns the cautions that must be shown with cells of some modes."""
        simulated = (SIMULATED,) if self.recordings.simulated else ()
        return (*simulated, *self._cautions, *(_unlike(self.settings.probe) if "finetuned" in modes else ()))

    def train(self, cell: Cell) -> CellResult:
        """Trains one cell and scores the test records."""
        start = time.monotonic()
        data, _ = self._data(cell.fraction, cell.seed)
        train, kind = data.train, self.task.kind
        answered = _Answered(val_metric=math.nan, selected="", scores=None)
        reason = selection.undefined(kind, train.labels)
        if not reason:
            try:
                answered = self._makers[cell.mode](cell, data)
            except DataError as error:
                if error.reason != selection.NO_MODEL:
                    raise
                reason = str(error)
        return CellResult(
            cell=cell,
            records=len(train.records),
            patients=train.num_patients,
            positives=None if kind == "quantity" else int(np.max(train.labels.sum(axis=0))),
            unlearnt=sum(bool(undefined_reason(labels)) for labels in train.labels.T) if data.classes else 0,
            val_metric=answered.val_metric,
            selected=answered.selected,
            scores=answered.scores,
            seconds=time.monotonic() - start,
            reason=reason,
        )

    def summaries(self, results: list[CellResult], *, resamples: int) -> list[Summary]:
        """Summarises cells over seeds, with intervals over the test patients."""
        test = self.data.test
        return summarise(
            results,
            kind=self.task.kind,
            targets=test.labels,
            patients=test.patients,
            classes=self.data.classes,
            resamples=resamples,
            seed=self.settings.probe.seed,
        )

    def _data(self, fraction: float, seed: int) -> tuple[ProbeData, tuple[str, ...]]:
        return of_common_classes(
            probe_data(self.recordings.index, self.recordings.split, task=self.task, label_fraction=fraction, seed=seed)
        )

    def _frozen(self, cell: Cell, data: ProbeData) -> _Answered:
        embeddings = self._embeddings(_initialisation(cell), cell.seed)
        probe = self._probe(embeddings, data)
        scores = probe.predict(embeddings[self._row[data.test.records]])
        return _Answered(val_metric=probe.val_metric, selected=probe.selected, scores=scores.astype(np.float32))

    def _probe(self, embeddings: np.ndarray, data: ProbeData) -> FrozenProbe:
        return fit_linear(
            self.task.kind,
            embeddings[self._row[data.train.records]],
            data.train.labels,
            val_features=embeddings[self._row[data.val.records]],
            val_targets=data.val.labels,
            classes=data.classes,
        )

    def _plain(self, cell: Cell, data: ProbeData) -> _Answered:
        if not (cell.model == "age_sex" or cell.model == "intervals" or cell.model == "median_beat"):
            raise ValueError(f"{cell.name}: an encoder is no plain model")
        train, val, test = (self._row[part.records] for part in (data.train, data.val, data.test))
        probe, scores = self._plain_models.scores(cell.model, data, train=train, val=val, test=test, seed=cell.seed)
        return _Answered(val_metric=probe.val_metric, selected=probe.selected, scores=scores.astype(np.float32))

    @functools.cached_property
    def _plain_models(self) -> PlainModels:
        return PlainModels(self.recordings, self._labelled, task=self.task, folder=self._kept, progress=self._progress)

    def _finetuned(self, cell: Cell, data: ProbeData) -> _Answered:
        read, begin = self.recordings.store.read, _initialisation(cell)
        training = self._training(begin)
        probe = self._probe(self._embeddings(begin, cell.seed), data) if training.begins_at_probe else None
        network = training.train(
            self._encoder(begin, cell.seed, as_it_is=not (training.encoder_is_frozen or training.begins_at_probe)),
            read=read,
            train_records=data.train.records,
            train_labels=data.train.labels,
            train_patients=data.train.patients,
            val_records=data.val.records,
            val_labels=data.val.labels,
            seed=cell.seed,
            probe=probe,
            progress=self._progress,
            title=cell.name,
        )
        scores = map_records(
            network.scores, data.test.records, read=read, batch_size=_BATCH, title="test", progress=False
        )
        return _Answered(val_metric=network.val_metric, selected=network.selected, scores=scores.astype(np.float32))

    def _encoder(
        self, initialisation: Initialisation, seed: int, *, as_it_is: bool
    ) -> encoders.Split[encoders.Encoder]:
        of_random = initialisation == "random"
        encoder = self._random(seed) if of_random else self.pretrained
        if as_it_is:
            return encoder.split
        # An encoder that stays frozen, or whose head begins at a linear probe, needs the batch-norm statistics that the
        # linear probes see. They are kept, since setting them takes half as long as the training of a small cell.
        key = (initialisation, seed if of_random else None)
        if key not in self._recalibrated:
            self._recalibrated[key] = frozen_encoder.recalibrate_batch_norm(
                encoder, self.recordings.store.read, records=self.recordings.split.train, seed=self.settings.probe.seed
            ).split
        return self._recalibrated[key]

    def _random(self, seed: int) -> frozen_encoder.Encoder:
        return frozen_encoder.random_encoder(self.settings.encoder, layer=self.settings.probe.layer, seed=seed)

    def _training(self, initialisation: Initialisation) -> FineTuning:
        # The training is kept because a compilation takes longer than the training of a small cell.
        if initialisation not in self._trainings:
            self._trainings[initialisation] = self._new_training(initialisation)
        return self._trainings[initialisation]

    def _new_training(self, initialisation: Initialisation) -> FineTuning:
        probe = self.settings.probe
        return FineTuning(
            probe.finetune if initialisation == "pretrained" else probe.supervised,
            optimizer=self.settings.optimizer,
            encoder=self._encoder(initialisation, 0, as_it_is=True),
            num_leads=self.settings.encoder.num_leads,
            kind=self.task.kind,
            num_outputs=max(1, len(self.data.classes)),
        )

    @functools.cached_property
    def _row(self) -> np.ndarray:
        """Index of each labelled record among the labelled ones, by record number; -1 for other records."""
        records = self._labelled
        row = np.full(int(records.max()) + 1, -1, np.int64)
        row[records] = np.arange(len(records))
        return row

    @functools.cached_property
    def _labelled(self) -> np.ndarray:
        parts = (self.data.train_available, self.data.val, self.data.test)
        return np.concatenate([part.records for part in parts])

    def _embeddings(self, initialisation: Initialisation, seed: int) -> np.ndarray:
        """Returns the embeddings of all labelled records, `f32[n, dim]`, kept in a file."""
        of_random = initialisation == "random"
        # Both encoders get batch norm from the same unaugmented records; else its statistics would be compared too.
        return kept_embeddings(
            self._kept,
            self._random(seed) if of_random else self.pretrained,
            self._labelled,
            name=f"random-seed{seed}" if of_random else "pretrained",
            settings=tree_of(self.settings.encoder),
            read=self.recordings.store.read,
            datasets=self.recordings.fingerprints,
            recalibrate_on=self.recordings.split.train,
            seed=self.settings.probe.seed,
            progress=self._progress,
        )


def _initialisation(cell: Cell) -> Initialisation:
    """Returns the initialisation of a cell's encoder.

    Raises:
        ValueError: The cell is of a plain model, which has no encoder.
    """
    if cell.model == "random" or cell.model == "pretrained":
        return cell.model
    raise ValueError(f"{cell.name}: a plain model has no encoder")


def _upgraded(identity: dict[str, Any]) -> dict[str, Any]:
    """Writes an older study's identity with today's configuration leaves of the pretraining, newer ones at their
    defaults.
    """
    given = {name: value for name, value in identity["pretraining"].items() if value is not None}
    return {**identity, "pretraining": _pretraining(defaults.settings_of(earlier.translated(given)))}


def _pretraining(settings: RunSettings) -> dict[str, Any]:
    """Returns the leaves that decided a pretraining, as JSON reads them."""
    tree: dict[str, Any] = json.loads(json.dumps(tree_of(settings)))
    return {**tree, "probe": None, "checkpoint": None, "data": None}


def _unlike(probe: ProbeSettings) -> tuple[str, ...]:
    """Says where the two trainings differ.

    If they do, a comparison of the two measures more than the effect of pretraining.
    """
    ours, theirs = (flat(tree_of(training)) for training in (probe.finetune, probe.supervised))
    for leaves in (ours, theirs):
        if leaves["head_learning_rate"] is None:
            leaves["head_learning_rate"] = leaves["learning_rate"]

    def matters(name: str) -> bool:
        if name.startswith("metric.") and name != "metric.weight":
            return bool(ours["metric.weight"] and theirs["metric.weight"])
        return name not in ("hidden", "head_dropout") or "mlp" in (ours["head"], theirs["head"])

    differing = [
        f"{name} {value} and {theirs[name]}" for name, value in ours.items() if value != theirs[name] and matters(name)
    ]
    if not differing:
        return ()
    return (
        "Fine-tuned cells: the pretrained encoder and the random one were trained with other settings "
        f"(config.probe.finetune and config.probe.supervised): {'; '.join(differing)}. Unless each was chosen on "
        "validation, their difference is not pretraining's alone.",
    )


def _deciding(leaves: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the leaves that cells depend on."""

    def idle(name: str) -> bool:
        # Metric learning without a weight has no effect, and neither has a newer leaf at its value in `_AS_BEFORE`.
        training, found, _ = name.partition(".metric.")
        if found:
            return not leaves[f"{training}.metric.weight"]
        leaf = name.rpartition(".")[2]
        return leaf in _AS_BEFORE and leaves[name] == _AS_BEFORE[leaf]

    return {name: value for name, value in leaves.items() if name.startswith(_LEAVES) and not idle(name)}
